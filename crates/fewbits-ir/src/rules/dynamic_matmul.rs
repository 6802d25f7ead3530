//! A product of dynamically quantized activations and a matrix, as floats.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Activations, Epilogue, Op, Product};
use crate::program::Layout;
use crate::refusal::{Refusal, check, only};
use crate::rules::dynamic::Chain;
use crate::rules::matrix::has_weights;

pub(crate) const RULE: Rule =
    Rule { name: "dynamic_matmul", takes: Takes::Anywhere(matmul), example };

fn matmul<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["Mul"], node)?;
    let chain = lowering.chain(node)?;
    only(&["MatMulInteger"], chain.product)?;
    let (start, product) = (chain.start, chain.product);
    rewrite(chain, node).map_err(|refusal| refusal.of_both(start, product))
}

fn rewrite<'a>(chain: Chain<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let Chain { quantize, weights, scale, .. } = chain;
    check(weights.tensor.layout().shape().len() == 2, "its weights are no matrix")?;
    has_weights(&weights)?;
    let product = Product {
        bias: vec![0; scale.len()],
        weights,
        activations: Activations::Dynamic,
        scale,
        epilogue: Epilogue::floats(None),
    };
    Ok(Box::new(move |lowering| {
        let input = lowering.dynamic_bytes(quantize, Layout::RowMajor);
        let op = Op::MatMul(Box::new(product));
        lowering.step(floats(), &[input], "MatMulInteger", node, op)
    }))
}

/// Rows and columns that are no multiple of a vector.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let [q, scale, zero_point] = net.quantized_as_it_comes(&x);
    let w = net.random_codes(&[37, 21]);
    let sums = net.node("MatMulInteger", &[&q, &w, &zero_point], &[]);
    let weight_scale = net.floats(&[], &[0.01]);
    let y = net.scaled(&sums, &scale, &weight_scale);
    net.ends_in_floats(&y)
}
