//! Cast of what are 64-bit integers already.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule = Rule { name: "cast_of_labels", takes: Takes::Labels(cast) };

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
