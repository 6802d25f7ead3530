//! What one change alone does to the outputs.

use std::borrow::Cow;

use fewbits_onnx::Model;
use fewbits_quant::{QuantParams, Scheme, affine_max, round_half_even, symmetric_max};
use fewbits_runtime::{RunOptions, Tensor, Values};

use super::divergence::Divergence;
use super::walk::{Batch, Walk};
use crate::data::Dataset;
use crate::plan::WeightScheme;
use crate::progress::Progress;
use crate::{Error, Result};

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
/// which the model reads them. What no node reads is left out.
///
/// # Errors
/// If the model cannot be run on the sample, or a weight cannot be quantized so.
pub fn changes(
    model: &Model,
    asked: &[(String, Change)],
    sample: &Dataset,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Vec<(String, f64)>> {
    let mut walk = Walk::new(model, sample, run)?;
    let mut waiting: Vec<&(String, Change)> = asked.iter().collect();
    let mut found = Vec::new();
    progress.start("measuring sensitivity", asked.len() as u64);
    for position in 0..walk.model().graph().node.len() {
        let mut read: Vec<String> = Vec::new();
        walk.model().graph().node[position].for_each_use(&mut |name| read.push(name.to_string()));
        let (here, later) = waiting.into_iter().partition(|(name, _)| read.contains(name));
        waiting = later;
        for (name, change) in here {
            walk.advance(position)?;
            found.push((name.clone(), divergence(&walk, name, change)?));
            progress.advance(1);
        }
    }
    progress.finish();
    Ok(found)
}

fn divergence(walk: &Walk, name: &str, change: &Change) -> Result<f64> {
    let rest = walk.rest(name)?;
    let weight = match change {
        Change::Weight(integers) => Some(rounded_weight(walk.model(), name, *integers)?),
        Change::Activation { .. } => None,
    };
    let mut divergence = Divergence::default();
    for batch in walk.batches() {
        let fed = match (&weight, change) {
            (Some(weight), _) => Some(Cow::Borrowed(weight)),
            (None, Change::Activation { scheme, low, high }) => {
                rounded_activation(batch, name, *scheme, (*low, *high)).map(Cow::Owned)
            }
            (None, Change::Weight(_)) => None,
        };
        let Some(fed) = fed else { continue };
        let outputs = rest.outputs(batch, name, &fed)?;
        divergence.push(&batch.expected, &outputs, batch.tokens.as_ref())?;
    }
    Ok(divergence.finish())
}

/// What the integers of a weight stand for.
pub(super) fn rounded_weight(model: &Model, name: &str, integers: WeightScheme) -> Result<Tensor> {
    let weight = model.graph().find_initializer(name).ok_or_else(|| Error::PlanMismatch {
        reason: format!("the model has no weight '{name}'"),
    })?;
    let (shape, values) = (weight.shape()?, model.floats_released(weight)?);
    let quantized = integers
        .quantize(&values, &shape)
        .map_err(|source| Error::Quant { tensor: name.to_string(), source })?;
    Ok(Tensor::new(shape, quantized.dequantize())?)
}

/// What the integers of an activation stand for; none if it has no floats.
fn rounded_activation(
    batch: &Batch,
    name: &str,
    scheme: Scheme,
    range: (f32, f32),
) -> Option<Tensor> {
    let tensor = batch.value(name)?;
    let Values::F32(values) = tensor.values() else { return None };
    let (params, low, high) = match scheme {
        Scheme::Affine { bits, .. } => {
            (QuantParams::affine(&[range], bits), 0.0, f32::from(affine_max(bits)))
        }
        _ => {
            let max = f32::from(symmetric_max(scheme.bits()));
            (QuantParams::symmetric(&[range], scheme.bits()), -max, max)
        }
    };
    let (scale, zero_point) = (params.scale[0], f32::from(params.zero_point_of(0)));
    let round = |&x: &f32| {
        let code = (x / scale).clamp(low - zero_point, high - zero_point);
        round_half_even(code) * scale
    };
    Tensor::new(tensor.shape().to_vec(), values.iter().map(round).collect::<Vec<f32>>()).ok()
}
