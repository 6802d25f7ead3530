//! LayerNormalization and RMSNormalization over the last axis.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Norm, NormKind, Op};
use crate::refusal::{Refusal, check, input, only};

pub(crate) const RULE: Rule = Rule { name: "norm", takes: Takes::Floats(norm), example };

/// Why a step along one axis does not take another.
pub(crate) const OTHER_AXIS: &str = "its axis is not known to be the last";

fn norm<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["LayerNormalization", "RMSNormalization"], node)?;
    check(node.output.len() == 1, "it has several outputs")?;
    check(is_last_axis(lowering, node, -1), OTHER_AXIS)?;
    let constant = |name: &str| {
        let floats = lowering.view.floats(name);
        Ok(floats.ok_or(Refusal::of_node("its scale or bias is not constant"))?.0)
    };
    let gain = constant(input(node, 1)?)?;
    let kind = match (node.is("LayerNormalization"), node.given_input(2)) {
        (true, Some(name)) => NormKind::Layer { bias: constant(name)? },
        (true, None) => NormKind::Layer { bias: Vec::new() },
        (false, _) => NormKind::RootMeanSquare,
    };
    let op = Norm { kind, gain, epsilon: node.float("epsilon", 1e-5) };
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[0]);
        lowering.step(floats(), &[input], node.op_type(), node, Op::Norm(op))
    }))
}

/// Whether a node's `axis` is the last of its input.
pub(crate) fn is_last_axis(lowering: &Lowering, node: &NodeProto, default: i64) -> bool {
    let axis = node.int("axis", default);
    axis == -1 || lowering.rank(&node.input[0]).is_some_and(|rank| axis + 1 == rank as i64)
}

/// Rows that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let (gain, bias) = (net.random_floats(&[37]), net.random_floats(&[37]));
    let y = net.node("LayerNormalization", &[&x, &gain, &bias], &[]);
    net.ends_in_floats(&y)
}
