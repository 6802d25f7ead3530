//! The table of element types: a row an operator, an entry an output.
//!
//! After the specification of ONNX's operators. What is not listed is unknown, never guessed.

use super::gives::Gives;
use super::ml;
use super::nbits::is_mat_mul_n_bits;
use crate::proto::DataType::{self, Bool, Float, Int32, Int64};
use crate::proto::NodeProto;

/// Inputs of one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alike {
    /// Each input has its own.
    None,
    /// All have the same.
    All,
    /// Those of each group have the same.
    Groups(&'static [&'static [usize]]),
}

/// What an operator takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    /// Which inputs agree.
    pub alike: Alike,
    /// Inputs of certain types.
    pub types: &'static [(usize, &'static [DataType])],
}

/// Operators, what each output is, the last entry standing for all that follow, and which inputs agree.
type Line = (&'static [&'static str], &'static [Gives], Alike);

use Alike::{All, Groups, None as Each};
use Gives::{Constant, Input, Is, Says, SaysOr, SaysOrInput, TensorOr, Unknown, ZeroPoint};

const FIRST: &[Gives] = &[Input(0)];

#[rustfmt::skip]
const LINES: &[Line] = &[
    // One value in, one of its type out; further inputs are sizes, axes and positions.
    (&[
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "BitwiseNot", "Ceil",
        "Celu", "Compress", "Cos", "Cosh", "CumProd", "CumSum", "DepthToSpace", "Det", "Elu", "Erf",
        "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu",
        "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Hardmax",
        "Identity", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "LpPool",
        "MeanVarianceNormalization", "Mish", "Neg", "Pow", "Reciprocal", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "Round", "Selu",
        "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Slice", "Softmax", "Softplus", "Softsign",
        "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile",
        "Transpose", "Trilu", "Unsqueeze", "Upsample",
    ], FIRST, Each),
    // All inputs and the output of one type.
    (&[
        "Add", "AffineGrid", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Concat",
        "Conv", "ConvTranspose", "Div", "Einsum", "Gemm", "GroupNormalization",
        "InstanceNormalization", "MatMul", "Max", "MaxRoiPool", "Mean", "Min", "Mod", "Mul", "PRelu",
        "Range", "Sub", "Sum",
    ], FIRST, All),
    // Comparisons and logic.
    (&["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"], &[Is(Bool)], All),
    (&["IsInf", "IsNaN", "Not"], &[Is(Bool)], Each),
    // Positions and counts.
    (&["ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "Shape", "Size"], &[Is(Int64)], Each),
    (&["MaxPool", "TopK", "Unique"], &[Input(0), Is(Int64)], Each),
    // Values of one type beside positions or conditions.
    (&["Dropout"], &[Input(0), Is(Bool)], Each),
    (&["Where"], &[Input(1)], Groups(&[&[1, 2]])),
    (&["OneHot"], &[Input(2)], Each),
    (&["Pad", "Scatter", "ScatterElements", "ScatterND"], FIRST, Groups(&[&[0, 2]])),
    (&["CenterCropPad", "Col2Im", "MaxUnpool"], FIRST, Each),
    (&["TensorScatter"], FIRST, Groups(&[&[0, 1]])),
    (&["GridSample", "RoiAlign"], FIRST, Each),
    (&["DeformConv"], FIRST, All),
    // Normalizations: scales and means may have types of their own.
    (&["BatchNormalization"], &[Input(0), Input(3), Input(4), Unknown], Groups(&[&[1, 2], &[3, 4]])),
    (&["LayerNormalization"], &[Input(0), SaysOr("stash_type", Float)], All),
    (&["RMSNormalization"], &[Input(1)], Each),
    // Layers with states.
    (&["LSTM"], FIRST, Groups(&[&[0, 1, 2, 3, 5, 6, 7]])),
    (&["GRU", "RNN"], FIRST, Groups(&[&[0, 1, 2, 3, 5]])),
    // Types that attributes say.
    (&["Cast", "BitCast"], &[Says("to")], Each),
    (&["CastLike"], &[Input(1)], Each),
    (&["Constant"], &[Constant], Each),
    (&["ConstantOfShape"], &[TensorOr("value", Float)], Each),
    (&["RandomNormal", "RandomUniform"], &[SaysOr("dtype", Float)], Each),
    (&["Bernoulli", "EyeLike", "RandomNormalLike", "RandomUniformLike"], &[SaysOrInput("dtype", 0)], Each),
    (&["Multinomial"], &[SaysOr("dtype", Int32)], Each),
    (&["BlackmanWindow", "HammingWindow", "HannWindow"], &[SaysOr("output_datatype", Float)], Each),
    (&["MelWeightMatrix"], &[SaysOr("output_datatype", Float)], Each),
    (&["DFT", "STFT"], FIRST, Each),
    // Integers that stand for floats.
    (&["QuantizeLinear"], &[ZeroPoint], Each),
    (&["DequantizeLinear"], &[SaysOrInput("output_dtype", 1)], Groups(&[&[0, 2]])),
    (&["DynamicQuantizeLinear"], &[Is(DataType::Uint8), Is(Float), Is(DataType::Uint8)], Each),
    (&["MatMulInteger", "ConvInteger"], &[Is(Int32)], Groups(&[&[0, 2], &[1, 3]])),
    (&["QLinearMatMul"], &[Input(7)], Groups(&[&[0, 2], &[3, 5]])),
    (&["QLinearConv"], &[Input(7)], Groups(&[&[0, 2], &[3, 5]])),
    // Sequences, optionals, text and graphs inside.
    (&["If", "Loop", "Scan", "SequenceAt", "SequenceMap", "OptionalGetElement"], &[Unknown], Each),
];

/// What inputs must be, where one type or a few are all that is allowed. From opset 19 on
/// `QuantizeLinear` takes halves, too, with scales of their type.
const BYTES: &[DataType] = &[DataType::Int8, DataType::Uint8];
const SINGLE: &[DataType] = &[Float];
const QUANTIZED_BEFORE_19: &[DataType] = &[Float, Int32];
const QUANTIZED: &[DataType] = &[Float, Int32, DataType::Float16, DataType::Bfloat16];

/// What an operator gives; none where it is not in the table.
pub(super) fn gives(node: &NodeProto) -> Option<&'static [Gives]> {
    line(node).map(|&(_, gives, _)| gives).or_else(|| ml::gives(node))
}

/// What an operator takes at an opset; none where it is not in the table.
pub(super) fn takes(node: &NodeProto, opset: i64) -> Option<Takes> {
    let &(_, _, alike) = line(node)?;
    let types: &[(usize, &[DataType])] = match node.op_type() {
        "QuantizeLinear" if opset < 19 => &[(0, QUANTIZED_BEFORE_19), (1, SINGLE)],
        "QuantizeLinear" => &[(0, QUANTIZED), (1, QUANTIZED)],
        "DequantizeLinear" if opset < 19 => &[(1, SINGLE)],
        "DynamicQuantizeLinear" => &[(0, SINGLE)],
        "MatMulInteger" | "ConvInteger" => &[(0, BYTES), (1, BYTES)],
        _ => &[],
    };
    let alike = match node.op_type() {
        // Halves have scales of their type; from opset 23 on the scale may have another.
        "QuantizeLinear" if (19..23).contains(&opset) => Groups(&[&[0, 1]]),
        // Parameters of another type came with opset 14.
        "BatchNormalization" if opset < 14 => All,
        _ => alike,
    };
    Some(Takes { alike, types })
}

/// Every operator that has a row.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    LINES.iter().flat_map(|(ops, ..)| ops.iter().copied())
}

fn line(node: &NodeProto) -> Option<&'static Line> {
    const MICROSOFT_PRODUCT: Line = (&["MatMulNBits"], FIRST, Each);
    if is_mat_mul_n_bits(node) {
        return Some(&MICROSOFT_PRODUCT);
    }
    LINES.iter().find(|(ops, ..)| node.is_onnx() && ops.contains(&node.op_type()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_operator_has_one_row() {
        let mut seen = HashSet::new();
        for op in LINES.iter().flat_map(|(ops, ..)| *ops) {
            assert!(seen.insert(op), "{op} twice");
        }
    }

    #[test]
    fn what_is_not_known_has_no_row() {
        let foreign =
            NodeProto { domain: Some("x".into()), ..NodeProto::new("Add", &["a"], &["b"]) };
        assert!(gives(&foreign).is_none());
        assert!(gives(&NodeProto::new("StringNormalizer", &["a"], &["b"])).is_none());
    }
}
