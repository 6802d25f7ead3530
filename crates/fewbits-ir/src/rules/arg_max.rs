//! The position of the largest score.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, INT64, Net, int};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::{Refusal, check, input, only};
use crate::rules::norm::{OTHER_AXIS, is_last_axis};

pub(crate) const RULE: Rule = Rule { name: "arg_max", takes: Takes::Labels(arg_max), example };

fn arg_max<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["ArgMax"], node)?;
    let scores = input(node, 0)?;
    if !lowering.is_float(scores) {
        return Err(lowering.no_kernel_for(scores));
    }
    check(is_last_axis(lowering, node, 0), OTHER_AXIS)?;
    check(node.int("select_last_index", 0) == 0, "select_last_index is set")?;
    let keep_axis = node.int("keepdims", 1) != 0;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(scores);
        lowering.step(floats(), &[input], "ArgMax", node, Op::ArgMax { keep_axis })
    }))
}

/// Rows that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let at = net.node("ArgMax", &[&x], &[int("axis", -1), int("keepdims", 0)]);
    net.ends_in(&at, INT64)
}
