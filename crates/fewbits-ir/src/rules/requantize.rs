//! Bytes of one scale become those of another.

use crate::lower::Lowering;
use crate::lower::{Rule, Takes, Wanted};
use crate::program::ValueId;
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule = Rule { name: "requantize", takes: Takes::ToBytes(requantize) };

fn requantize<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    only(&["DequantizeLinear"], wanted.node)?;
    let from = lowering.source(wanted.name)?;
    Ok(lowering.requantized(from, wanted.to, wanted.node))
}
