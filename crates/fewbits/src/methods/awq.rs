//! AWQ: the channels that matter most are rounded most finely.
//!
//! Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration",
//! section 3.2: weights of strong input channels are multiplied by `s` before they are rounded, and what
//! comes before them divides the channel by it. The factors are found by
//! [`fewbits_quant::awq`], one set for all products that read an activation.
//!
//! As in the paper the division costs nothing where the layer before can do it: a layer norm's scale and
//! shift, or the weight and the bias of a product with nothing but a `Relu` or the like between. Elsewhere
//! the products read a `Mul`, where much is gained.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::qdq::{scalable_products, scaled_name};
use fewbits_quant::{Hessian, Matrix, awq};

use super::equalization::pairs;
use super::smoothquant::affine;
use super::{Allowance, Proposal};
use crate::calibrate::Rescaled;
use crate::inputs::{InputStatistics, Learning};
use crate::layers::{ChannelAxis, Product, products};
use crate::layerwise::{LayerwiseRun, calls};
use crate::padding::Tokens;
use crate::plan::{Adjustment, Edit, Method, WeightScheme};
use crate::{Error, Result};

/// Rows of data that are looked at: magnitudes of channels are known from few.
const ROWS: usize = 256;
/// The error of a layer's outputs must fall to this part.
const WORTHWHILE: f64 = 0.95;
/// And to this one to be worth a `Mul`.
const WORTH_A_MUL: f64 = 0.7;

/// What divides the channels.
enum Divisor {
    /// Constants of the layer before, with the axis of its output channels.
    Before(Vec<(String, usize)>),
    /// A `Mul` of its own.
    Mul,
}

/// The edits for the activations whose products gain by it; `integers` says what weights become.
/// Factors for which a `Mul` is needed must be within the `allowance`.
///
/// # Errors
/// If the model cannot be run on the data, or a weight cannot be read.
pub fn scale(
    model: &Model,
    integers: &HashMap<&str, WeightScheme>,
    learning: Learning,
    allowance: &Allowance,
) -> Result<Proposal> {
    let sample = learning.data.sample(ROWS);
    let calls = calls(model, &sample)?.into_iter().map(|call| {
        let tokens = Tokens::of(&call.inputs);
        (call, tokens)
    });
    let mut layerwise = LayerwiseRun::new(model, calls.collect(), learning.run);
    let quantized: HashSet<&str> = integers.keys().copied().collect();
    let (found, divisors) = {
        let graph = layerwise.model().graph();
        let index = Index::new(graph);
        let found = products(graph, &index, &quantized);
        let divisors = divisors(layerwise.model(), &index, &found);
        (found, divisors)
    };
    let mut done: HashSet<&str> = HashSet::new();
    let mut proposal = Proposal::default();
    for first in &found {
        let Some(divisor) = divisors.get(first.value.as_str()) else { continue };
        if !done.insert(&first.value) {
            continue;
        }
        let readers: Vec<&Product> = found.iter().filter(|p| p.value == first.value).collect();
        if matches!(divisor, Divisor::Mul) && !allowance.allows(&readers) {
            continue;
        }
        layerwise.advance(first.node)?;
        let seen = InputStatistics::of(&layerwise, first, learning.data)?;
        let Some(factors) = search(model, &readers, integers, seen.hessians(), divisor)? else {
            continue;
        };
        let edit = |edit: Edit, values: &[f32]| Adjustment {
            method: Method::Awq,
            edit,
            values: values.to_vec(),
        };
        let inverse: Vec<f32> = factors.iter().map(|s| 1.0 / s).collect();
        let mut now = first.value.clone();
        match divisor {
            Divisor::Before(constants) => {
                proposal.edits.extend(constants.iter().map(|(tensor, axis)| {
                    edit(Edit::Multiply { tensor: tensor.clone(), axis: *axis }, &inverse)
                }));
            }
            Divisor::Mul => {
                now = scaled_name(model.graph(), &first.value);
                let value = first.value.clone();
                proposal.edits.push(edit(Edit::MultiplyForProducts { value }, &inverse));
            }
        }
        for product in readers {
            if let Some((axis, factors)) = product.along_inputs(&factors) {
                let tensor = product.weight.clone();
                proposal.edits.push(edit(Edit::Multiply { tensor, axis }, &factors));
            }
        }
        let value = first.value.clone();
        proposal.rescaled.push(Rescaled { value, now, by: inverse, between: Vec::new() });
    }
    Ok(proposal)
}

/// What can divide the activations that `found` read, by their names.
fn divisors(model: &Model, index: &Index, found: &[Product]) -> HashMap<String, Divisor> {
    let graph = model.graph();
    let mut divisors = HashMap::new();
    for pair in pairs(graph, index, found) {
        let convolution = |&p: &usize| found[p].channel_axis() == ChannelAxis::Second;
        // Convolutions may see one activation through different windows.
        let alike = pair.readers.len() == 1 || !pair.readers.iter().any(convolution);
        // A bound does not move with the channels.
        if alike && pair.ceiling.is_none() {
            divisors.insert(pair.value, Divisor::Before(pair.first));
        }
    }
    for product in found {
        let value = product.value.as_str();
        let readers: Vec<&Product> = found.iter().filter(|p| p.value == value).collect();
        let alike = readers.iter().all(|p| p.inputs() == product.inputs());
        let last_axis = readers.iter().all(|p| p.channel_axis() == ChannelAxis::Last);
        // Every product that reads a `Mul` is scaled, so all must be among those found.
        let others = scalable_products(graph, value).len() != readers.len();
        if divisors.contains_key(value) || !alike || !last_axis || others {
            continue;
        }
        let only_products =
            index.consumers(value).len() == readers.len() && !index.is_output(value);
        let norm = affine(graph, index, value, product.inputs()).filter(|_| only_products);
        let divisor = match norm {
            Some(norm) => {
                let constants = std::iter::once(norm.scale).chain(norm.shift);
                Divisor::Before(constants.map(|name| (name, 0)).collect())
            }
            None => Divisor::Mul,
        };
        divisors.insert(value.to_string(), divisor);
    }
    divisors
}

/// A factor for each input channel of products that read one activation, if they gain enough by it.
fn search(
    model: &Model,
    readers: &[&Product],
    integers: &HashMap<&str, WeightScheme>,
    hessians: &[Hessian],
    divisor: &Divisor,
) -> Result<Option<Vec<f32>>> {
    let mut weights = Vec::new();
    for product in readers {
        let refused = |source| Error::Quant { tensor: product.weight.clone(), source };
        let Some(tensor) = model.graph().find_initializer(&product.weight) else { return Ok(None) };
        let matrix = Matrix::new(&product.shape, product.output_axis()).map_err(refused)?;
        weights.push((*product, model.floats_released(tensor)?, matrix));
    }
    let readers: Vec<awq::Reader> = weights
        .iter()
        .map(|(product, values, matrix)| {
            let WeightScheme { scheme, range_method: range, .. } =
                integers[product.weight.as_str()];
            awq::Reader { values, shape: &product.shape, scheme, range, matrix: *matrix }
        })
        .collect();
    let first = weights[0].0;
    let found = awq::search(&readers, first.taps(), hessians)
        .map_err(|source| Error::Quant { tensor: first.weight.clone(), source })?;
    let enough = match divisor {
        Divisor::Before(_) => WORTHWHILE,
        Divisor::Mul => WORTH_A_MUL,
    };
    // All taps of a channel have the same.
    let factors: Vec<f32> = found.factors.into_iter().step_by(first.taps().max(1)).collect();
    let spelled = weights.iter().all(|(product, ..)| product.along_inputs(&factors).is_some());
    Ok((spelled && found.error_after < enough * found.error_before).then_some(factors))
}
