//! Fixed-point weights whose integers need more than 16 bits: rounded to their digits, they stay floats.

use fewbits_onnx::Model;
use fewbits_onnx::proto::TensorProto;
use fewbits_quant::{QuantError, Scheme, check, fixed_point_floats};

use crate::plan::{Plan, PlannedTensor};
use crate::{Error, Result};

/// Rounds those of the planned weights to their digits.
///
/// # Errors
/// If a weight cannot be read.
pub(super) fn round(model: &mut Model, plan: &Plan) -> Result<()> {
    for (planned, scheme) in plan.quantized() {
        let Scheme::FixedPoint { fraction_bits } = scheme else { continue };
        if !is_wide(model, planned, scheme)? {
            continue;
        }
        let name = planned.tensor.as_str();
        let Some(tensor) = model.graph().find_initializer(name) else { continue };
        let floats = fixed_point_floats(&model.floats_released(tensor)?, fraction_bits);
        let rounded = TensorProto::from_f32(name, &planned.shape, &floats);
        for tensor in model.graph_mut().initializer.iter_mut().filter(|t| t.name() == name) {
            *tensor = rounded.clone();
        }
    }
    Ok(())
}

/// Whether the integers of a planned weight need more than 16 bits.
///
/// # Errors
/// If the weight cannot be read or holds no numbers.
pub(super) fn is_wide(model: &Model, planned: &PlannedTensor, scheme: Scheme) -> Result<bool> {
    let Scheme::FixedPoint { .. } = scheme else { return Ok(false) };
    let Some(tensor) = model.graph().find_initializer(&planned.tensor) else { return Ok(false) };
    let values = model.floats_released(tensor)?;
    match check(&values, &planned.shape, scheme) {
        Err(QuantError::FixedPointOverflow { .. }) => Ok(true),
        Err(source) => Err(Error::Quant { tensor: planned.tensor.clone(), source }),
        Ok(_) => Ok(false),
    }
}
