//! Bias correction.
//!
//! Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
//! section 4.2: rounding a weight shifts the mean of the output, `E[y~] = E[y] + (W~ - W) E[x]`
//! (eq. 14 and 15), since what a layer reads has a mean, above all behind a ReLU. The shift is known
//! beforehand, so the bias takes it back. Here `E[x]` comes from calibration data. A padded border
//! is taken to hold the mean too.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_onnx::facts;
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::GraphProto;
use fewbits_quant::{ChannelSeen, Rounding};
use rayon::prelude::*;

use crate::calibrate::Channels;
use crate::layers::{Product, own_vector};
use crate::limits::WeightLimits;
use crate::plan::{Adjustment, Edit, Method, Plan, WeightScheme};
use crate::{Error, Result};

/// The plan of an adjusted model with corrections of biases for its weights as they are rounded now: what
/// they keep to depends on which activations become integers.
///
/// # Errors
/// If a weight cannot be read or quantized.
pub fn corrected(adjusted: &Model, mut plan: Plan, channels: &Channels) -> Result<Plan> {
    plan.adjustments = others(&plan.adjustments);
    let products = plan.products(adjusted);
    let integers = plan.tensors.iter();
    let integers = integers.filter_map(|t| Some((t.tensor.as_str(), t.integers()?)));
    let limits = WeightLimits::new(adjusted, &plan)?;
    let rounded = Rounded { integers: &integers.collect(), limits: &limits };
    let edits = correct(adjusted, &products, channels, &rounded)?;
    plan.adjustments.extend(edits);
    Ok(plan)
}

/// What is known of how weights are rounded: to nearest, whatever else is asked for.
struct Rounded<'a> {
    /// What each becomes.
    pub integers: &'a HashMap<&'a str, WeightScheme>,
    /// What its integers keep to.
    pub limits: &'a WeightLimits,
}

/// The edits of biases for weights that are `rounded`.
///
/// # Errors
/// If a weight cannot be read or quantized.
fn correct(
    model: &Model,
    products: &[Product],
    channels: &Channels,
    rounded: &Rounded,
) -> Result<Vec<Adjustment>> {
    let graph = model.graph();
    let index = Index::new(graph);
    let corrected = products
        .par_iter()
        .map(|product| {
            let seen = channels.get(&product.value).filter(|s| s.len() == product.inputs());
            let integers = rounded.integers.get(product.weight.as_str());
            let (Some(seen), Some(integers), Some(bias)) =
                (seen, integers, bias(graph, &index, product))
            else {
                return Ok(None);
            };
            let tensor = index.initializer(&product.weight);
            let tensor = tensor.expect("the weight of a product is a constant");
            let weight = model.floats_released(tensor)?;
            let integers = WeightScheme { rounding: Rounding::Nearest, ..*integers };
            let rounded = integers
                .rounded(&weight, &product.shape, rounded.limits.of(&product.weight))
                .map_err(|source| Error::Quant { tensor: product.weight.clone(), source })?;
            Ok(Some(Adjustment {
                method: Method::BiasCorrection,
                edit: Edit::Add { tensor: bias, axis: 0 },
                values: shift(product, &weight, &rounded, seen),
            }))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(corrected.into_iter().flatten().collect())
}

/// Drops the corrections of biases that make up for the rounding of `weight`, which stays float.
pub fn take_back(adjustments: &mut Vec<Adjustment>, model: &Model, weight: &str) {
    if adjustments.iter().all(|a| a.method != Method::BiasCorrection) {
        return;
    }
    let bias = bias_of(model, weight);
    adjustments.retain(|adjustment| match &adjustment.edit {
        Edit::Add { tensor, .. } if adjustment.method == Method::BiasCorrection => {
            bias.as_ref() != Some(tensor)
        }
        _ => true,
    });
}

/// The adjustments that are no corrections of biases.
pub fn others(adjustments: &[Adjustment]) -> Vec<Adjustment> {
    let others = adjustments.iter().filter(|a| a.method != Method::BiasCorrection);
    others.cloned().collect()
}

/// The bias that a correction for the rounding of `weight` is added to.
pub fn bias_of(model: &Model, weight: &str) -> Option<String> {
    let graph = model.graph();
    let index = Index::new(graph);
    let readers = index.consumers(weight).iter();
    let mut products = readers.filter_map(|&node| Product::of(graph, &index, node));
    products.find_map(|product| bias(graph, &index, &product))
}

/// `(W - W~) E[x]` for each output channel.
fn shift(product: &Product, weight: &[f32], rounded: &[f32], seen: &[ChannelSeen]) -> Vec<f32> {
    let lost = |range: std::ops::Range<usize>| -> f64 {
        weight[range.clone()]
            .iter()
            .zip(&rounded[range])
            .map(|(&w, &r)| f64::from(w) - f64::from(r))
            .sum()
    };
    (0..product.outputs())
        .map(|output| {
            (0..product.inputs_per_output())
                .map(|i| lost(product.elements(output, i)) * seen[product.input_of(output, i)].mean)
                .sum::<f64>() as f32
        })
        .collect()
}

/// The vector constant that is added to the outputs of a product, and to nothing else.
fn bias(graph: &GraphProto, index: &Index, product: &Product) -> Option<String> {
    let (reader, place) = facts::bias_of(graph, index, product.node)?;
    own_vector(graph, index, &graph.node[reader].input[place], product.outputs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::products;
    use fewbits_onnx::proto::{NodeProto, TensorProto};
    use fewbits_quant::{Bits, Granularity, Scheme, quantize};
    use std::collections::HashSet;

    #[test]
    fn the_mean_of_an_output_comes_back() {
        let weight = [0.3f32, -1.0, 0.72, 0.9, 0.111, 0.5];
        let graph = GraphProto {
            node: vec![
                NodeProto::new("MatMul", &["x", "w"], &["p"]),
                NodeProto::new("Add", &["p", "b"], &["y"]),
            ],
            initializer: vec![
                TensorProto::from_f32("w", &[3, 2], &weight),
                TensorProto::from_f32("b", &[2], &[0.0, 0.0]),
            ],
            ..GraphProto::default()
        };
        let model = Model::from_graph(graph, 17);
        let bits = Bits::new(3).unwrap();
        let scheme = Scheme::Symmetric { bits, granularity: Granularity::Channel { axis: 1 } };
        let means = [2.0, 1.0, 4.0];
        let seen = means.map(|mean| ChannelSeen { mean, ..ChannelSeen::default() }).to_vec();
        let graph = model.graph();
        let found = products(graph, &Index::new(graph), &HashSet::from(["w"]));
        let channels = Channels::from([("x".to_string(), seen)]);
        let integers = WeightScheme {
            scheme,
            range_method: Default::default(),
            rounding: Default::default(),
            scale_type: Default::default(),
        };
        let rounded = Rounded {
            integers: &HashMap::from([("w", integers)]),
            limits: &WeightLimits::default(),
        };
        let edits = correct(&model, &found, &channels, &rounded).unwrap();
        assert_eq!(edits[0].edit, Edit::Add { tensor: "b".into(), axis: 0 });
        let rounded = quantize(&weight, &[3, 2], scheme).unwrap().dequantize();
        for (n, added) in edits[0].values.iter().enumerate() {
            let mean =
                |w: &[f32]| -> f64 { (0..3).map(|i| f64::from(w[2 * i + n]) * means[i]).sum() };
            let expected = mean(&weight) - mean(&rounded);
            assert!(expected.abs() > 0.01 && (f64::from(*added) - expected).abs() < 1e-6);
        }
    }
}
