//! From floats to a [`QTensor`] by any method of rounding, with what is known of the inputs.

use super::quantize_by;
use crate::rounding::{adaround, gptq, hqq, round_rows};
use crate::{
    Hessian, Importance, Inputs, Limits, PairLimit, QTensor, QuantError, Result, Rounding, Scheme,
    WeightRange,
};

/// Quantizes `values` as [`quantize_by`] does, but rounds them by `rounding` and keeps to `limits`. Errors count by what
/// inputs are given: for [`WeightRange::Mse`] by their mean squares, for methods that need inputs by
/// all of the Hessian.
///
/// No method is worse than [`Rounding::Nearest`] with the same range and inputs: one that needs inputs
/// in [`Hessian::error`], in any row; HQQ in the squared error of the weights that share a scale. HQQ
/// changes parameters, the others integers alone. Fixed point is always rounded to nearest, since the
/// width of its integers follows from the values, and so are small floats, whose steps differ.
///
/// # Errors
/// Those of [`quantize_by`]; if the method needs inputs and there are none; if the inputs are those
/// of another weight.
pub fn quantize_on(
    values: &[f32],
    shape: &[usize],
    scheme: Scheme,
    range: WeightRange,
    rounding: Rounding,
    inputs: Option<Inputs>,
    limits: &Limits,
) -> Result<QTensor> {
    if let (PairLimit::SevenBits, Some(narrow)) = (&limits.pairs, scheme.of_seven_bits()) {
        let limits = Limits { pairs: PairLimit::Free, least_scale: limits.least_scale.clone() };
        let narrow = quantize_on(values, shape, narrow, range, rounding, inputs, &limits)?;
        return Ok(narrow.widened());
    }
    if let Some(inputs) = inputs {
        inputs.check(values.len())?;
    }
    let mean_squares: Vec<f32> =
        inputs.iter().flat_map(|i| i.hessians).flat_map(Hessian::mean_squares).collect();
    let importance = match inputs {
        Some(Inputs { matrix, .. }) => {
            Importance::OfColumns { matrix, mean_squares: &mean_squares }
        }
        None => Importance::Equal,
    };
    let plain = quantize_by(values, shape, scheme, range, importance)?;
    if rounding.needs_inputs() && inputs.is_none() {
        return Err(QuantError::NeedsInputs { rounding: rounding.name() });
    }
    let only_nearest =
        matches!(scheme, Scheme::FixedPoint { .. }) || scheme.float_format().is_some();
    if values.is_empty() || only_nearest {
        return Ok(plain);
    }
    let plain = match rounding {
        Rounding::Hqq => hqq::quantize(values, plain),
        Rounding::Nearest | Rounding::Gptq | Rounding::AdaRound => plain,
    };
    let counts = inputs.map(|_| importance.of_elements(values.len())).transpose()?;
    let plain = limits.keep(values, plain, counts.as_deref());
    let rounded = match (rounding, inputs) {
        (Rounding::Gptq, Some(inputs)) => round_rows(values, plain, inputs, limits, gptq::codes),
        (Rounding::AdaRound, Some(inputs)) => {
            round_rows(values, plain, inputs, limits, adaround::codes)
        }
        (Rounding::Nearest | Rounding::Hqq, _) | (_, None) => return Ok(plain),
    };
    Ok(limits.keep_pairs(values, rounded))
}
