//! Floats rounded to halves, as those that read them compare them.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, input, only};
use crate::rules::floats_of_integers::convert;

pub(crate) const RULE: Rule = Rule { name: "halves", takes: Takes::Anywhere(halves) };

fn halves<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Cast"], node)?;
    let to_half = node.int("to", 0) == DataType::Float16 as i64;
    if !to_half || !lowering.is_float(input(node, 0)?) {
        return Err(Refusal::other());
    }
    Ok(Box::new(move |lowering| convert(lowering, node, DataType::Float16)))
}
