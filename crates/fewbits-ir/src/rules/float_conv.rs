//! A convolution of floats with constant weights.

use fewbits_kernels::bytes::Window;
use fewbits_onnx::proto::NodeProto;

use crate::Tensor;
use crate::example::{Example, Net, ints};
use crate::lower::window::{MORE_AXES, window_of};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{FloatConv, Op};
use crate::refusal::{Refusal, check, only};
use crate::rules::matrix::groups;
use crate::view::{ConstantFloats, Factor};

pub(crate) const RULE: Rule = Rule { name: "float_conv", takes: Takes::Floats(conv), example };

/// What a Conv says of itself.
struct Parts<'a> {
    weights: Factor<'a>,
    bias: Option<ConstantFloats<'a>>,
    /// That of the weights: filters, channels of a group, rows and columns of the window.
    shape: [usize; 4],
    groups: usize,
    window: Window,
}

fn conv<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Conv"], node)?;
    let parts = parts(lowering, node)?;
    Ok(Box::new(move |lowering| {
        let Parts { weights, bias, shape, groups, window } = parts;
        let weights = Tensor::new(shape.to_vec(), weights.values());
        let conv = FloatConv {
            weights: weights.expect("an axis of 1 more"),
            bias: bias.map_or(Vec::new(), |bias| bias.values()),
            groups,
            window,
            function: None,
        };
        let input = lowering.tensor(&node.input[0]);
        lowering.step(floats(), &[input], "Conv", node, Op::FloatConv(Box::new(conv)))
    }))
}

/// Finds how a Conv with constant weights moves over images.
fn parts<'a>(lowering: &Lowering<'a>, node: &NodeProto) -> Result<Parts<'a>, Refusal> {
    let weights = lowering.view.factor(node.input.get(1).map_or("", String::as_str));
    let weights = weights.ok_or(Refusal::of_node("its weights are not constant"))?;
    let (shape, rank) = match *weights.shape() {
        [filters, channels, h, w] => ([filters, channels, h, w], 2),
        [filters, channels, w] => ([filters, channels, 1, w], 1),
        _ => return Err(Refusal::of_node(MORE_AXES)),
    };
    check(shape.iter().all(|&d| d > 0), "its weights are empty")?;
    let bias = match node.input.get(2).map_or("", String::as_str) {
        "" => None,
        name => {
            let bias = lowering.view.constant_floats(name).filter(|b| b.shape == [shape[0]]);
            let why = "its bias is not constant, or not one number for each filter";
            Some(bias.ok_or(Refusal::of_node(why))?)
        }
    };
    let window = window_of(node, [shape[2], shape[3]], rank)?;
    let groups = groups(node, shape[0])?;
    Ok(Parts { weights, bias, shape, groups, window })
}

/// Filters that are no multiple of a vector, over images that are padded unevenly.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 3, 7, 6]);
    let (w, bias) = (net.random_floats(&[5, 3, 3, 3]), net.random_floats(&[5]));
    let pads = ints("pads", &[1, 0, 2, 1]);
    let y = net.node("Conv", &[&x, &w, &bias], &[pads]);
    net.ends_in_floats(&y)
}
