//! Bytes as ONNX has them, for what is no step of ours.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::example::{Example, INT8, Net, Scale};
use crate::lower::{Bytes, Lowering, floats};
use crate::lower::{Rule, Takes};
use crate::op::Op;
use crate::program::ValueId;
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule = Rule { name: "give_out", takes: Takes::FromBytes(give_out), example };

/// Gives the bytes of a QuantizeLinear: what is before it is computed once, so that it may be fused.
fn give_out<'a>(lowering: &mut Lowering<'a>, node: &'a NodeProto) -> Result<ValueId, Refusal> {
    only(&["QuantizeLinear"], node)?;
    let Bytes { id, ty } = lowering.quantized(&node.output[0])?;
    let data_type = if ty.signed { DataType::Int8 } else { DataType::Uint8 };
    Ok(lowering.step(floats(), &[id], "QuantizeLinear", node, Op::GiveOut(data_type)))
}

/// Signed bytes, which are unsigned ones inside.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let q = net.quantize(&x, Scale::SIGNED);
    net.ends_in(&q, INT8)
}
