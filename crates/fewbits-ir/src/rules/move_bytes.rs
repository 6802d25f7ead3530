//! Operators that only move bytes.

use crate::example::{Example, Net, Scale, ints};
use crate::lower::Lowering;
use crate::lower::{Rule, Takes, Wanted};
use crate::program::ValueId;
use crate::refusal::Refusal;

pub(crate) const RULE: Rule =
    Rule { name: "move_bytes", takes: Takes::ToBytes(move_bytes), example };

fn move_bytes<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let from = lowering.moved(wanted.node)?;
    Ok(lowering.requantized(from, wanted.to, wanted.node))
}

/// Bytes that are moved and get another scale.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[2, 5, 7], Scale::UNSIGNED);
    let y = net.node("Transpose", &[&x], &[ints("perm", &[0, 2, 1])]);
    net.ends_in_bytes(&y)
}
