//! Softmax along the last axis.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Op;
use crate::refusal::{Refusal, check, only};
use crate::rules::norm::{OTHER_AXIS, is_last_axis};

pub(crate) const RULE: Rule = Rule { name: "softmax", takes: Takes::Floats(softmax) };

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
