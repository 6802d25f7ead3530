//! A function of each byte, looked up in a table of its 256 values.

use crate::lower::{Lowering, table_of};
use crate::op::ByteScale;
use crate::program::ValueId;
use crate::refusal::Refusal;
use crate::rules::function::{function_at, name_of};
use crate::rules::{Rule, Takes, Wanted};

pub(crate) const RULE: Rule = Rule { name: "lut", takes: Takes::ToBytes(lut) };

fn lut<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let (node, to) = (wanted.node, wanted.to);
    let (function, name) = function_at(lowering, node)?;
    let from = lowering.source(name)?;
    let table = table_of(from.ty.scale, to, |x| function.at(x));
    let what = format!("{} by a table", name_of(function, node));
    Ok(lowering.looked_up(from.id, table, ByteScale::of(to), what, node))
}
