//! A convolution of dynamically quantized activations, and the Add of its bias.

use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, only};
use crate::rules::dynamic_conv::convolution;

pub(crate) const RULE: Rule =
    Rule { name: "dynamic_conv_bias", takes: Takes::Anywhere(conv_and_bias) };

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
