//! Operators by what they do with the elements and axes that they read.

use crate::proto::{NodeProto, TensorProto};

/// What an operator does with axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A function of each element alone.
    OfElements,
    /// A function of elements that meet, of any number of values.
    OfPairs,
    /// Images from images, one by one, all else being the same for them.
    OfImages,
    /// A function of more than single elements whose first result has the shape of its first input.
    OfShape,
}

use Kind::{OfElements, OfImages, OfPairs, OfShape};

#[rustfmt::skip]
const KINDS: &[(Kind, &[&str])] = &[
    (OfElements, &[
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu",
        "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
        "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu",
        "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt",
        "Swish", "Tan", "Tanh", "ThresholdedRelu",
    ]),
    (OfPairs, &[
        "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
        "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow",
        "Sub", "Sum", "Where", "Xor",
    ]),
    (OfImages, &[
        "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool",
        "InstanceNormalization", "MaxPool", "QLinearConv",
    ]),
    (OfShape, &[
        "BatchNormalization", "CumSum", "DequantizeLinear", "Dropout", "GroupNormalization", "Hardmax",
        "LRN", "LayerNormalization", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization",
        "QuantizeLinear", "RMSNormalization", "ReverseSequence", "ScatterElements", "ScatterND",
        "Softmax", "Trilu",
    ]),
];

/// Operators that move, compare or convert elements one by one.
#[rustfmt::skip]
const EXACT: &[&str] = &[
    "And", "Cast", "Concat", "Constant", "ConstantOfShape", "Equal", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Greater", "Identity", "Less", "Not", "Or", "Range", "Reshape", "Shape",
    "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
];

/// Operators that only move elements, or give them another type, whatever they are.
const MOVES: &[&str] = &["Cast", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// What a node's operator does with axes, if it is one of those.
pub fn kind(node: &NodeProto) -> Option<Kind> {
    let of = |(_, ops): &&(Kind, &[&str])| ops.contains(&node.op_type());
    KINDS.iter().find(of).filter(|_| node.is_onnx()).map(|(kind, _)| *kind)
}

/// Whether a node does no arithmetic, so that any executor gives the same bits for a row in any batch.
pub fn is_exact(node: &NodeProto) -> bool {
    node.is_onnx() && EXACT.contains(&node.op_type())
}

/// Whether a node moves elements, or gives them another type, and does nothing else.
pub fn moves(node: &NodeProto) -> bool {
    node.is_onnx() && MOVES.contains(&node.op_type())
}

/// What a node does that only moves elements, so that they may be strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Rows of the first input by the second.
    LookedUp,
    /// The input as it is.
    Same,
    /// The first input in the shape that the second holds.
    Reshaped,
    /// Without axes, or with fewer of size 1.
    Flat,
}

/// What a node does to strings, as labels are, if an executor without kernels can do it.
pub fn moved(node: &NodeProto) -> Option<Moved> {
    match node.op_type() {
        _ if !node.is_onnx() => None,
        "Gather" => Some(Moved::LookedUp),
        "Identity" => Some(Moved::Same),
        "Reshape" => Some(Moved::Reshaped),
        "Flatten" | "Squeeze" => Some(Moved::Flat),
        _ => None,
    }
}

/// Whether a node answers otherwise at every call.
pub fn is_random(node: &NodeProto) -> bool {
    let op = node.op_type();
    op.starts_with("Random") || matches!(op, "Bernoulli" | "Multinomial")
}

/// Whether a node quantizes by a scale that is found when it runs, and that a whole batch has in common.
pub fn has_common_scales(node: &NodeProto) -> bool {
    node.op_type().starts_with("DynamicQuantize")
}

/// Whether a node rounds what it computes to few integers.
pub fn rounds_to_integers(node: &NodeProto) -> bool {
    node.op_type().starts_with("Quantize") || node.op_type().starts_with("QLinear")
}

/// Whether a node is a convolution of floats.
pub fn is_convolution(node: &NodeProto) -> bool {
    node.is("Conv")
}

/// The tensor that a node holds and gives, if it is a constant.
pub fn held_tensor(node: &NodeProto) -> Option<&TensorProto> {
    node.tensor("value").filter(|_| node.is("Constant"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_operator_is_of_one_kind() {
        let mut seen = HashSet::new();
        for op in KINDS.iter().flat_map(|(_, ops)| *ops) {
            assert!(seen.insert(op), "{op} twice");
        }
    }

    #[test]
    fn operators_of_others_are_of_no_kind() {
        let own = NodeProto::new("Relu", &["x"], &["y"]);
        assert_eq!(kind(&own), Some(OfElements));
        let foreign = NodeProto { domain: Some("com.acme".into()), ..own };
        assert_eq!(kind(&foreign), None);
    }
}
