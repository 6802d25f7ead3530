//! Cast of floats to floats, which are there already, or of integers of ours.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, FLOAT, Net, int};
use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, input, only};
use crate::rules::floats_of_integers::floats_of_integers;

pub(crate) const RULE: Rule = Rule { name: "cast", takes: Takes::Floats(cast), example };

fn cast<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Cast"], node)?;
    let from = input(node, 0)?;
    match lowering.is_float(from) {
        true => Ok(Box::new(|lowering| lowering.tensor(from))),
        false => floats_of_integers(lowering, node).map_err(|_| lowering.no_kernel_for(from)),
    }
}

/// Floats that are floats already: both names are fixed, or the Cast would be gone before.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let y = net.node("Cast", &[&x], &[int("to", i64::from(FLOAT))]);
    net.ends_in_floats(&y)
}
