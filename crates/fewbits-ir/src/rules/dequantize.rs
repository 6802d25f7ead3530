//! The floats that bytes stand for.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Bytes, Lowering, floats};
use crate::lower::{Rule, Takes};
use crate::op::Op;
use crate::program::ValueId;
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule = Rule { name: "dequantize", takes: Takes::FromBytes(dequantize) };

fn dequantize<'a>(lowering: &mut Lowering<'a>, node: &'a NodeProto) -> Result<ValueId, Refusal> {
    only(&["DequantizeLinear"], node)?;
    lowering.byte_type(node)?;
    let Bytes { id, ty } = lowering.source(&node.output[0])?;
    Ok(lowering.step(floats(), &[id], "DequantizeLinear", node, Op::Dequantize(ty.scale)))
}
