//! A convolution of dynamically quantized activations, and the Add of its bias.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, ints};
use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, only};
use crate::rules::dynamic_conv::convolution;

pub(crate) const RULE: Rule =
    Rule { name: "dynamic_conv_bias", takes: Takes::Anywhere(conv_and_bias), example };

fn conv_and_bias<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Add"], node)?;
    let [a, b] = node.input.as_slice() else { return Err(Refusal::other()) };
    with_bias(lowering, a, b, node).or_else(|_| with_bias(lowering, b, a, node))
}

fn with_bias<'a>(
    lowering: &Lowering<'a>,
    sums: &str,
    bias: &str,
    node: &'a NodeProto,
) -> Result<Rewrite<'a>, Refusal> {
    let mul = lowering.view.producer(sums);
    let mul = mul.filter(|(_, n)| n.is("Mul") && lowering.view.has_one_use(sums));
    let (_, mul) = mul.ok_or(Refusal::other())?;
    let chain = lowering.chain(mul)?;
    only(&["ConvInteger"], chain.product)?;
    let rank = chain.weights.tensor.layout().shape().len();
    let columns = chain.scale.len();
    let bias = lowering.of_columns(bias, columns, rank, rank.saturating_sub(2));
    // What is no bias is added to what the chain gives.
    let bias = bias.ok_or(Refusal::other())?;
    convolution(chain, Some(bias), node)
}

/// The same with a number for each filter.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 3, 7, 6]);
    let [q, scale, zero_point] = net.quantized_as_it_comes(&x);
    let w = net.random_codes(&[5, 3, 3, 3]);
    let pads = ints("pads", &[1, 0, 2, 1]);
    let sums = net.node("ConvInteger", &[&q, &w, &zero_point], &[pads]);
    let weight_scale = net.floats(&[], &[0.01]);
    let y = net.scaled(&sums, &scale, &weight_scale);
    let bias = net.random_floats(&[1, 5, 1, 1]);
    let y = net.node("Add", &[&y, &bias], &[]);
    net.ends_in_floats(&y)
}
