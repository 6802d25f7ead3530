//! Normalizations, alone and behind the sum of two values.

use super::emit::{Emit, Why, input, without_output};
use crate::proto::{AttributeProto, DataType, NodeProto};

/// From here on ONNX has `LayerNormalization`.
const LAYER_NORM_OPSET: i64 = 17;
/// What onnxruntime adds to a variance where a node does not say.
const EPSILON: f32 = 1e-12;

pub(super) fn skip(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let sum = skip_sum(node, emit, 4)?;
    let gamma = input(node, 2)?;
    let y = layer_norm(emit, node, &sum, gamma, node.given_input(3))?;
    give(node, emit, &sum, &y)
}

pub(super) fn skip_simplified(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let sum = skip_sum(node, emit, 3)?;
    let gamma = input(node, 2)?;
    let y = root_mean_square(emit, &sum, gamma, node.float("epsilon", EPSILON))?;
    give(node, emit, &sum, &y)
}

pub(super) fn simplified(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    without_output(node, 1, "its deviation")?;
    let (x, scale) = (input(node, 0)?, input(node, 1)?);
    if node.int("axis", -1) != -1 && node.int("axis", -1) + 1 != emit.rank(x)? as i64 {
        return Err("it goes along more than the last axis".into());
    }
    let y = root_mean_square(emit, x, scale, node.float("epsilon", 1e-5))?;
    emit.finish(node, &y)
}

/// The sum that is normalized; the bias is input number `bias`.
fn skip_sum(node: &NodeProto, emit: &mut Emit, bias: usize) -> Result<String, Why> {
    without_output(node, 1, "its mean")?;
    without_output(node, 2, "its deviation")?;
    let sum = emit.op("Add", &[input(node, 0)?, input(node, 1)?]);
    Ok(match node.given_input(bias) {
        Some(bias) => emit.op("Add", &[&sum, bias]),
        None => sum,
    })
}

/// Names the result, and the sum where others read it.
fn give(node: &NodeProto, emit: &mut Emit, sum: &str, y: &str) -> Result<(), Why> {
    if let Some(name) = node.given_output(3) {
        emit.rename(sum, name);
    }
    emit.finish(node, y)
}

/// A layer norm along the last axis with the epsilon of `node`.
pub(super) fn layer_norm(
    emit: &mut Emit,
    node: &NodeProto,
    x: &str,
    gamma: &str,
    beta: Option<&str>,
) -> Result<String, Why> {
    let epsilon = node.float("epsilon", EPSILON);
    if emit.opset >= LAYER_NORM_OPSET {
        let attributes =
            vec![AttributeProto::of_int("axis", -1), AttributeProto::of_float("epsilon", epsilon)];
        return Ok(emit.op_with("LayerNormalization", &[x, gamma, beta.unwrap_or("")], attributes));
    }
    let mean = emit.op_on("ReduceMean", x, &[-1]);
    let centred = emit.op("Sub", &[x, &mean]);
    let normal = over_deviation(emit, &centred, gamma, epsilon)?;
    let scaled = emit.op("Mul", &[&normal, gamma]);
    Ok(match beta {
        Some(beta) => emit.op("Add", &[&scaled, beta]),
        None => scaled,
    })
}

fn root_mean_square(emit: &mut Emit, x: &str, gamma: &str, epsilon: f32) -> Result<String, Why> {
    let normal = over_deviation(emit, x, gamma, epsilon)?;
    Ok(emit.op("Mul", &[&normal, gamma]))
}

/// `x / √(mean(x²) + ε)`, computed in the type of `gamma`.
fn over_deviation(emit: &mut Emit, x: &str, gamma: &str, epsilon: f32) -> Result<String, Why> {
    // Squares of halves overflow, and onnxruntime computes them as floats.
    let data_type = match emit.type_of(&[gamma])? {
        data_type @ (DataType::Float | DataType::Double) => data_type,
        other => return Err(format!("it normalizes {other:?}")),
    };
    let squares = emit.op("Mul", &[x, x]);
    let variance = emit.op_on("ReduceMean", &squares, &[-1]);
    let epsilon = emit.float(epsilon, data_type)?;
    let sum = emit.op("Add", &[&variance, &epsilon]);
    let deviation = emit.op("Sqrt", &[&sum]);
    Ok(emit.op("Div", &[x, &deviation]))
}
