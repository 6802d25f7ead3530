//! MaxPool and AveragePool of floats.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, ints};
use crate::lower::window::{divisor, pool_window};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{FloatPool, FloatPooling, Op};
use crate::refusal::Refusal;

pub(crate) const RULE: Rule = Rule { name: "float_pool", takes: Takes::Floats(pool), example };

fn pool<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let window = pool_window(node)?;
    let pooling = match node.is("MaxPool") {
        true => FloatPooling::Max,
        false => FloatPooling::Average(divisor(node)),
    };
    Ok(Box::new(move |lowering| {
        let input = lowering.tensor(&node.input[0]);
        let op = Op::FloatPool(FloatPool { window, pooling });
        lowering.step(floats(), &[input], node.op_type(), node, op)
    }))
}

/// Windows that reach over some edges of the images.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 3, 7, 6]);
    let attributes = [ints("kernel_shape", &[3, 2]), ints("pads", &[1, 0, 2, 1])];
    let y = net.node("MaxPool", &[&x], &attributes);
    net.ends_in_floats(&y)
}
