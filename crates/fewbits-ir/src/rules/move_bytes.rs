//! Operators that only move bytes.

use crate::lower::Lowering;
use crate::lower::{Rule, Takes, Wanted};
use crate::program::ValueId;
use crate::refusal::Refusal;

pub(crate) const RULE: Rule = Rule { name: "move_bytes", takes: Takes::ToBytes(move_bytes) };

fn move_bytes<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let from = lowering.moved(wanted.node)?;
    Ok(lowering.requantized(from, wanted.to, wanted.node))
}
