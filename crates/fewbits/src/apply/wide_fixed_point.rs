//! Fixed-point weights whose integers need more than 16 bits.

use fewbits_onnx::Model;
use fewbits_onnx::proto::TensorProto;
use fewbits_quant::{QuantError, Scheme, check, fixed_point_floats};

use crate::plan::{PlannedTensor, WeightScheme};
use crate::{Error, Result};

/// Rounds those of the planned weights to their digits, and leaves them floats; gives the others, which become
/// integers.
///
/// # Errors
/// If a weight cannot be read.
pub(super) fn round<'a>(
    model: &mut Model,
    planned: Vec<(&'a PlannedTensor, WeightScheme)>,
) -> Result<Vec<(&'a PlannedTensor, WeightScheme)>> {
    let mut integers = Vec::with_capacity(planned.len());
    for (tensor, becomes) in planned {
        match rounded(model, tensor, becomes.scheme)? {
            Some(rounded) => {
                let all = &mut model.graph_mut().initializer;
                all.iter_mut()
                    .filter(|t| t.name() == tensor.tensor)
                    .for_each(|t| *t = rounded.clone());
            }
            None => integers.push((tensor, becomes)),
        }
    }
    Ok(integers)
}

fn rounded(model: &Model, planned: &PlannedTensor, scheme: Scheme) -> Result<Option<TensorProto>> {
    let Scheme::FixedPoint { fraction_bits } = scheme else { return Ok(None) };
    let graph = model.graph();
    let Some(tensor) = graph.find_initializer(&planned.tensor) else { return Ok(None) };
    // Another shape than the plan's is refused later.
    let shape = tensor.shape()?;
    let values = model.floats_released(tensor)?;
    match check(&values, &shape, scheme) {
        Err(QuantError::FixedPointOverflow { .. }) => {
            let floats = fixed_point_floats(&values, fraction_bits);
            Ok(Some(TensorProto::from_f32(&planned.tensor, &shape, &floats)))
        }
        Err(source) => Err(Error::Quant { tensor: planned.tensor.clone(), source }),
        Ok(_) => Ok(None),
    }
}
