//! Cast of floats to floats, which are there already, or of integers of ours.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::lower::{Lowering, floats};
use crate::op::Op;
use crate::program::ValueId;
use crate::refusal::{Refusal, input, only};
use crate::rules::floats_of_integers::floats_of_integers;
use crate::rules::{Rewrite, Rule, Takes};

pub(crate) const RULE: Rule = Rule { name: "cast", takes: Takes::Floats(cast) };

fn cast<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Cast"], node)?;
    let from = input(node, 0)?;
    match lowering.is_float(from) {
        true => Ok(Box::new(|lowering| lowering.tensor(from))),
        false => floats_of_integers(lowering, node).map_err(|_| lowering.no_kernel_for(from)),
    }
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
