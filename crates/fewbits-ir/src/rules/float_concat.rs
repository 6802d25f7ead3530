//! Floats joined along an axis.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, int};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Concat, Op};
use crate::program::ValueId;
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule = Rule { name: "float_concat", takes: Takes::Floats(concat), example };

fn concat<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let axis = concat_axis(node)?;
    Ok(Box::new(move |lowering| {
        let inputs: Vec<ValueId> = node.input.iter().map(|n| lowering.tensor(n)).collect();
        let op = Op::Concat(Concat { axis, zero_point: 0 });
        lowering.step(floats(), &inputs, "Concat", node, op)
    }))
}

pub(crate) fn concat_axis(node: &NodeProto) -> Result<i64, Refusal> {
    only(&["Concat"], node)?;
    Ok(node.attr("axis").ok_or(Refusal::of_node("it has no axis"))?.i())
}

/// Floats of two widths.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 5]);
    let wide = net.feed_floats(&[3, 37]);
    let y = net.node("Concat", &[&x, &wide], &[int("axis", -1)]);
    net.ends_in_floats(&y)
}
