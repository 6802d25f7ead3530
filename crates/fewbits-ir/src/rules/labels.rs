//! One of the constant labels, at a position that was computed.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::example::{Example, INT64, Net, int};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::{Refusal, check, only};

pub(crate) const RULE: Rule = Rule { name: "labels", takes: Takes::Labels(labels), example };

fn labels<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Gather"], node)?;
    lowering.is_of_labels(&node.output[0])?;
    check(node.int("axis", 0) == 0, "it looks up along another axis than the first")?;
    let labels = label_table(lowering, node);
    let labels = labels.ok_or(Refusal::of_node("it looks up no constant row of int64"))?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[1]);
        lowering.step(floats(), &[input], "labels", node, Op::Labels(labels))
    }))
}

/// The constant labels among which a Gather chooses.
fn label_table(lowering: &Lowering, node: &NodeProto) -> Option<Vec<i64>> {
    let tensor = lowering.view.initializer(node.input.first()?)?;
    let index = lowering.types.get(node.input.get(1)?.as_str())?;
    let fits = tensor.element_type().ok()? == DataType::Int64
        && tensor.dims.len() == 1
        && *index == DataType::Int64
        && lowering.view.initializer(&node.input[1]).is_none();
    fits.then(|| tensor.ints().ok()).flatten()
}

/// Labels that are in no order.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 5]);
    let at = net.node("ArgMax", &[&x], &[int("axis", -1), int("keepdims", 0)]);
    let labels = net.ints(&[7, -3, 40, 2, 9]);
    let y = net.node("Gather", &[&labels, &at], &[]);
    net.ends_in(&y, INT64)
}
