//! Products with an activation function, a sum, transposes or a factor.

use super::elementwise::activation;
use super::emit::{Emit, Why, input};
use crate::proto::{DataType, NodeProto};

pub(super) fn conv(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let (x, w) = (input(node, 0)?, input(node, 1)?);
    let data_type = emit.type_of(&[w, x])?;
    let inputs = [x, w, node.given_input(2).unwrap_or("")];
    let mut y = emit.op_like("Conv", node, &inputs, &["activation", "activation_params"]);
    if let Some(other) = node.given_input(3) {
        y = emit.op("Add", &[&y, other]);
    }
    let params = node.floats("activation_params");
    let y = activation(emit, &y, &node.string("activation", ""), params, data_type)?;
    emit.finish(node, &y)
}

pub(super) fn gemm(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    const OWN: [&str; 4] =
        ["activation", "activation_alpha", "activation_beta", "activation_gamma"];
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let data_type = emit.type_of(&[b, a])?;
    let y = emit.op_like("Gemm", node, &[a, b, node.given_input(2).unwrap_or("")], &OWN);
    let params: Vec<f32> =
        OWN[1..].iter().filter_map(|name| node.attr(name)).map(|given| given.f()).collect();
    let y = activation(emit, &y, &node.string("activation", ""), &params, data_type)?;
    emit.finish(node, &y)
}

pub(super) fn mat_mul(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    if node.int("transBatchA", 0) != 0 || node.int("transBatchB", 0) != 0 {
        return Err("it moves the axis of the batch".into());
    }
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let alpha = node.float("alpha", 1.0);
    // Without a factor the type does not matter.
    let data_type = if alpha == 1.0 { DataType::Float } else { emit.type_of(&[b, a])? };
    let a = turned(emit, a, node.int("transA", 0))?;
    let b = turned(emit, b, node.int("transB", 0))?;
    let mut y = emit.op("MatMul", &[&a, &b]);
    if alpha != 1.0 {
        let factor = emit.float(alpha, data_type)?;
        y = emit.op("Mul", &[&y, &factor]);
    }
    emit.finish(node, &y)
}

/// A factor whose last two axes change places if `trans` says so.
fn turned(emit: &mut Emit, value: &str, trans: i64) -> Result<String, Why> {
    if trans == 0 {
        return Ok(value.to_string());
    }
    let rank = emit.rank(value)? as i64;
    if rank < 2 {
        return Ok(value.to_string());
    }
    let perm: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
    Ok(emit.transpose(value, &perm))
}
