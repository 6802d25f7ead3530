//! Col2Im, which the other executor lacks.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, tensor};
use crate::lower::window::sizes_of;
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Col2Im, Op};
use crate::refusal::{Refusal, check, input, only};

pub(crate) const RULE: Rule = Rule { name: "col2im", takes: Takes::Anywhere(col2im), example };

fn col2im<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Col2Im"], node)?;
    let names = [input(node, 0)?, input(node, 1)?, input(node, 2)?];
    check(lowering.is_float(names[0]), "its columns are no floats")?;
    let op = Col2Im::new(
        sizes_of(node, "pads")?,
        sizes_of(node, "strides")?,
        sizes_of(node, "dilations")?,
    );
    Ok(Box::new(move |lowering| {
        let inputs = names.map(|name| lowering.tensor(name));
        lowering.step(floats(), &inputs, "Col2Im", node, Op::Col2Im(op))
    }))
}

/// Two blocks that meet in a column of the image.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed(tensor(&[1, 4, 2], vec![1_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    let (image, block) = (net.ints(&[2, 3]), net.ints(&[2, 2]));
    let y = net.node("Col2Im", &[&x, &image, &block], &[]);
    net.gives(&y, tensor(&[1, 1, 2, 3], vec![1_f32, 5.0, 4.0, 5.0, 13.0, 8.0]))
}
