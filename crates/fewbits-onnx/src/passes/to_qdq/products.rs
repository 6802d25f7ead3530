//! Products of integers that give floats: `MatMulInteger`, and its sums scaled.

use super::emit::{Emit, Why};
use super::{Outcome, input, optional, output};
use crate::MICROSOFT;
use crate::proto::{DataType, NodeProto};

/// Whether `node` is one of them.
pub(super) fn is_product(node: &NodeProto) -> bool {
    node.domain() == MICROSOFT
        && matches!(node.op_type(), "DynamicQuantizeMatMul" | "MatMulIntegerToFloat")
}

/// Spells the product out in the form that `passes::dynamic::dynamic_products` writes.
pub(super) fn rewrite(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let result = output(node)?;
    let at = |n: usize| input(node, n).map(str::to_string);
    let b = at(1)?;
    let [a, a_scale, a_zero_point] = if node.op_type() == "DynamicQuantizeMatMul" {
        let [q, s, z] = ["q", "s", "z"].map(|name| emit.fresh(name));
        emit.push(NodeProto::new("DynamicQuantizeLinear", &[input(node, 0)?], &[&q, &s, &z]));
        [q, s, z]
    } else {
        let a = emit.params(input(node, 2)?, optional(node, 4))?;
        [at(0)?, a.scale, a.zero_point]
    };
    let (b_scale, b_zero_point, bias) = match node.op_type() {
        "DynamicQuantizeMatMul" => (2, 3, 4),
        _ => (3, 5, 6),
    };
    let weight = emit.params(input(node, b_scale)?, optional(node, b_zero_point))?;
    let operands = [&a, &b, &a_zero_point, &weight.zero_point].map(String::as_str);
    let product = emit.op("MatMulInteger", &operands, "p", Vec::new());
    let sum = emit.cast(&product, DataType::Float);
    let scale = emit.op("Mul", &[&a_scale, &weight.scale], "s", Vec::new());
    let scaled = emit.op("Mul", &[&sum, &scale], "y", Vec::new());
    emit.name_after(node);
    match optional(node, bias) {
        "" => {}
        bias => {
            emit.op("Add", &[&scaled, bias], "y", Vec::new());
        }
    }
    emit.finish(result);
    Ok(Outcome::Replaced)
}
