//! Bytes of one scale become those of another.

use crate::example::{Example, Net, Scale};
use crate::lower::Lowering;
use crate::lower::{Rule, Takes, Wanted};
use crate::program::ValueId;
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule =
    Rule { name: "requantize", takes: Takes::ToBytes(requantize), example };

fn requantize<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    only(&["DequantizeLinear"], wanted.node)?;
    let from = lowering.source(wanted.name)?;
    Ok(lowering.requantized(from, wanted.to, wanted.node))
}

/// Unsigned bytes become signed ones, of which some are not reached.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 37], Scale::UNSIGNED);
    net.ends_in_bytes(&x)
}
