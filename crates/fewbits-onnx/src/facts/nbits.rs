//! `MatMulNBits` of `com.microsoft`, ONNX Runtime's product of floats by packed integers.

use crate::MICROSOFT;
use crate::proto::NodeProto;

/// Tells whether a node is such a product.
pub fn is_mat_mul_n_bits(node: &NodeProto) -> bool {
    node.op_type() == "MatMulNBits" && node.domain() == MICROSOFT
}

/// Finds the name of the scales that such a node reads.
pub fn scales_of_mat_mul_n_bits(node: &NodeProto) -> Option<&String> {
    node.input.get(2).filter(|_| is_mat_mul_n_bits(node))
}
