//! What a model may have computed once for all, since its inputs are constants.

use crate::proto::DataType::{self, Bfloat16, Bool, Double, Float, Float16, Int32, Int64};
use crate::proto::NodeProto;

/// Of integers and of floats.
const NUMBERS: &[&str] = &[
    "Abs",
    "Add",
    "Concat",
    "Div",
    "Expand",
    "Flatten",
    "Gather",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];
/// Of floats alone.
const FLOATS: &[&str] = &[
    "Ceil",
    "Clip",
    "Erf",
    "Exp",
    "Floor",
    "Log",
    "Pow",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceMean",
    "ReduceSumSquare",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Tanh",
];

/// Whether a node is a pure function of its inputs that the float executor computes as ONNX says, for elements
/// of type `from` that become `to`.
pub fn folds(node: &NodeProto, from: DataType, to: DataType) -> bool {
    if !node.is_onnx() {
        return false;
    }
    match node.op_type() {
        "Identity" | "Shape" | "Size" => true,
        "Cast" => is_exact_cast(from, to),
        op if NUMBERS.contains(&op) => matches!(from, Float | Int64 | Int32),
        op if FLOATS.contains(&op) => from == Float,
        _ => false,
    }
}

/// A cast that needs no executor, which has not every type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// The value as it is.
    Same,
    /// Its floats in FLOAT.
    Widened,
}

/// How a node gives what it reads, if it does no more.
pub fn conversion(node: &NodeProto, from: DataType, to: DataType) -> Option<Conversion> {
    match () {
        () if node.is("Identity") => Some(Conversion::Same),
        () if !node.is("Cast") => None,
        () if from == to => Some(Conversion::Same),
        () => (to == Float).then_some(Conversion::Widened),
    }
}

fn is_exact_cast(from: DataType, to: DataType) -> bool {
    let is_float = matches!(from, Float | Float16 | Bfloat16 | Double);
    let is_whole = |data_type| matches!(data_type, Int32 | Int64 | Bool);
    to == Float && (is_float || is_whole(from)) || is_whole(to) && (is_whole(from) || from == Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_same_at_every_call_folds() {
        let fold = |op: &str, from, to| folds(&NodeProto::new(op, &["x"], &["y"]), from, to);
        assert!(fold("Transpose", Int64, Int64));
        assert!(!fold("Transpose", Float16, Float16));
        assert!(fold("Exp", Float, Float));
        assert!(!fold("Exp", Int64, Int64));
        assert!(fold("Cast", Float16, Float));
        assert!(!fold("Cast", Float, Float16));
        assert!(!fold("RandomNormalLike", Float, Float));
        assert!(!fold("Tile", Float, Float));
    }
}
