//! The floats that bytes stand for.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, Scale};
use crate::lower::{Bytes, Lowering, floats};
use crate::lower::{Rule, Takes};
use crate::op::Op;
use crate::program::ValueId;
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule =
    Rule { name: "dequantize", takes: Takes::FromBytes(dequantize), example };

fn dequantize<'a>(lowering: &mut Lowering<'a>, node: &'a NodeProto) -> Result<ValueId, Refusal> {
    only(&["DequantizeLinear"], node)?;
    lowering.byte_type(node)?;
    let Bytes { id, ty } = lowering.source(&node.output[0])?;
    Ok(lowering.step(floats(), &[id], "DequantizeLinear", node, Op::Dequantize(ty.scale)))
}

/// Bytes that are not centred.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 37], Scale::UNSIGNED);
    net.ends_in_floats(&x)
}
