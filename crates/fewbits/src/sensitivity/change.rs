//! What one change alone does to the outputs.

use fewbits_engine::{RunOptions, Tensor, Values};
use fewbits_onnx::Model;
use fewbits_quant::{Bits, Granularity, Inputs, Scheme, quantize_within};

use super::divergence::Divergence;
use super::truth::{Truth, start_layerwise};
use crate::data::Dataset;
use crate::evaluate::OutputErrors;
use crate::layerwise::{Batch, Fed, LayerwiseRun};
use crate::plan::WeightScheme;
use crate::progress::Progress;
use crate::{Error, Result, WeightLimits};

/// What is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A weight becomes integers.
    Weight {
        /// Which.
        integers: WeightScheme,
        /// The bias that makes up for their rounding, by its name, with the values that it then has.
        bias: Option<(String, Vec<f32>)>,
    },
    /// An activation becomes integers over this range.
    Activation {
        /// Affine for unsigned, symmetric for signed integers.
        scheme: Scheme,
        /// The smallest value that is not cut off.
        low: f32,
        /// The largest.
        high: f32,
    },
    /// An activation becomes integers over the range that it has in a call.
    DynamicActivation,
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
    let push = |divergence: &mut Divergence, truth: &Truth, given: &[Tensor]| {
        divergence.push(&truth.expected, given, truth.tokens.as_ref())
    };
    let found = one_at_a_time(model, asked, limits, sample, run, progress, &push)?;
    Ok(found.into_iter().map(|(name, divergence)| (name, divergence.finish())).collect())
}

/// The noise over the signal of every output of a prepared model if one weight or activation at a time
/// is changed, as [`changes`] tells it of all outputs together. Of an output that holds no floats, or
/// nothing but zeros, it is 0.
///
/// # Errors
/// Those of [`changes`].
pub fn output_noise(
    model: &Model,
    asked: &[(String, Change)],
    limits: &WeightLimits,
    sample: &Dataset,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Vec<(String, Vec<f64>)>> {
    let push = |errors: &mut OutputErrors, truth: &Truth, given: &[Tensor]| {
        errors.push(&truth.expected, given, truth.tokens.as_ref())
    };
    let found = one_at_a_time(model, asked, limits, sample, run, progress, &push)?;
    let noise = |errors: OutputErrors| errors.each().map(|e| e.relative().unwrap_or(0.0)).collect();
    Ok(found.into_iter().map(|(name, errors)| (name, noise(errors))).collect())
}

/// Adds what the outputs of a batch are beside the truth to a tally.
type Push<T> = dyn Fn(&mut T, &Truth, &[Tensor]) -> Result<()>;

/// Adds up what `push` makes of the outputs of every batch, once for each change.
fn one_at_a_time<T: Default>(
    model: &Model,
    asked: &[(String, Change)],
    limits: &WeightLimits,
    sample: &Dataset,
    run: &RunOptions,
    progress: &dyn Progress,
    push: &Push<T>,
) -> Result<Vec<(String, T)>> {
    let mut layerwise = start_layerwise(model, sample, run)?;
    let names: Vec<&str> = asked.iter().map(|(name, _)| name.as_str()).collect();
    let mut found = Vec::new();
    progress.start("measuring sensitivity", asked.len() as u64);
    for (position, i) in layerwise.first_readers(&names) {
        layerwise.advance(position)?;
        let (name, change) = &asked[i];
        let mut tally = T::default();
        with_change(&layerwise, name, change, limits, &mut |truth, outputs| {
            push(&mut tally, truth, outputs)
        })?;
        found.push((name.clone(), tally));
        progress.advance(1);
    }
    progress.finish();
    Ok(found)
}

/// Hands the outputs of every batch with one change to `push`.
fn with_change(
    layerwise: &LayerwiseRun<Truth>,
    name: &str,
    change: &Change,
    limits: &WeightLimits,
    push: &mut dyn FnMut(&Truth, &[Tensor]) -> Result<()>,
) -> Result<()> {
    let (weight, bias) = match change {
        Change::Weight { integers, bias } => {
            let vector = |(name, values): &(String, Vec<f32>)| {
                Ok::<_, Error>((name.clone(), Tensor::new(vec![values.len()], values.clone())?))
            };
            let weight = rounded_weight(layerwise, name, *integers, None, limits)?;
            (Some(weight), bias.as_ref().map(vector).transpose()?)
        }
        Change::Activation { .. } | Change::DynamicActivation => (None, None),
    };
    let bias = bias.as_ref().map(|(name, values)| (name.as_str(), values));
    let fed: Vec<&str> = std::iter::once(name).chain(bias.map(|(name, _)| name)).collect();
    let rest = layerwise.rest(&fed)?;
    for batch in layerwise.batches() {
        let activation = match *change {
            Change::Weight { .. } => None,
            Change::Activation { scheme, low, high } => {
                rounded_activation(batch, name, scheme, |_| (low, high))?
            }
            Change::DynamicActivation => {
                let (bits, granularity) = (Bits::EIGHT, Granularity::Tensor);
                let scheme = Scheme::Affine { bits, granularity };
                rounded_activation(batch, name, scheme, range_of)?
            }
        };
        let Some(fed) = weight.as_ref().or(activation.as_ref()) else { continue };
        let fed: Vec<Fed> = std::iter::once((name, fed)).chain(bias).collect();
        push(&batch.about, &rest.outputs(batch, &fed)?)?;
    }
    Ok(())
}

/// The range that `DynamicQuantizeLinear` gives to values: it holds zero.
fn range_of(values: &[f32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(low, high), &x| (low.min(x), high.max(x)))
}

/// What the integers of a weight stand for.
pub(super) fn rounded_weight(
    layerwise: &LayerwiseRun<Truth>,
    name: &str,
    integers: WeightScheme,
    inputs: Option<Inputs>,
    limits: &WeightLimits,
) -> Result<Tensor> {
    let model = layerwise.model();
    let weight = model.graph().find_initializer(name).ok_or_else(|| Error::PlanMismatch {
        reason: format!("the model has no weight '{name}'"),
    })?;
    let (shape, values) = (weight.shape()?, model.floats_released(weight)?);
    let rounded = match inputs {
        None => integers.rounded(&values, &shape, limits.of(name)),
        Some(_) => integers
            .quantize(&values, &shape, inputs, limits.of(name))
            .map(|quantized| quantized.dequantize()),
    };
    let rounded = rounded.map_err(|source| Error::Quant { tensor: name.to_string(), source })?;
    Ok(Tensor::new(shape, rounded)?)
}

/// What the integers of an activation stand for; none if it has no floats.
fn rounded_activation(
    batch: &Batch<Truth>,
    name: &str,
    scheme: Scheme,
    range: impl FnOnce(&[f32]) -> (f32, f32),
) -> Result<Option<Tensor>> {
    let Some(tensor) = batch.value(name) else { return Ok(None) };
    let Values::F32(values) = tensor.values() else { return Ok(None) };
    let quantized = quantize_within(values, tensor.shape(), scheme, range(values))
        .map_err(|source| Error::Quant { tensor: name.to_string(), source })?;
    Ok(Some(Tensor::new(tensor.shape().to_vec(), quantized.dequantize())?))
}
