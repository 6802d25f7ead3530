//! Products of two float values.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::permutation;
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{FloatMatMul, Heads, Op, Permutation};
use crate::program::ValueId;
use crate::refusal::{Refusal, only};
use crate::rules::matmul_constant::{has_matrices, is_constant_product};

pub(crate) const RULE: Rule = Rule { name: "float_matmul", takes: Takes::Floats(matmul), example };

fn matmul<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["MatMul"], node)?;
    has_matrices(lowering, node)?;
    Ok(Box::new(move |lowering| product_of_two(lowering, node, Heads::Apart)))
}

/// A Transpose of a product of two, written in its order where it is computed: `[batch, heads,
/// rows, columns]` to `[batch, rows, heads, columns]`.
pub(crate) fn transposed_product<'a>(
    lowering: &mut Lowering<'a>,
    name: &'a str,
    permutation: &[usize],
) -> Option<ValueId> {
    let (position, node) = lowering.view.producer(name).filter(|(_, n)| n.is("MatMul"))?;
    let fits = permutation == [0, 2, 1, 3]
        && lowering.view.has_one_use(name)
        && lowering.own_float.contains(&position)
        && !is_constant_product(lowering, node);
    fits.then(|| product_of_two(lowering, node, Heads::Together))
}

fn product_of_two<'a>(lowering: &mut Lowering<'a>, node: &'a NodeProto, heads: Heads) -> ValueId {
    let (left, right) = (node.input[0].as_str(), node.input[1].as_str());
    if let Some(id) = lowering.attention(left, right, heads, node) {
        return id;
    }
    let [(a, first), (b, second)] = [left, right].map(|name| lowering.permuted(name));
    let op = Op::FloatMatMul(FloatMatMul { permutations: [first, second], heads });
    lowering.step(floats(), &[a, b], "MatMul", node, op)
}

impl<'a> Lowering<'a> {
    /// A value, and the permutation that a Transpose before it makes.
    pub(crate) fn permuted(&mut self, name: &'a str) -> (ValueId, Permutation) {
        if let Some((_, node)) = self.view.producer(name)
            && node.is("Transpose")
            && let Ok(permutation) = permutation(node)
        {
            return (self.tensor(&node.input[0]), Some(permutation));
        }
        (self.tensor(name), None)
    }
}

/// Rows and columns that are no multiple of a vector, in batches.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 3, 37]);
    let other = net.feed_floats(&[2, 37, 5]);
    let y = net.node("MatMul", &[&x, &other], &[]);
    net.ends_in_floats(&y)
}
