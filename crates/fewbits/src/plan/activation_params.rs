//! The scales and zero points of a plan's activations.

use std::collections::HashMap;

use fewbits_onnx::passes::qdq::{ActivationParams, ActivationStorage, IntegerReaders};
use fewbits_quant::{QuantParams, Scheme};

use super::{ActivationBecomes, Plan, Readers};
use crate::{Error, Result};

impl Plan {
    /// Finds the parameters of every value with a planned range.
    ///
    /// # Errors
    /// If a scheme is none of activations.
    pub(crate) fn activation_params(&self) -> Result<HashMap<String, ActivationParams>> {
        let mut params = HashMap::new();
        for planned in &self.activations {
            let ActivationBecomes::Static { scheme, low, high, .. } = planned.becomes else {
                continue;
            };
            let range = [(low, high)];
            let (quant, storage, bits) = match scheme {
                Scheme::Affine { bits, .. } => {
                    (QuantParams::affine(&range, bits), ActivationStorage::Unsigned, bits)
                }
                Scheme::Symmetric { bits, .. } => {
                    (QuantParams::symmetric(&range, bits), ActivationStorage::Signed, bits)
                }
                other => {
                    let reason = format!(
                        "value '{}' cannot become {other}; activations are affine or symmetric",
                        planned.value
                    );
                    return Err(Error::PlanMismatch { reason });
                }
            };
            params.insert(
                planned.value.clone(),
                ActivationParams {
                    scale: quant.scale[0],
                    zero_point: quant.zero_point_of(0),
                    storage,
                    bits: bits.get(),
                    readers: match planned.readers {
                        Readers::All => IntegerReaders::All,
                        Readers::Products => IntegerReaders::Products,
                    },
                },
            );
        }
        Ok(params)
    }
}
