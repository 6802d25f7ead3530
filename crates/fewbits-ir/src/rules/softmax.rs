//! Softmax along the last axis.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::{Refusal, check, only};
use crate::rules::norm::{OTHER_AXIS, is_last_axis};

pub(crate) const RULE: Rule = Rule { name: "softmax", takes: Takes::Floats(softmax), example };

fn softmax<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Softmax"], node)?;
    // Before opset 13 all axes from `axis` on were one.
    let default = if lowering.view.opset >= 13 { -1 } else { 1 };
    check(is_last_axis(lowering, node, default), OTHER_AXIS)?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[0]);
        lowering.step(floats(), &[input], "Softmax", node, Op::Softmax)
    }))
}

/// Rows that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let y = net.node("Softmax", &[&x], &[]);
    net.ends_in_floats(&y)
}
