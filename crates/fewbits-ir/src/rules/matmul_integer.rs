//! MatMulInteger that is no part of a chain which ends in floats: int32 sums.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::Tensor;
use crate::example::{Example, INT32, Net, Scale};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{MatMulInteger, Op, ZeroPoints};
use crate::refusal::{Refusal, check, input, only};
use crate::tensor::constant_tensor;

pub(crate) const RULE: Rule =
    Rule { name: "matmul_integer", takes: Takes::Anywhere(matmul), example };

fn matmul<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["MatMulInteger"], node)?;
    if !lowering.is_among(&lowering.integer_products, node) {
        return Err(Refusal::other());
    }
    let (left, right) = (input(node, 0)?, input(node, 1)?);
    let constant = lowering.view.initializer(right);
    let constant = constant.and_then(|tensor| constant_tensor(tensor).ok().flatten());
    if let Some(tensor) = &constant {
        check(is_of_bytes(tensor), "its constant factor is no matrix of 8-bit integers")?;
    }
    Ok(Box::new(move |lowering| {
        let mut inputs = Vec::new();
        let right = match constant {
            Some(tensor) => Some(tensor),
            None => {
                inputs.push(lowering.tensor(right));
                None
            }
        };
        inputs.insert(0, lowering.tensor(left));
        let zero_points = [2, 3].map(|at| node.given_input(at));
        inputs.extend(zero_points.into_iter().flatten().map(|name| lowering.tensor(name)));
        let zero_points = zero_points.map(|name| name.is_some());
        let zero_points = ZeroPoints::given(zero_points[0], zero_points[1]);
        let op = Op::MatMulInteger(MatMulInteger { right, zero_points });
        lowering.step(floats(), &inputs, "MatMulInteger", node, op)
    }))
}

fn is_of_bytes(tensor: &Tensor) -> bool {
    matches!(tensor.data_type(), DataType::Int8 | DataType::Uint8) && !tensor.shape().is_empty()
}

/// Unsigned bytes with a zero point, and a constant matrix of signed ones.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_integers(&[3, 37]);
    let w = net.random_codes(&[37, 21]);
    let zero_point = net.zero_point(Scale::UNSIGNED);
    let y = net.node("MatMulInteger", &[&x, &w, &zero_point], &[]);
    net.ends_in(&y, INT32)
}
