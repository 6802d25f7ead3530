//! The part of a plan that is about activations.

use std::collections::{BTreeMap, HashMap};

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::qdq::{
    self, ActivationParams, ActivationStorage, DynamicWeight, IntegerReaders, integer_bias,
    write_integer_bias,
};
use fewbits_onnx::proto::GraphProto;
use fewbits_quant::{Encoding, Granularity, QTensor, QuantParams, Scheme};

use crate::plan::{ActivationBecomes, Plan, Readers, is_product};
use crate::{Error, Result};

/// The parameters of every value with a planned range.
pub(crate) fn params(model: &Model, plan: &Plan) -> Result<HashMap<String, ActivationParams>> {
    let mut params = HashMap::new();
    for planned in &plan.activations {
        let ActivationBecomes::Static { scheme, low, high, .. } = planned.becomes else { continue };
        let graph = model.graph();
        let known = graph.node.iter().any(|n| n.output.contains(&planned.value))
            || graph.input.iter().any(|i| i.name() == planned.value);
        if !known {
            let reason = format!("the model has no value '{}'", planned.value);
            return Err(Error::PlanMismatch { reason });
        }
        let (range, bits) = ([(low, high)], scheme.bits());
        let (quant, storage) = match scheme {
            Scheme::Affine { .. } => {
                (QuantParams::affine(&range, bits), ActivationStorage::Unsigned)
            }
            _ => (QuantParams::symmetric(&range, bits), ActivationStorage::Signed),
        };
        params.insert(
            planned.value.clone(),
            ActivationParams {
                scale: quant.scale[0],
                zero_point: quant.zero_point_of(0),
                storage,
                bits: bits.get(),
                readers: match planned.readers {
                    Readers::All => IntegerReaders::All,
                    Readers::Products => IntegerReaders::Products,
                },
            },
        );
    }
    Ok(params)
}

/// Gives every product of a quantized value and an int8 weight an int32 bias.
pub(super) fn integer_biases(
    model: &mut Model,
    weights: &HashMap<&str, QTensor>,
    params: &HashMap<String, ActivationParams>,
) -> Result<()> {
    let mut biases = Vec::new();
    let graph = model.graph();
    for (i, node) in graph.node.iter().enumerate() {
        let (true, Some(bias)) = (is_product(node), node.input.get(2).filter(|b| !b.is_empty()))
        else {
            continue;
        };
        let (Some(input), Some(weight)) =
            (params.get(&node.input[0]), weights.get(node.input[1].as_str()))
        else {
            continue;
        };
        let Some(bias) = graph.find_initializer(bias) else { continue };
        // Only then is the product of the scales that of the sum.
        let one_scale_an_output = matches!(
            weight.layout().granularity(),
            Granularity::Tensor | Granularity::Channel { .. }
        );
        if !weight.params().zero_point.is_empty() || !one_scale_an_output || bias.dims.len() != 1 {
            continue;
        }
        if let Some(bias) = integer_bias(&bias.floats()?, input.scale, &weight.params().scale) {
            biases.push((i, bias));
        }
    }
    // Each one inserts a node before all others.
    for (inserted, (position, bias)) in biases.into_iter().enumerate() {
        write_integer_bias(model.graph_mut(), position + inserted, 2, bias);
    }
    Ok(())
}

/// The shape of every constant that a node reads second, by name.
pub(super) fn shapes_of_weights(graph: &GraphProto) -> HashMap<String, Vec<usize>> {
    let index = Index::new(graph);
    let weights = graph.node.iter().filter_map(|node| index.initializer(node.input.get(1)?));
    weights.filter_map(|t| Some((t.name().to_string(), t.shape().ok()?))).collect()
}

/// Rewrites the products whose activations are quantized as they come.
pub(super) fn dynamic_products(model: &mut Model, plan: &Plan, weights: &HashMap<&str, QTensor>) {
    let dynamic =
        plan.activations.iter().filter(|a| matches!(a.becomes, ActivationBecomes::Dynamic));
    for planned in dynamic {
        let products = products_of(model, &planned.value, weights);
        if !products.is_empty() {
            qdq::dynamic_products(model.graph_mut(), &planned.value, products);
        }
    }
}

fn products_of(model: &Model, value: &str, weights: &HashMap<&str, QTensor>) -> Vec<DynamicWeight> {
    let mut products = BTreeMap::new();
    for (position, node) in model.graph().node.iter().enumerate() {
        let multiplies = is_product(node) && !node.is("Conv") && node.input[0] == value;
        let Some(weight) =
            weights.get(node.input[1..].first().map_or("", String::as_str)).filter(|_| multiplies)
        else {
            continue;
        };
        let transposed = node.is("Gemm") && node.int("transB", 0) != 0;
        if let Some((shape, integers)) = columns(weight, transposed) {
            products.insert(
                position,
                DynamicWeight {
                    node: position,
                    shape,
                    integers,
                    scale: weight.params().scale.clone(),
                    bias: node.input.get(2).cloned(),
                },
            );
        }
    }
    products.into_values().collect()
}

/// A weight as `[k, n]` with one scale or one a column; `None` if it is not of that kind.
fn columns(weight: &QTensor, transposed: bool) -> Option<(Vec<usize>, Vec<i8>)> {
    let [rows, columns] = *weight.layout().shape() else { return None };
    let channel = if transposed { 0 } else { 1 };
    let fits = match weight.layout().granularity() {
        Granularity::Tensor => true,
        Granularity::Channel { axis } => axis == channel,
        Granularity::Group { .. } => false,
    };
    let signed = matches!(weight.codes().encoding(), Encoding::TwosComplement | Encoding::Sign);
    if !fits || !signed || weight.codes().width() > 8 {
        return None;
    }
    let codes = weight.codes().unpack();
    if !transposed {
        return Some((vec![rows, columns], codes.into_iter().map(|c| c as i8).collect()));
    }
    let mut integers = Vec::with_capacity(codes.len());
    for column in 0..columns {
        integers.extend((0..rows).map(|row| codes[row * columns + column] as i8));
    }
    Some((vec![columns, rows], integers))
}
