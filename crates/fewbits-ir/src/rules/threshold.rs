//! Whether scores are above a threshold, as an integer: a Cast of a comparison.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::example::{Example, INT64, Net, int};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::Refusal;

pub(crate) const RULE: Rule =
    Rule { name: "threshold", takes: Takes::Labels(above_threshold), example };

fn above_threshold<'a>(
    lowering: &Lowering<'a>,
    node: &'a NodeProto,
) -> Result<Rewrite<'a>, Refusal> {
    let (scores, threshold) = threshold(lowering, node).ok_or(Refusal::other())?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(scores);
        let op = Op::Threshold(threshold);
        lowering.step(floats(), &[input], "Greater + Cast", node, op)
    }))
}

/// Whether a comparison is computed with the Cast of its result.
pub(crate) fn is_inside_threshold(lowering: &Lowering, node: &NodeProto) -> bool {
    let readers =
        node.output.first().map_or(&[][..], |output| lowering.view.index.consumers(output));
    let [reader] = readers else { return false };
    node.is("Greater") && threshold(lowering, &lowering.view.graph.node[*reader]).is_some()
}

/// The scores and the constant that they are compared with, before a Cast.
fn threshold<'a>(lowering: &Lowering<'a>, cast: &NodeProto) -> Option<(&'a str, f32)> {
    (cast.is("Cast") && cast.int("to", 0) == DataType::Int64 as i64).then_some(())?;
    let (_, greater) = lowering.view.producer(cast.input.first()?)?;
    (greater.is("Greater") && lowering.view.has_one_use(&cast.input[0])).then_some(())?;
    let [scores, threshold] = greater.input.as_slice() else { return None };
    lowering.is_float(scores).then_some((scores.as_str(), lowering.view.scalar(threshold)?))
}

/// Scores on both sides of a threshold that is not zero.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let threshold = net.floats(&[], &[0.1]);
    let y = net.node("Greater", &[&x, &threshold], &[]);
    let y = net.node("Cast", &[&y], &[int("to", i64::from(INT64))]);
    net.ends_in(&y, INT64)
}
