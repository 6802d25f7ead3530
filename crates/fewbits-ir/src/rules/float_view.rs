//! Floats in another shape.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::Refusal;

pub(crate) const RULE: Rule = Rule { name: "float_view", takes: Takes::Floats(view), example };

fn view<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let to = lowering.new_shape(node)?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[0]);
        lowering.reshape(input, to, node)
    }))
}

/// Rows of other rows.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 5, 7]);
    let dims = net.ints(&[-1, 7]);
    let y = net.node("Reshape", &[&x, &dims], &[]);
    net.ends_in_floats(&y)
}
