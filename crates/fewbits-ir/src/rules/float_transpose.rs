//! Transpose of floats: inside the product before it, if that can write them so.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, ints};
use crate::lower::{Lowering, floats, permutation};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Op, Transpose};
use crate::refusal::{Refusal, only};
use crate::rules::float_matmul::transposed_product;

pub(crate) const RULE: Rule =
    Rule { name: "float_transpose", takes: Takes::Floats(transpose), example };

fn transpose<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Transpose"], node)?;
    let permutation = permutation(node)?;
    Ok(Box::new(move |lowering| {
        if let Some(id) = transposed_product(lowering, &node.input[0], &permutation) {
            return id;
        }
        let input = lowering.tensor(&node.input[0]);
        let op = Op::Transpose(Transpose { permutation });
        lowering.step(floats(), &[input], "Transpose", node, op)
    }))
}

/// Three axes, of which the first two change places.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 5, 7]);
    let y = net.node("Transpose", &[&x], &[ints("perm", &[1, 0, 2])]);
    net.ends_in_floats(&y)
}
