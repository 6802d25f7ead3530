//! DynamicQuantizeLinear by itself is refused: the steps for what reads it take it in.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, UINT8};
use crate::lower::{Rule, Takes};
use crate::refusal::Refusal;

pub(crate) const RULE: Rule =
    Rule { name: "dynamic_quantize", takes: Takes::Nothing(dynamic_quantize), example };

fn dynamic_quantize(node: &NodeProto) -> Refusal {
    if !node.is("DynamicQuantizeLinear") {
        return Refusal::other();
    }
    Refusal::of_values(
        "it is not part of DynamicQuantizeLinear, MatMulInteger or ConvInteger, Cast and Mul by \
         both scales with constant weights",
    )
}

/// Bytes that nothing multiplies.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let [q, ..] = net.quantized_as_it_comes(&x);
    net.ends_in(&q, UINT8)
}
