//! SmoothQuant.
//!
//! Xiao et al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
//! Language Models": a few channels of what the products of a transformer read are far wider than
//! the others. `Y = (X diag(s)^-1) (diag(s) W)` (eq. 3) moves their width into the weights, each
//! output channel of which has a scale of its own. The factors are those of eq. 4; its share
//! `alpha` is chosen for each activation by the expected error (`methods/noise.rs`).
//!
//! Where only products read the output of a layer norm, its own scale and shift take `diag(s)^-1`,
//! as in the paper. Elsewhere (a residual addition reads it too, or the activation comes from
//! something else) the products read a `Mul`.
//!
//! Without data the ranges behind a layer norm are guessed as Nagel et al. 2019 do behind a batch
//! norm (section 4.2.1): a channel has mean `beta` and deviation `gamma`. Channels whose normalized
//! values are wide, too, are not seen so; only a large expected gain is believed.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::facts::{ReadAs, layer_norm};
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::qdq::{scalable_products, scaled_name};
use fewbits_onnx::proto::GraphProto;
use fewbits_quant::{ChannelSeen, Levels};
use rayon::prelude::*;

use super::noise::{Outputs, Reader, WeightSteps, rescale};
use super::{Allowance, Proposal};
use crate::Result;
use crate::calibrate::{Channels, Rescaled};
use crate::layers::{ChannelAxis, Product, own_vector};
use crate::plan::{Adjustment, Edit, Method};

/// An expected gain below this is not worth a `Mul`.
const LEAST_GAIN: f64 = 1.5;
/// Nor is this one when ranges are guessed.
const LEAST_GUESSED_GAIN: f64 = 2.0;
/// Deviations that a guessed range reaches on either side of the mean.
const GUESSED_DEVIATIONS: f32 = 3.0;

/// The scale and the shift of a layer norm, which nothing else reads.
pub(super) struct Affine {
    pub scale: String,
    pub shift: Option<String>,
}

/// The edits for the activations that gain by it, `but` those that another method has changed.
///
/// `channels` holds what was seen of activations; where nothing was, ranges are guessed. Factors for
/// which a `Mul` is needed must be within the `allowance`.
///
/// # Errors
/// If a weight cannot be read.
pub fn smooth(
    model: &Model,
    products: &[Product],
    channels: &Channels,
    but: &HashSet<&str>,
    levels: Levels,
    steps: WeightSteps,
    allowance: &Allowance,
) -> Result<Proposal> {
    let graph = model.graph();
    let index = Index::new(graph);
    let mut order: Vec<&str> = Vec::new();
    let mut readers: HashMap<&str, Vec<&Product>> = HashMap::new();
    for product in products.iter().filter(|p| !but.contains(p.value.as_str())) {
        let of_value = readers.entry(&product.value).or_default();
        if of_value.is_empty() {
            order.push(&product.value);
        }
        of_value.push(product);
    }
    let proposals = order
        .par_iter()
        .map(|&value| {
            let readers = &readers[value];
            // Every product that reads the value is scaled, so all must be of the kind.
            let all = |p: &&Product| {
                p.channel_axis() == ChannelAxis::Last && p.inputs() == readers[0].inputs()
            };
            if !readers.iter().all(all) || scalable_products(graph, value).len() != readers.len() {
                return Ok(Proposal::default());
            }
            let affine = affine(graph, &index, value, readers[0].inputs());
            let only_products =
                index.consumers(value).len() == readers.len() && !index.is_output(value);
            let needs_mul = affine.is_none() || !only_products;
            if needs_mul && !allowance.allows(readers) {
                return Ok(Proposal::default());
            }
            let (seen, least_gain) = match channels.get(value) {
                Some(seen) if seen.len() == readers[0].inputs() => (seen.clone(), LEAST_GAIN),
                Some(_) => return Ok(Proposal::default()),
                None => match affine.as_ref().and_then(|a| guess(&index, a)) {
                    Some(seen) => (seen, LEAST_GUESSED_GAIN),
                    None => return Ok(Proposal::default()),
                },
            };
            let weights = Reader::all(model, &index, readers)?;
            let found = rescale(&seen, &weights, levels, steps, Outputs::Together, None);
            let Some(found) = found.filter(|f| f.gain >= least_gain) else {
                return Ok(Proposal::default());
            };
            let inverse: Vec<f32> = found.factors.iter().map(|s| 1.0 / s).collect();
            let adjustment = |edit: Edit, values: &[f32]| Adjustment {
                method: Method::SmoothQuant,
                edit,
                values: values.to_vec(),
            };
            let mut now = value.to_string();
            let mut edits = match affine.filter(|_| only_products) {
                Some(affine) => std::iter::once(affine.scale)
                    .chain(affine.shift)
                    .map(|tensor| adjustment(Edit::Multiply { tensor, axis: 0 }, &inverse))
                    .collect(),
                None => {
                    now = scaled_name(graph, value);
                    let value = value.to_string();
                    vec![adjustment(Edit::MultiplyForProducts { value }, &inverse)]
                }
            };
            for product in readers {
                let Some((axis, factors)) = product.along_inputs(&found.factors) else {
                    return Ok(Proposal::default());
                };
                let tensor = product.weight.clone();
                edits.push(adjustment(Edit::Multiply { tensor, axis }, &factors));
            }
            let value = value.to_string();
            let rescaled = vec![Rescaled { value, now, by: inverse, between: Vec::new() }];
            Ok(Proposal { edits, rescaled })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(proposals.into_iter().fold(Proposal::default(), |mut all, proposal| {
        all.edits.extend(proposal.edits);
        all.rescaled.extend(proposal.rescaled);
        all
    }))
}

/// The scale and shift of the layer norm that makes `value`: inputs of the operator, or of the
/// `Mul` and `Add` at its end where it is spelled out.
pub(super) fn affine(
    graph: &GraphProto,
    index: &Index,
    value: &str,
    channels: usize,
) -> Option<Affine> {
    let vector = |name: &String| own_vector(graph, index, name, channels);
    let node = &graph.node[index.producer(value)?];
    if let Some(norm) = layer_norm(node) {
        let shift = match node.input.get(norm.shift).filter(|n| !n.is_empty()) {
            Some(name) => Some(vector(name)?),
            None => None,
        };
        let first = node.output[0] == value;
        return first.then_some(Affine { scale: vector(node.input.get(norm.scale)?)?, shift });
    }
    let add = Some(node).filter(|node| ReadAs::of(node, 0) == ReadAs::Summand)?;
    let shift = add.input.iter().find_map(vector)?;
    let scaled = add.input.iter().find(|i| **i != shift)?;
    let multiply = &graph.node[index.producer(scaled)?];
    let sole = index.consumers(scaled).len() == 1 && !index.is_output(scaled);
    let multiplies = ReadAs::of(multiply, 0) == ReadAs::Factor;
    let scale = (sole && multiplies).then(|| multiply.input.iter().find_map(vector))??;
    Some(Affine { scale, shift: Some(shift) })
}

/// What the channels behind a layer norm are expected to hold.
fn guess(index: &Index, affine: &Affine) -> Option<Vec<ChannelSeen>> {
    let floats = |name: &str| index.initializer(name)?.floats().ok();
    let scale = floats(&affine.scale)?;
    let shift = match &affine.shift {
        Some(name) => floats(name)?,
        None => vec![0.0; scale.len()],
    };
    let channel = |(&gamma, &beta): (&f32, &f32)| ChannelSeen {
        low: beta - GUESSED_DEVIATIONS * gamma.abs(),
        high: beta + GUESSED_DEVIATIONS * gamma.abs(),
        mean: f64::from(beta),
        mean_square: f64::from(beta) * f64::from(beta) + f64::from(gamma) * f64::from(gamma),
    };
    Some(scale.iter().zip(&shift).map(channel).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::products;
    use crate::methods::PerOutput;
    use fewbits_onnx::proto::{NodeProto, TensorProto, ValueInfoProto};

    /// A layer norm with one wide channel, a product, and perhaps a residual addition.
    fn model(residual: bool) -> Model {
        let weight: Vec<f32> = (0..16).map(|i| ((i * 7 % 13) as f32 - 6.0) / 10.0).collect();
        let mut nodes = vec![
            NodeProto::new("LayerNormalization", &["x", "gamma", "beta"], &["n"]),
            NodeProto::new("MatMul", &["n", "w"], &["y"]),
        ];
        if residual {
            nodes.push(NodeProto::new("Add", &["n", "y"], &["z"]));
        }
        let output = if residual { "z" } else { "y" };
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(4)])],
            output: vec![ValueInfoProto::tensor(output, 1, &[None, Some(4)])],
            initializer: vec![
                TensorProto::from_f32("gamma", &[4], &[1.0, 40.0, 1.0, 0.8]),
                TensorProto::from_f32("beta", &[4], &[0.0, 1.0, 0.5, 0.0]),
                TensorProto::from_f32("w", &[4, 4], &weight),
            ],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn edits(model: &Model, channels: &Channels) -> Vec<Edit> {
        let graph = model.graph();
        let found = products(graph, &Index::new(graph), &HashSet::from(["w"]));
        let steps = WeightSteps { steps: 127.0, per_output: PerOutput::Own };
        smooth(
            model,
            &found,
            channels,
            &HashSet::new(),
            Levels::Affine(255),
            steps,
            &Allowance::Any,
        )
        .unwrap()
        .edits
        .into_iter()
        .map(|a| a.edit)
        .collect()
    }

    fn multiply(tensor: &str) -> Edit {
        Edit::Multiply { tensor: tensor.into(), axis: 0 }
    }

    #[test]
    fn a_layer_norm_takes_the_factors_if_only_products_read_it() {
        let expected = [multiply("gamma"), multiply("beta"), multiply("w")];
        assert_eq!(edits(&model(false), &Channels::new()), expected);
        let scaled = Edit::MultiplyForProducts { value: "n".into() };
        assert_eq!(edits(&model(true), &Channels::new()), [scaled, multiply("w")]);
    }

    #[test]
    fn what_was_seen_counts_more_than_what_is_guessed() {
        let even = ChannelSeen { low: -1.0, high: 1.0, mean: 0.0, mean_square: 0.1 };
        let seen = HashMap::from([("n".to_string(), vec![even; 4])]);
        assert_eq!(edits(&model(false), &seen), []);
    }
}
