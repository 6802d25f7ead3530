//! A matrix of bytes times constant integer weights, as floats.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, Scale};
use crate::lower::{Bias, Lowering, Sums, floats};
use crate::lower::{Rule, Takes};
use crate::op::{Activations, Epilogue, Op, Product};
use crate::program::{Layout, ValueId};
use crate::refusal::Refusal;
use crate::rules::matrix::{Matrix, matrix};

pub(crate) const RULE: Rule =
    Rule { name: "matmul_to_floats", takes: Takes::FromBytes(matmul), example };

fn matmul<'a>(lowering: &mut Lowering<'a>, node: &'a NodeProto) -> Result<ValueId, Refusal> {
    let Matrix { input, weights, weight_scale, bias, what } = matrix(lowering, node)?;
    let Sums { scale, bias } = Sums::new(&weight_scale, bias, input);
    let none = || vec![0; scale.len()];
    let (bias, offset) = match bias {
        Bias::None => (none(), None),
        Bias::Ints(bias) => (bias, None),
        Bias::Floats(floats) => (none(), Some(floats)),
    };
    let product = Product {
        weights,
        activations: Activations::Static { zero_point: input.ty.scale.zero_point },
        bias,
        scale,
        epilogue: Epilogue::floats(offset),
    };
    let id = lowering.in_layout(input, Layout::RowMajor, node);
    let what = format!("{what} to floats");
    Ok(lowering.step(floats(), &[id], what, node, Op::MatMul(Box::new(product))))
}

/// Rows and columns that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 37], Scale::UNSIGNED);
    let w = net.random_weights(&[37, 21], 1);
    let y = net.node("MatMul", &[&x, &w], &[]);
    net.ends_in_floats(&y)
}
