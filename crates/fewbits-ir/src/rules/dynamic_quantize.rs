//! DynamicQuantizeLinear by itself is refused: the steps for what reads it take it in.

use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;
use crate::lower::{Rewrite, Rule, Takes};
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule =
    Rule { name: "dynamic_quantize", takes: Takes::Anywhere(dynamic_quantize) };

fn dynamic_quantize<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["DynamicQuantizeLinear"], node)?;
    Err(Refusal::of_values(
        "it is not part of DynamicQuantizeLinear, MatMulInteger or ConvInteger, Cast and Mul by \
         both scales with constant weights",
    ))
}
