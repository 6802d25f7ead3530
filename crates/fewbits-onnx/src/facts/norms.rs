//! Norms: what they scale and shift by.

use crate::proto::NodeProto;

/// Operators that scale and shift what they normalize by constants, those of ONNX Runtime among them.
const NORMS: [&str; 7] = [
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
];

/// The inputs that scale and shift what a layer norm gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleAndShift {
    /// The scale: the deviation of each channel.
    pub scale: usize,
    /// The shift, which may be absent: the mean of each channel.
    pub shift: usize,
}

/// Whether a node is a norm of any kind.
pub(super) fn is_norm(node: &NodeProto) -> bool {
    NORMS.contains(&node.op_type())
}

/// The scale and the shift of a node that takes the mean off the last axes and divides them by their deviation.
pub fn layer_norm(node: &NodeProto) -> Option<ScaleAndShift> {
    node.is("LayerNormalization").then_some(ScaleAndShift { scale: 1, shift: 2 })
}
