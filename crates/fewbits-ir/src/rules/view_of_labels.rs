//! Labels in another shape.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, INT64, Net, int};
use crate::lower::{Lowering, VIEWS};
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule = Rule { name: "view_of_labels", takes: Takes::Labels(view), example };

fn view<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&VIEWS, node)?;
    lowering.is_of_labels(&node.output[0])?;
    let to = lowering.new_shape(node)?;
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[0]);
        lowering.reshape(input, to, node)
    }))
}

/// Positions without the axis along which they were found.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let at = net.node("ArgMax", &[&x], &[int("axis", -1)]);
    let dims = net.ints(&[-1]);
    let y = net.node("Reshape", &[&at, &dims], &[]);
    net.ends_in(&y, INT64)
}
