//! Rounding weights by what they are multiplied by, layer by layer.
//!
//! The model is walked through once. Every weight becomes integers where it is first read, and what
//! follows is computed with what these stand for: each layer makes up for what those before it lost
//! (Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers", section 4, whose blocks read what the quantized ones before them give). At any time
//! there are the values that the rest of the model needs of the rows, and the Hessian of one input.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_quant::QTensor;

use super::checkpoint::{Checkpoint, PlanCheckpoint};
use super::quantize_one;
use crate::Result;
use crate::inputs::{InputStatistics, Learning};
use crate::layerwise::{LayerwiseRun, calls};
use crate::limits::WeightLimits;
use crate::padding::Tokens;
use crate::plan::{PlannedTensor, WeightScheme};
use crate::progress::Progress;

/// Rows of data that are looked at, evenly spread: more tell little that is new.
const ROWS: usize = 1024;

/// What weights are rounded by, layer by layer.
#[derive(Clone, Copy)]
pub struct LayerRounding<'a> {
    /// What they are multiplied by.
    pub learning: Learning<'a>,
    /// What was rounded before of the same model on the same data.
    pub checkpoint: &'a Checkpoint,
}

/// The integers of every planned weight of an adjusted model.
pub(super) fn layer_by_layer(
    model: &Model,
    planned: &[(&PlannedTensor, WeightScheme)],
    limits: &WeightLimits,
    learning: Learning,
    checkpoint: &PlanCheckpoint,
    progress: &dyn Progress,
) -> Result<HashMap<String, QTensor>> {
    let sample = learning.data.sample(ROWS);
    let calls = calls(model, &sample)?.into_iter().map(|call| {
        let tokens = Tokens::of(&call.inputs);
        (call, tokens)
    });
    let mut layerwise = LayerwiseRun::new(model, calls.collect(), learning.run);
    let names: Vec<&str> = planned.iter().map(|(planned, _)| planned.tensor.as_str()).collect();
    let places = layerwise.first_readers(&names);
    let mut done = HashMap::new();
    let mut last: Option<InputStatistics> = None;
    for &(position, i) in &places {
        let (planned, integers) = planned[i];
        let product = layerwise.product_at(position, &planned.tensor);
        let weight = match product.filter(|_| integers.rounding.needs_inputs()) {
            None => quantize_one(layerwise.model(), planned, integers, None, limits)?,
            Some(product) => {
                // Also behind a layer that is finished: the steps in which values are computed may
                // change their last bits.
                layerwise.advance(position)?;
                match checkpoint.get(&planned.tensor) {
                    Some(weight) => weight,
                    None => {
                        let seen = match last.take().filter(|seen| seen.serves(&product)) {
                            Some(seen) => seen,
                            None => InputStatistics::of(&layerwise, &product, learning.data)?,
                        };
                        let inputs = last.insert(seen).inputs(&product)?;
                        let weight = quantize_one(
                            layerwise.model(),
                            planned,
                            integers,
                            Some(inputs),
                            limits,
                        )?;
                        checkpoint.keep(&planned.tensor, &weight)?;
                        weight
                    }
                }
            }
        };
        layerwise.set_weight(&planned.tensor, &planned.shape, &weight.dequantize());
        done.insert(planned.tensor.clone(), weight);
        progress.advance(1);
    }
    // What no node reads.
    for (planned, integers) in planned {
        if !done.contains_key(planned.tensor.as_str()) {
            let weight = quantize_one(model, planned, *integers, None, limits)?;
            done.insert(planned.tensor.clone(), weight);
        }
    }
    Ok(done)
}
