//! Floats in another shape.

use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::Refusal;

pub(crate) const RULE: Rule = Rule { name: "float_view", takes: Takes::Floats(view) };

fn view<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let to = lowering.new_shape(node)?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[0]);
        lowering.reshape(input, to, node)
    }))
}
