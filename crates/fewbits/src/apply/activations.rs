//! The part of a plan that is about activations.

use std::collections::{BTreeMap, HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::facts::{ProductForm, bias_of};
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::dynamic::{self, DynamicProduct, DynamicWeight};
use fewbits_onnx::passes::qdq::{ActivationParams, integer_bias, write_integer_bias};
use fewbits_onnx::proto::GraphProto;
use fewbits_quant::{Encoding, Granularity, PackedInts, QTensor};

use crate::layers::{UseForm, constants, is_product};
use crate::plan::{ActivationBecomes, Plan, has_dynamic_form};
use crate::{Error, Result};

/// Refuses a scale for each channel where a product of a quantized value has its channels along another
/// axis of the weight: runtimes that compute it on integers would take one for the other.
pub(super) fn check_axes(
    model: &Model,
    weights: &HashMap<String, QTensor>,
    params: &HashMap<String, ActivationParams>,
) -> Result<()> {
    let graph = model.graph();
    for constant in constants(graph) {
        let Some(Granularity::Channel { axis }) =
            weights.get(&constant.tensor).map(|weight| weight.layout().granularity())
        else {
            continue;
        };
        let misses = constant.uses.iter().any(|usage| {
            let quantized = params.contains_key(&graph.node[usage.node].input[0]);
            usage.form == UseForm::Integer && quantized && usage.axes.channel != Some(axis)
        });
        if misses {
            let reason = format!(
                "tensor '{}' has a scale for each channel of axis {axis}, and a product on integers \
                 reads its channels along another; plan it with granularity tensor",
                constant.tensor
            );
            return Err(Error::PlanMismatch { reason });
        }
    }
    Ok(())
}

/// Gives every product of a quantized value and an int8 weight an int32 bias, a MatMul in the Add behind it:
/// onnxruntime makes a Gemm of both, whose bias it would round itself.
pub(super) fn integer_biases(
    model: &mut Model,
    weights: &HashMap<String, QTensor>,
    params: &HashMap<String, ActivationParams>,
) -> Result<()> {
    let mut biases = Vec::new();
    let graph = model.graph();
    let index = Index::new(graph);
    for (i, node) in graph.node.iter().enumerate().filter(|(_, node)| is_product(node)) {
        let Some((reader, place)) = bias_of(graph, &index, i) else { continue };
        let (Some(input), Some(weight), Some(bias)) = (
            params.get(&node.input[0]),
            weights.get(node.input[1].as_str()),
            index.initializer(&graph.node[reader].input[place]),
        ) else {
            continue;
        };
        // Only then is the product of the scales that of the sum.
        let one_scale_an_output = matches!(
            weight.layout().granularity(),
            Granularity::Tensor | Granularity::Channel { .. }
        );
        if !weight.params().zero_point.is_empty() || !one_scale_an_output {
            continue;
        }
        let shape = bias.shape()?;
        let is_row = matches!(shape[..], [_] | [1, _]);
        let integers = integer_bias(&bias.floats()?, input.scale, &weight.params().scale);
        if let Some(integers) = integers.filter(|_| is_row) {
            biases.push((reader, place, shape, integers));
        }
    }
    // Each one inserts a node before all others.
    for (inserted, (reader, place, shape, bias)) in biases.into_iter().enumerate() {
        write_integer_bias(model.graph_mut(), reader + inserted, place, &shape, bias);
    }
    Ok(())
}

/// The shape of every constant that a node reads second, by name.
pub(super) fn shapes_of_weights(graph: &GraphProto) -> HashMap<String, Vec<usize>> {
    let index = Index::new(graph);
    let weights = graph.node.iter().filter_map(|node| index.initializer(node.input.get(1)?));
    weights.filter_map(|t| Some((t.name().to_string(), t.shape().ok()?))).collect()
}

/// The names of values that a node reads second beside a quantized value, as products do.
pub(super) fn beside_quantized(
    graph: &GraphProto,
    params: &HashMap<String, ActivationParams>,
) -> HashSet<String> {
    let read = graph.node.iter().filter_map(|node| match &node.input[..] {
        [value, weight, ..] if params.contains_key(value) => Some(weight.clone()),
        _ => None,
    });
    read.collect()
}

/// Rewrites the products whose activations are quantized dynamically. The weights that they read
/// are written with them; those that others read, too, must be written in whole bytes, to share them:
/// their names are returned.
pub(super) fn dynamic_products(
    model: &mut Model,
    plan: &Plan,
    weights: &HashMap<String, QTensor>,
) -> HashSet<String> {
    let values: HashSet<&str> = plan
        .activations
        .iter()
        .filter(|a| matches!(a.becomes, ActivationBecomes::Dynamic))
        .map(|a| a.value.as_str())
        .collect();
    let mut products = Vec::new();
    let mut read = BTreeMap::new();
    for (position, node) in model.graph().node.iter().enumerate() {
        let [value, name, bias @ ..] = node.input.as_slice() else { continue };
        let Some(weight) = weights.get(name).filter(|_| values.contains(value.as_str())) else {
            continue;
        };
        let layout = weight.layout();
        if !has_dynamic_form(node, layout.shape(), layout.granularity()) || !is_int8(weight) {
            continue;
        }
        let Some(form) = ProductForm::of(node) else { continue };
        let Ok(shape) = <[usize; 2]>::try_from(layout.shape()) else { continue };
        products.push(DynamicProduct {
            node: position,
            value: value.clone(),
            weight: name.clone(),
            lies: form.weight,
            bias: bias.first().cloned(),
        });
        read.entry(name.clone()).or_insert_with(|| DynamicWeight {
            shape,
            integers: weight.codes().unpack().into_iter().map(|code| code as i8).collect(),
            scale: weight.params().scale.clone(),
        });
    }
    let names = read.keys().cloned().collect();
    if !products.is_empty() {
        dynamic::dynamic_products(model.graph_mut(), products, read);
    }
    names
}

/// Whether the integers of a weight are signed and of at most 8 bits, as products on integers read them.
fn is_int8(weight: &QTensor) -> bool {
    let codes = weight.codes();
    matches!(codes.encoding(), Encoding::TwosComplement | Encoding::Sign) && codes.width() <= 8
}

/// The same weight with its integers in whole bytes.
pub(super) fn in_bytes(weight: &QTensor) -> Option<QTensor> {
    let codes = PackedInts::pack(&weight.codes().unpack(), 8, Encoding::TwosComplement);
    QTensor::new(weight.layout().clone(), weight.params().clone(), codes)
}
