//! A matrix of bytes times constant integer weights, as bytes.

use crate::example::{Example, Net, Scale};
use crate::lower::{Lowering, Sums, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{Activations, ByteScale, Epilogue, Op, Product};
use crate::program::{Layout, ValueId};
use crate::refusal::Refusal;
use crate::rules::matrix::{Matrix, matrix};

pub(crate) const RULE: Rule =
    Rule { name: "matmul_to_bytes", takes: Takes::ToBytes(matmul), example };

fn matmul<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let Wanted { node, to, .. } = *wanted;
    let Matrix { input, weights, weight_scale, bias, what } = matrix(lowering, node)?;
    let sums = Sums::new(&weight_scale, bias, input);
    let product = Product {
        weights,
        activations: Activations::Static { zero_point: input.ty.scale.zero_point },
        bias: sums.ints()?,
        scale: sums.scale.iter().map(|s| s / to.scale).collect(),
        epilogue: Epilogue::Bytes { to, add: None },
    };
    let id = lowering.in_layout(input, Layout::RowMajor, node);
    let output = bytes(ByteScale::of(to), Layout::RowMajor);
    let what = format!("{what}{}", wanted.behind);
    Ok(lowering.step(output, &[id], what, node, Op::MatMul(Box::new(product))))
}

/// Rows and columns that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 37], Scale::UNSIGNED);
    let w = net.random_weights(&[37, 21], 1);
    let y = net.node("MatMul", &[&x, &w], &[]);
    net.ends_in_bytes(&y)
}
