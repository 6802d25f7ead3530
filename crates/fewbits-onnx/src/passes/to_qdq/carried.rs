//! Operators that ONNX allows on integers and that only move or choose among them: quantizers of
//! other tools leave them between two integer operators as they are.

use super::emit::{Emit, Why};
use super::{Outcome, optional, output};
use crate::proto::{DataType, NodeProto};

/// Operators whose result has the parameters of what they read, and which executors have for
/// integers of any kind.
const MOVING: [&str; 11] = [
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];
/// The same, but computed as floats.
const CHOOSING: [&str; 4] = ["DepthToSpace", "GlobalMaxPool", "MaxPool", "Resize"];
/// Their results are positions.
const LOCATING: [&str; 2] = ["ArgMax", "ArgMin"];

/// Puts what chooses among quantized values between `DequantizeLinear` and `QuantizeLinear`, which
/// changes no value.
pub(super) fn rewrite(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let known = emit.params_of(optional(node, 0)).filter(|_| node.is_onnx()).cloned();
    let (Some(params), Ok(result)) = (known, output(node)) else { return Ok(Outcome::Untouched) };
    let op = node.op_type();
    if MOVING.contains(&op) {
        emit.remember(result, params);
        return Ok(Outcome::Untouched);
    }
    if op == "Split" {
        node.output.iter().for_each(|part| emit.remember(part, params.clone()));
        return Ok(Outcome::Untouched);
    }
    if !(CHOOSING.contains(&op) || LOCATING.contains(&op)) {
        return Ok(Outcome::Untouched);
    }
    let mut new = node.clone();
    new.input[0] = emit.dequantize(&node.input[0], &params, 1)?;
    if LOCATING.contains(&op) {
        emit.push(new);
        return Ok(Outcome::Replaced);
    }
    let floats = emit.fresh("f");
    new.output[0] = floats.clone();
    emit.push(new);
    // The zero point, which says the type, is there wherever parameters are remembered.
    emit.quantize(&floats, &params, DataType::Uint8, result);
    Ok(Outcome::Replaced)
}
