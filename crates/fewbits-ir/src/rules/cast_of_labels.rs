//! Cast of what are 64-bit integers already.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::example::{Example, INT64, Net, int};
use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule = Rule { name: "cast_of_labels", takes: Takes::Labels(cast), example };

fn cast<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Cast"], node)?;
    lowering.is_of_labels(&node.output[0])?;
    if lowering.is_of_labels(input(node, 0)?).is_err() {
        return Err(Refusal::other());
    }
    Ok(Box::new(move |lowering| lowering.tensor(&node.input[0])))
}

impl Lowering<'_> {
    /// Refuses other values than 64-bit integers.
    pub(crate) fn is_of_labels(&self, name: &str) -> Result<(), Refusal> {
        match self.types.get(name) {
            Some(DataType::Int64) => Ok(()),
            _ => Err(self.no_kernel_for(name)),
        }
    }
}

/// Positions that are 64-bit integers already: both names are fixed, or the Cast would be gone before.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let at = net.node("ArgMax", &[&x], &[int("axis", -1)]);
    net.output(&at, INT64);
    let y = net.node("Cast", &[&at], &[int("to", i64::from(INT64))]);
    net.ends_in(&y, INT64)
}
