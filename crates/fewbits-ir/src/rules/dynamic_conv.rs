//! A convolution of dynamically quantized activations, as floats.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, ints};
use crate::lower::window::{kernel_of, window_of};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Activations, Conv, Epilogue, Op, Product};
use crate::program::{Layout, Value};
use crate::refusal::{Refusal, only};
use crate::rules::dynamic::Chain;
use crate::rules::matrix::{groups, has_weights};

pub(crate) const RULE: Rule = Rule { name: "dynamic_conv", takes: Takes::Anywhere(conv), example };

fn conv<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Mul"], node)?;
    let chain = lowering.chain(node)?;
    only(&["ConvInteger"], chain.product)?;
    let (start, product) = (chain.start, chain.product);
    convolution(chain, None, node).map_err(|refusal| refusal.of_both(start, product))
}

/// Computes the convolution of a chain, and adds what is added to each channel.
pub(crate) fn convolution<'a>(
    chain: Chain<'a>,
    offset: Option<Vec<f32>>,
    node: &'a NodeProto,
) -> Result<Rewrite<'a>, Refusal> {
    let Chain { quantize, product, weights, scale, .. } = chain;
    let what = if offset.is_some() { "ConvInteger + Add" } else { "ConvInteger" };
    let shape = weights.tensor.layout().shape();
    let (kernel, rank) = kernel_of(shape)?;
    let window = window_of(product, kernel, rank)?;
    let groups = groups(product, shape[0])?;
    has_weights(&weights)?;
    let product = Product {
        bias: vec![0; scale.len()],
        weights,
        activations: Activations::Dynamic,
        scale,
        epilogue: Epilogue::floats(offset),
    };
    let conv = Conv { product, window, groups };
    Ok(Box::new(move |lowering| {
        let input = lowering.dynamic_bytes(quantize, Layout::IMAGES);
        lowering.widen_halo(input, conv.halo());
        let id = lowering.step(floats(), &[input], what, node, Op::Conv(Box::new(conv)));
        // The floats pixel by pixel, before they become planes.
        lowering.further_output(Value { layout: Layout::RowMajor, ..floats() });
        id
    }))
}

/// Images that are padded unevenly with a zero point which comes with them.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 3, 7, 6]);
    let [q, scale, zero_point] = net.quantized_as_it_comes(&x);
    let w = net.random_codes(&[5, 3, 3, 3]);
    let pads = ints("pads", &[1, 0, 2, 1]);
    let sums = net.node("ConvInteger", &[&q, &w, &zero_point], &[pads]);
    let weight_scale = net.floats(&[], &[0.01]);
    let y = net.scaled(&sums, &scale, &weight_scale);
    net.ends_in_floats(&y)
}
