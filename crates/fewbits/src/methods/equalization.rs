//! Cross-layer equalization.
//!
//! Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
//! section 4.1: a function `f` with `f(s x) = s f(x)` for positive `s` (eq. 4) lies between many
//! layers, so that the output channels of the first may be divided by `s` and the input channels
//! of the next multiplied by it (eq. 5 to 7) without a change of the network. There `s` evens out
//! the ranges of the two weights, each of which has one scale. With a scale for every output
//! channel the first weight does not mind `s`; what minds it is the activation between them, whose
//! range takes the first weight's place here (`methods/noise.rs`).
//!
//! A `Clip` from 0 to a bound is not such a function. It is left in place, and no channel is
//! raised past the bound: values that were never seen are then cut off earlier, as the ranges of
//! quantized activations cut them off anyway.

use fewbits_onnx::Model;
use fewbits_onnx::facts::Scaling;
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{GraphProto, NodeProto};
use fewbits_quant::Levels;

use super::Proposal;
use super::noise::{Outputs, Reader, WeightSteps, rescale};
use crate::Result;
use crate::calibrate::{Channels, Rescaled};
use crate::layers::{ChannelAxis, Product, own_vector};
use crate::plan::{Adjustment, Edit, Method};

/// An expected gain below this is not worth an edit.
const LEAST_GAIN: f64 = 1.2;

/// A layer, what follows it, and the layers after that.
pub struct Pair {
    /// Constants of the first layer with the axis of its output channels.
    pub first: Vec<(String, usize)>,
    /// The activation between.
    pub value: String,
    /// Those from the first layer's output to it.
    between: Vec<String>,
    /// The products that read it, and nothing else does; positions among the products searched.
    pub readers: Vec<usize>,
    /// A `Clip` before it.
    pub ceiling: Option<Ceiling>,
}

/// What a `Clip` from 0 to a bound gives.
#[derive(Debug, PartialEq)]
pub struct Ceiling {
    /// The `Clip`'s output. What is read may be a mean of it, which hides how near to the bound a
    /// channel comes.
    pub value: String,
    /// The axis of its channels.
    pub axis: ChannelAxis,
    /// The bound.
    bound: f32,
}

/// Finds the pairs of a graph.
pub fn pairs(graph: &GraphProto, index: &Index, products: &[Product]) -> Vec<Pair> {
    (0..graph.node.len())
        .filter_map(|node| Product::of(graph, index, node))
        .filter_map(|first| pair(graph, index, products, &first))
        .collect()
}

fn pair(graph: &GraphProto, index: &Index, products: &[Product], first: &Product) -> Option<Pair> {
    let mut constants = vec![(first.weight.clone(), first.output_axis())];
    let node = &graph.node[first.node];
    if let Some(bias) = node.input.get(2).filter(|b| !b.is_empty()) {
        constants.push((own_vector(graph, index, bias, first.outputs())?, 0));
    }
    let mut value = &node.output[0];
    let (mut ceiling, mut pooled, mut between) = (None, false, Vec::new());
    loop {
        if index.is_output(value) {
            return None;
        }
        let consumers = index.consumers(value);
        let readers: Vec<usize> = (0..products.len())
            .filter(|&p| products[p].value == *value && consumers.contains(&products[p].node))
            .collect();
        if !readers.is_empty() {
            let fits = readers.len() == consumers.len()
                && readers.iter().all(|&p| {
                    let product = &products[p];
                    // What was pooled to one element a channel may have lost its other axes.
                    product.inputs() == first.outputs()
                        && (pooled || product.channel_axis() == first.channel_axis())
                });
            let value = value.clone();
            return fits.then_some(Pair { first: constants, value, between, readers, ceiling });
        }
        let [next] = consumers else { return None };
        let node = &graph.node[*next];
        let image = first.channel_axis() == ChannelAxis::Second;
        match Scaling::of(node)? {
            _ if node.output.len() != 1 => return None,
            Scaling::Elements => {}
            Scaling::Windows if image => {}
            Scaling::WholeChannels if image => pooled = true,
            Scaling::NamedAxes if image && is_global(node, index, first.shape.len()) => {
                pooled = true;
            }
            Scaling::Reshapes if pooled => {}
            Scaling::WithinBounds if ceiling.is_none() => {
                let (value, axis) = (node.output[0].clone(), first.channel_axis());
                ceiling = Some(Ceiling { value, axis, bound: bound(node, index)? });
            }
            Scaling::Sum if !image && !pooled => {
                let other = node.input.iter().find(|i| *i != value)?;
                constants.push((own_vector(graph, index, other, first.outputs())?, 0));
            }
            _ => return None,
        }
        between.push(std::mem::replace(&mut value, &node.output[0]).clone());
    }
}

/// Whether a reduction leaves one element a channel of an image of `rank` axes.
fn is_global(node: &NodeProto, index: &Index, rank: usize) -> bool {
    let axes = match node.input.get(1).filter(|axes| !axes.is_empty()) {
        Some(axes) => index.initializer(axes).and_then(|t| t.ints().ok()).unwrap_or_default(),
        None => node.ints("axes").to_vec(),
    };
    let rank = rank as i64;
    let mut axes: Vec<i64> = axes.iter().map(|&a| if a < 0 { a + rank } else { a }).collect();
    axes.sort_unstable();
    axes == (2..rank).collect::<Vec<i64>>()
}

/// The upper bound of a `Clip` whose lower bound is 0.
fn bound(clip: &NodeProto, index: &Index) -> Option<f32> {
    let input = |i: usize| -> Option<f32> {
        index.initializer(clip.input.get(i)?)?.floats().ok()?.first().copied()
    };
    (input(1)? == 0.0).then_some(input(2)?).filter(|&high| high > 0.0 && high.is_finite())
}

/// The edits for those pairs that gain by it.
///
/// `channels` holds what was seen of the pairs' values.
///
/// # Errors
/// If a weight cannot be read.
pub fn equalize(
    model: &Model,
    products: &[Product],
    channels: &Channels,
    levels: Levels,
    steps: WeightSteps,
) -> Result<Proposal> {
    let graph = model.graph();
    let index = Index::new(graph);
    let mut proposal = Proposal::default();
    for pair in pairs(graph, &index, products) {
        let seen = channels.get(&pair.value);
        let inputs = products[pair.readers[0]].inputs();
        let Some(seen) = seen.filter(|s| s.len() == inputs) else { continue };
        let readers: Vec<&Product> = pair.readers.iter().map(|&p| &products[p]).collect();
        let least: Option<Vec<f32>> = match &pair.ceiling {
            Some(ceiling) => {
                let clipped = channels.get(&ceiling.value).filter(|s| s.len() == inputs);
                let Some(clipped) = clipped else { continue };
                Some(clipped.iter().map(|c| c.abs_max() / ceiling.bound).collect())
            }
            None => None,
        };
        let weights = Reader::all(model, &index, &readers)?;
        let found = rescale(seen, &weights, levels, steps, Outputs::Apart, least.as_deref());
        let Some(found) = found else { continue };
        let next: Option<Vec<_>> = readers.iter().map(|p| p.along_inputs(&found.factors)).collect();
        let (Some(next), true) = (next, found.gain >= LEAST_GAIN) else { continue };
        let multiply = |tensor: &str, axis: usize, values: Vec<f32>| Adjustment {
            method: Method::Equalization,
            edit: Edit::Multiply { tensor: tensor.to_string(), axis },
            values,
        };
        let inverse: Vec<f32> = found.factors.iter().map(|s| 1.0 / s).collect();
        let first = pair.first.iter().map(|(name, axis)| multiply(name, *axis, inverse.clone()));
        proposal.edits.extend(first);
        for (product, (axis, values)) in readers.iter().zip(next) {
            proposal.edits.push(multiply(&product.weight, axis, values));
        }
        let (now, between) = (pair.value.clone(), pair.between);
        proposal.rescaled.push(Rescaled { value: pair.value, now, by: inverse, between });
    }
    Ok(proposal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::products;
    use fewbits_onnx::proto::{AttributeProto, TensorProto, ValueInfoProto};
    use fewbits_quant::ChannelSeen;
    use std::collections::HashSet;

    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        let tensor = |name: &str, shape: &[usize]| {
            TensorProto::from_f32(name, shape, &vec![1.0; shape.iter().product()])
        };
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None])],
            initializer: vec![
                tensor("w1", &[4, 2, 3, 3]),
                tensor("b1", &[4]),
                tensor("w2", &[4, 1, 3, 3]),
                tensor("w3", &[5, 4]),
                TensorProto::from_f32("zero", &[], &[0.0]),
                TensorProto::from_f32("six", &[], &[6.0]),
            ],
            ..GraphProto::default()
        }
    }

    /// The value, the constants before it, and the output and the bound of a `Clip`.
    type Found = (String, usize, Option<(String, f32)>);

    fn found(graph: &GraphProto) -> Vec<Found> {
        let index = Index::new(graph);
        let quantized = HashSet::from(["w1", "w2", "w3"]);
        let products = products(graph, &index, &quantized);
        pairs(graph, &index, &products)
            .into_iter()
            .map(|p| (p.value, p.first.len(), p.ceiling.map(|c| (c.value, c.bound))))
            .collect()
    }

    fn pair(value: &str, constants: usize, clip: Option<&str>) -> Found {
        (value.to_string(), constants, clip.map(|value| (value.to_string(), 6.0)))
    }

    fn depthwise(input: &str, output: &str) -> NodeProto {
        NodeProto::new("Conv", &[input, "w2"], &[output]).with(AttributeProto::of_int("group", 4))
    }

    fn last(input: &str) -> NodeProto {
        NodeProto::new("Gemm", &[input, "w3"], &["y"]).with(AttributeProto::of_int("transB", 1))
    }

    #[test]
    fn pairs_reach_through_what_keeps_channels_apart() {
        let net = graph(vec![
            NodeProto::new("Conv", &["x", "w1", "b1"], &["a"]),
            NodeProto::new("Clip", &["a", "zero", "six"], &["b"]),
            depthwise("b", "c"),
            NodeProto::new("Relu", &["c"], &["d"]),
            NodeProto::new("GlobalAveragePool", &["d"], &["e"]),
            NodeProto::new("Flatten", &["e"], &["f"]),
            last("f"),
        ]);
        assert_eq!(found(&net), [pair("b", 2, Some("b")), pair("f", 1, None)]);
        let mean = |axes: &[i64]| {
            graph(vec![
                NodeProto::new("Conv", &["x", "w1", "b1"], &["a"]),
                NodeProto::new("ReduceMean", &["a"], &["b"])
                    .with(AttributeProto::of_ints("axes", axes)),
                last("b"),
            ])
        };
        assert_eq!(found(&mean(&[-1, 2])), [pair("b", 2, None)]);
        assert_eq!(found(&mean(&[1, 2])), []);
    }

    #[test]
    fn a_mean_of_what_is_clipped_counts_by_the_clip() {
        let (value, seen) = ("e".to_string(), |high: f32| ChannelSeen {
            high,
            mean: f64::from(high) / 10.0,
            mean_square: f64::from(high * high) / 90.0,
            ..ChannelSeen::default()
        });
        let net = graph(vec![
            NodeProto::new("Conv", &["x", "w1", "b1"], &["a"]),
            NodeProto::new("Clip", &["a", "zero", "six"], &["b"]),
            NodeProto::new("GlobalAveragePool", &["b"], &["d"]),
            NodeProto::new("Flatten", &["d"], &["e"]),
            last("e"),
        ]);
        assert_eq!(found(&net), [pair("e", 2, Some("b"))]);
        let model = Model::from_graph(net, 17);
        let graph = model.graph();
        let products = products(graph, &Index::new(graph), &HashSet::from(["w1", "w3"]));
        let steps = WeightSteps { steps: 127.0, per_output: super::super::PerOutput::Own };
        let means = [0.3, 0.03, 0.003, 0.3].map(seen).to_vec();
        let mut channels = Channels::from([(value, means)]);
        let of = |channels: &Channels| {
            equalize(&model, &products, channels, Levels::Affine(255), steps).unwrap().edits
        };
        // Without the clipped values it is not known how far a channel can be raised.
        assert_eq!(of(&channels), []);
        channels.insert("b".to_string(), [6.0, 3.0, 0.06, 6.0].map(seen).to_vec());
        let raised = &of(&channels)[0].values;
        let most = [1.0, 2.0, 100.0, 1.0];
        assert!(raised.iter().zip(most).all(|(&r, most)| (1.0..=most * 1.001).contains(&r)));
        assert!(raised[1] > 1.5 && raised[2] > 10.0, "{raised:?}");
    }

    #[test]
    fn a_value_that_others_read_stays() {
        let residual = graph(vec![
            NodeProto::new("Conv", &["x", "w1", "b1"], &["a"]),
            depthwise("a", "b"),
            NodeProto::new("Add", &["a", "b"], &["y"]),
        ]);
        assert_eq!(found(&residual), []);
        let flattened = graph(vec![
            NodeProto::new("Conv", &["x", "w1", "b1"], &["a"]),
            NodeProto::new("Flatten", &["a"], &["b"]),
            last("b"),
        ]);
        assert_eq!(found(&flattened), []);
        let curved = graph(vec![
            NodeProto::new("Conv", &["x", "w1", "b1"], &["a"]),
            NodeProto::new("Sigmoid", &["a"], &["b"]),
            depthwise("b", "y"),
        ]);
        assert_eq!(found(&curved), []);
    }
}
