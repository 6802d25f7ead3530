//! What one change alone does to the outputs.

use fewbits_onnx::Model;
use fewbits_quant::{Inputs, Scheme, quantize_within};
use fewbits_runtime::{RunOptions, Tensor, Values};

use super::divergence::Divergence;
use super::truth::{Truth, walk};
use crate::data::Dataset;
use crate::plan::WeightScheme;
use crate::progress::Progress;
use crate::walk::{Batch, Walk};
use crate::{Error, Result, WeightLimits};

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// A weight becomes integers.
    Weight(WeightScheme),
    /// An activation becomes integers over this range.
    Activation {
        /// Affine for unsigned, symmetric for signed integers.
        scheme: Scheme,
        /// The smallest value that is not cut off.
        low: f32,
        /// The largest.
        high: f32,
    },
}

/// Measures how far the outputs of a prepared model move if one weight or activation at a time is
/// changed: in the unit of [`Cost::divergence`](super::Cost::divergence), by names, in the order in
/// which the model reads them. Weights keep to `limits`. What no node reads is left out.
///
/// # Errors
/// If the model cannot be run on the sample, or a weight cannot be quantized so.
pub fn changes(
    model: &Model,
    asked: &[(String, Change)],
    limits: &WeightLimits,
    sample: &Dataset,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Vec<(String, f64)>> {
    let mut walk = walk(model, sample, run)?;
    let names: Vec<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
    let mut found = Vec::new();
    progress.start("measuring sensitivity", asked.len() as u64);
    for (position, i) in walk.first_readers(&names) {
        walk.advance(position)?;
        let (name, change) = &asked[i];
        found.push((name.clone(), divergence(&walk, name, change, limits)?));
        progress.advance(1);
    }
    progress.finish();
    Ok(found)
}

fn divergence(
    walk: &Walk<Truth>,
    name: &str,
    change: &Change,
    limits: &WeightLimits,
) -> Result<f64> {
    let rest = walk.rest(name)?;
    let weight = match change {
        Change::Weight(integers) => Some(rounded_weight(walk, name, *integers, None, limits)?),
        Change::Activation { .. } => None,
    };
    let mut divergence = Divergence::default();
    for batch in walk.batches() {
        let activation = match *change {
            Change::Weight(_) => None,
            Change::Activation { scheme, low, high } => {
                rounded_activation(batch, name, scheme, (low, high))?
            }
        };
        let Some(fed) = weight.as_ref().or(activation.as_ref()) else { continue };
        let outputs = rest.outputs(batch, name, fed)?;
        divergence.push(&batch.about.expected, &outputs, batch.about.tokens.as_ref())?;
    }
    Ok(divergence.finish())
}

/// What the integers of a weight stand for.
pub(super) fn rounded_weight(
    walk: &Walk<Truth>,
    name: &str,
    integers: WeightScheme,
    inputs: Option<Inputs>,
    limits: &WeightLimits,
) -> Result<Tensor> {
    let model = walk.model();
    let weight = model.graph().find_initializer(name).ok_or_else(|| Error::PlanMismatch {
        reason: format!("the model has no weight '{name}'"),
    })?;
    let (shape, values) = (weight.shape()?, model.floats_released(weight)?);
    let quantized = integers
        .quantize(&values, &shape, inputs, limits.of(name))
        .map_err(|source| Error::Quant { tensor: name.to_string(), source })?;
    Ok(Tensor::new(shape, quantized.dequantize())?)
}

/// What the integers of an activation stand for; none if it has no floats.
fn rounded_activation(
    batch: &Batch<Truth>,
    name: &str,
    scheme: Scheme,
    range: (f32, f32),
) -> Result<Option<Tensor>> {
    let Some(tensor) = batch.value(name) else { return Ok(None) };
    let Values::F32(values) = tensor.values() else { return Ok(None) };
    let quantized = quantize_within(values, tensor.shape(), scheme, range)
        .map_err(|source| Error::Quant { tensor: name.to_string(), source })?;
    Ok(Some(Tensor::new(tensor.shape().to_vec(), quantized.dequantize())?))
}
