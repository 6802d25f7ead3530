//! Operators that onnxruntime's optimizer fuses.

use super::axes::Along;
use crate::MICROSOFT;
use crate::proto::NodeProto;

/// Along what a weight lies that an operator reads which may have to stay fused; such a weight is written behind
/// operators that give its floats.
pub(super) fn weight(node: &NodeProto, input: usize) -> Option<Along> {
    if node.domain() != MICROSOFT {
        return None;
    }
    let along = |channel, reduction| Some(Along { channel: Some(channel), reduction });
    match (node.op_type(), input) {
        ("Attention", 1) => along(1, 0),
        ("FusedConv", 1) | ("EmbedLayerNormalization", 2..=4) => along(0, 1),
        ("FusedGemm" | "FusedMatMul" | "TransposeMatMul", 1) if node.int("transB", 0) == 0 => {
            along(-1, -2)
        }
        ("FusedGemm" | "FusedMatMul" | "TransposeMatMul", 1) => along(-2, -1),
        _ => None,
    }
}
