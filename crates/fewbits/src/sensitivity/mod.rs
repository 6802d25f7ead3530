//! What every weight costs alone: how far the outputs move if it, and nothing else, has fewer bits.
//!
//! The model is gone through once, node by node ([`crate::layerwise`]); at the first node that reads a weight
//! only what follows is computed, once for each thing that the weight may become.

mod change;
mod divergence;
mod truth;

use std::ops::ControlFlow;

use fewbits_engine::{RunOptions, Tensor};
use fewbits_onnx::Model;
use fewbits_quant::Inputs;
use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::inputs::InputStatistics;
use crate::layerwise::{LayerwiseRun, Rest};
use crate::metric::{Accumulator, Metric};
use crate::plan::WeightScheme;
use crate::progress::Progress;
use crate::{Error, Result, WeightLimits};

use change::rounded_weight;
pub use change::{Change, changes, output_noise};
use divergence::Divergence;
use truth::{Truth, start_layerwise};

/// What a weight costs alone, for each thing that it may become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The weight.
    pub tensor: String,
    /// One entry for each thing that it may become, in the order asked for.
    pub costs: Vec<Cost>,
}

/// Something that a weight may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// What it becomes.
    #[serde(flatten)]
    pub becomes: WeightScheme,
    /// Bytes that this takes off the file.
    pub file_bytes_saved: u64,
}

/// What one thing that a weight may become costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// What it becomes.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// How far the outputs move: for class scores the relative entropy in nats a row, otherwise the
    /// power of the difference over that of the outputs.
    pub divergence: f64,
    /// The power of the difference of the float outputs over their power.
    pub output_error: Option<f64>,
    /// How much worse the metric is, where the sample has labels for it.
    pub drop: Option<f64>,
}

/// What to measure.
pub struct Request<'a> {
    /// The weights, and what each may become.
    pub candidates: &'a [(String, Vec<Candidate>)],
    /// What their integers keep to.
    pub limits: &'a WeightLimits,
    /// The rows to measure on.
    pub sample: &'a Dataset,
    /// The metric of which the drop is told; none where the rows have no labels for it.
    pub metric: Option<Metric>,
}

/// Measures what weights of a prepared model cost alone, and gives `found` each as soon as it is
/// known, in the order in which the model reads them, until that says to stop.
///
/// # Errors
/// If the model cannot be run on the sample, or a weight cannot be quantized so; those of `found`.
pub fn sensitivity(
    model: &Model,
    request: &Request,
    run: &RunOptions,
    progress: &dyn Progress,
    found: &mut dyn FnMut(Sensitivity) -> Result<ControlFlow<()>>,
) -> Result<()> {
    if request.candidates.is_empty() {
        return Ok(());
    }
    let mut layerwise = start_layerwise(model, request.sample, run)?;
    let labelled = layerwise.batches().iter().all(|b| b.about.labels.is_some());
    // Agreement is of two models.
    let metric = request.metric.filter(|&metric| labelled && metric != Metric::Agreement);
    let before = metric.map(|metric| own_metric(&layerwise, metric)).transpose()?;
    let names: Vec<&str> = request.candidates.iter().map(|(name, _)| name.as_str()).collect();
    let places = layerwise.first_readers(&names);
    let unread = (0..names.len()).find(|i| places.iter().all(|(_, read)| read != i));
    if let Some(i) = unread {
        let reason = format!("no node reads the tensor '{}'", names[i]);
        return Err(Error::PlanMismatch { reason });
    }
    progress.start("measuring sensitivity", places.len() as u64);
    for (position, i) in places {
        layerwise.advance(position)?;
        let (tensor, candidates) = &request.candidates[i];
        let learns = candidates.iter().any(|candidate| candidate.becomes.rounding.needs_inputs());
        let product = layerwise.product_at(position, tensor).filter(|_| learns);
        let seen = product
            .as_ref()
            .map(|p| InputStatistics::of(&layerwise, p, request.sample))
            .transpose()?;
        let inputs = product.as_ref().zip(seen.as_ref()).map(|(p, seen)| seen.inputs(p));
        let inputs = inputs.transpose()?;
        let alone = Alone {
            layerwise: &layerwise,
            rest: layerwise.rest(&[tensor.as_str()])?,
            tensor,
            inputs,
            before,
        };
        let costs = alone.costs(candidates, request.limits)?;
        progress.advance(1);
        if found(Sensitivity { tensor: tensor.clone(), costs })?.is_break() {
            break;
        }
    }
    progress.finish();
    Ok(())
}

/// The metric of the model itself.
fn own_metric(layerwise: &LayerwiseRun<Truth>, metric: Metric) -> Result<(Metric, f64)> {
    let mut accumulator = Accumulator::new(metric)?;
    for batch in layerwise.batches() {
        if let Some(labels) = &batch.about.labels {
            accumulator.push(&batch.about.expected, labels)?;
        }
    }
    Ok((metric, accumulator.finish()?))
}

/// One weight at the place where it is first read.
struct Alone<'a> {
    layerwise: &'a LayerwiseRun<Truth>,
    rest: Rest,
    tensor: &'a str,
    /// What it is multiplied by, where candidates ask for it.
    inputs: Option<Inputs<'a>>,
    /// The metric and its value for the model itself.
    before: Option<(Metric, f64)>,
}

impl Alone<'_> {
    fn costs(&self, candidates: &[Candidate], limits: &WeightLimits) -> Result<Vec<Cost>> {
        let cost = |&candidate: &Candidate| {
            let becomes = candidate.becomes;
            let weight = rounded_weight(self.layerwise, self.tensor, becomes, self.inputs, limits)?;
            self.cost(candidate, &weight)
        };
        candidates.iter().map(cost).collect()
    }

    fn cost(&self, candidate: Candidate, weight: &Tensor) -> Result<Cost> {
        let mut divergence = Divergence::default();
        let mut metric = self.before.map(|(metric, _)| Accumulator::new(metric)).transpose()?;
        for batch in self.layerwise.batches() {
            let outputs = self.rest.outputs(batch, &[(self.tensor, weight)])?;
            divergence.push(&batch.about.expected, &outputs, batch.about.tokens.as_ref())?;
            if let (Some(metric), Some(labels)) = (&mut metric, &batch.about.labels) {
                metric.push(&outputs, labels)?;
            }
        }
        let drop = match (self.before, metric) {
            // A model that is ruined may have no metric.
            (Some((metric, before)), Some(after)) => {
                after.finish().ok().map(|after| metric.drop(before, after))
            }
            _ => None,
        };
        Ok(Cost {
            candidate,
            divergence: divergence.finish(),
            output_error: divergence.relative_error(),
            drop,
        })
    }
}
