//! Activation functions, alone, behind a bias, and as parts of other operators.

use super::emit::{Emit, Why, input};
use crate::proto::{AttributeProto, DataType, NodeProto};

/// From here on ONNX has `Gelu`.
const GELU_OPSET: i64 = 20;

pub(super) fn gelu(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let x = input(node, 0)?;
    let data_type = emit.type_of(&[x])?;
    let y = by_erf(emit, x, data_type)?;
    emit.finish(node, &y)
}

pub(super) fn bias_gelu(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let (x, bias) = (input(node, 0)?, input(node, 1)?);
    let data_type = emit.type_of(&[bias, x])?;
    let sum = emit.op("Add", &[x, bias]);
    let y = by_erf(emit, &sum, data_type)?;
    emit.finish(node, &y)
}

pub(super) fn fast_gelu(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let x = input(node, 0)?;
    let bias = node.given_input(1);
    let data_type = emit.type_of(&[x, bias.unwrap_or(x)])?;
    let y = match bias {
        Some(bias) => {
            let sum = emit.op("Add", &[x, bias]);
            by_tanh(emit, &sum, data_type)?
        }
        None => by_tanh(emit, x, data_type)?,
    };
    emit.finish(node, &y)
}

pub(super) fn quick_gelu(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let x = input(node, 0)?;
    let data_type = emit.type_of(&[x])?;
    let alpha = emit.float(node.float("alpha", 1.702), data_type)?;
    let scaled = emit.op("Mul", &[x, &alpha]);
    let gate = emit.op("Sigmoid", &[&scaled]);
    let y = emit.op("Mul", &[x, &gate]);
    emit.finish(node, &y)
}

/// `x / 2 * (1 + erf(x / √2))`.
fn by_erf(emit: &mut Emit, x: &str, data_type: DataType) -> Result<String, Why> {
    if emit.opset >= GELU_OPSET {
        return Ok(emit.op("Gelu", &[x]));
    }
    let root = emit.float(std::f32::consts::SQRT_2, data_type)?;
    let scaled = emit.op("Div", &[x, &root]);
    let erf = emit.op("Erf", &[&scaled]);
    halved(emit, x, &erf, data_type)
}

/// `x / 2 * (1 + tanh(√(2 / π) * (x + 0.044715 * x³)))`.
fn by_tanh(emit: &mut Emit, x: &str, data_type: DataType) -> Result<String, Why> {
    if emit.opset >= GELU_OPSET {
        let tanh = vec![AttributeProto::of_string("approximate", "tanh")];
        return Ok(emit.op_with("Gelu", &[x], tanh));
    }
    let square = emit.op("Mul", &[x, x]);
    let cube = emit.op("Mul", &[&square, x]);
    let small = emit.float(0.044_715, data_type)?;
    let cube = emit.op("Mul", &[&cube, &small]);
    let sum = emit.op("Add", &[x, &cube]);
    let factor = emit.float((2.0 / std::f32::consts::PI).sqrt(), data_type)?;
    let scaled = emit.op("Mul", &[&sum, &factor]);
    let tanh = emit.op("Tanh", &[&scaled]);
    halved(emit, x, &tanh, data_type)
}

/// `x * (1 + y) / 2`.
fn halved(emit: &mut Emit, x: &str, y: &str, data_type: DataType) -> Result<String, Why> {
    let (one, half) = (emit.float(1.0, data_type)?, emit.float(0.5, data_type)?);
    let sum = emit.op("Add", &[y, &one]);
    let product = emit.op("Mul", &[x, &sum]);
    Ok(emit.op("Mul", &[&product, &half]))
}

/// The activation function `name` of a value; `params` are its numbers, in the order of the specification, as far
/// as they are given.
pub(super) fn activation(
    emit: &mut Emit,
    x: &str,
    name: &str,
    params: &[f32],
    data_type: DataType,
) -> Result<String, Why> {
    let attributes: &[&str] = match name {
        "" => return Ok(x.to_string()),
        "Relu" | "Sigmoid" | "Softplus" | "Softsign" | "Tanh" => &[],
        "Elu" | "LeakyRelu" | "ThresholdedRelu" => &["alpha"],
        "HardSigmoid" => &["alpha", "beta"],
        "Selu" => &["alpha", "gamma"],
        "Clip" => {
            let [low, high] = params else { return Err("its Clip has no two bounds".into()) };
            let (low, high) = (emit.float(*low, data_type)?, emit.float(*high, data_type)?);
            return Ok(emit.op("Clip", &[x, &low, &high]));
        }
        other => return Err(format!("its activation {other} is not known")),
    };
    let given = attributes.iter().zip(params).map(|(name, &p)| AttributeProto::of_float(name, p));
    Ok(emit.op_with(name, &[x], given.collect()))
}
