//! Integers of a step of ours as floats: the sums of a product of bytes, or 64-bit integers.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::example::{Example, FLOAT, Net, int};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::program::ValueId;
use crate::refusal::Refusal;

pub(crate) const RULE: Rule =
    Rule { name: "floats_of_integers", takes: Takes::Anywhere(floats_of_integers), example };

pub(crate) fn floats_of_integers<'a>(
    lowering: &Lowering<'a>,
    node: &'a NodeProto,
) -> Result<Rewrite<'a>, Refusal> {
    let is_float = node.output.first().is_some_and(|output| lowering.is_float(output));
    if !is_float || !reads_integers_of_ours(lowering, node) {
        return Err(Refusal::other());
    }
    Ok(Box::new(move |lowering| convert(lowering, node, DataType::Float)))
}

/// Whether a Cast reads integers that are computed by a step of ours.
fn reads_integers_of_ours(lowering: &Lowering, node: &NodeProto) -> bool {
    let producer = node.input.first().and_then(|name| lowering.view.producer(name));
    producer.filter(|_| node.is("Cast")).is_some_and(|(position, _)| {
        lowering.integer_products.contains(&position)
            || lowering.integer_arithmetic.contains(&position)
    })
}

/// Converts what a Cast reads.
pub(crate) fn convert<'a>(
    lowering: &mut Lowering<'a>,
    node: &'a NodeProto,
    to: DataType,
) -> ValueId {
    let input = lowering.tensor(&node.input[0]);
    lowering.step(floats(), &[input], "Cast", node, Op::Cast(to))
}

/// The sums of a product of bytes, without a scale.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_integers(&[3, 37]);
    let w = net.random_codes(&[37, 21]);
    let sums = net.node("MatMulInteger", &[&x, &w], &[]);
    let y = net.node("Cast", &[&sums], &[int("to", i64::from(FLOAT))]);
    net.ends_in_floats(&y)
}
