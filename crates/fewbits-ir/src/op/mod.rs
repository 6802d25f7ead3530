//! What a step computes, as plain data.
//!
//! An operator holds all that its arithmetic needs but the values: these go by position, as a step
//! lists them. How the elements of a value lie in memory is not its concern.

mod bytes;
mod floats;
mod integers;
mod movement;
mod product;
mod resize;
mod subgraph;

use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::DataType;
use serde::{Deserialize, Serialize};

pub use bytes::{
    ByteScale, BytesBinary, BytesOperator, BytesPool, DequantizedBinary, GlobalAverage, Lut,
};
pub use floats::{
    Attention, FloatConv, FloatMatMul, FloatPool, FloatPooling, Gather, Heads, MatMulConstant,
    Matrix, Norm, NormKind, Order, Permutation, Reduce, Reduction,
};
pub use integers::{
    ConvInteger, CumSum, CumSumOf, From, IntegerBinary, MatMulInteger, Padding, SumOfIntegers,
    WindowAxis, WindowsOfAnyRank, ZeroPoints,
};
pub use movement::{Concat, NewShape, Transpose};
pub use product::{Activations, AddBytes, Conv, Epilogue, OutputAxis, Product, Weights};
pub use resize::{
    AspectRatio, Coordinates, Filter, Interpolation, Nearest, Outside, Resize, Target,
};
pub use subgraph::Subgraph;

/// One thing to compute.
///
/// "Bytes" are activations of 8 bits with a scale and a zero point, unsigned whatever ONNX's type is:
/// signed ones are shifted by 128, and so is their zero point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Floats to bytes: QuantizeLinear.
    Quantize(ByteScale),
    /// Floats to bytes whose scale and zero point follow from them: DynamicQuantizeLinear.
    DynamicQuantize,
    /// Bytes to floats: DequantizeLinear.
    Dequantize(ByteScale),
    /// Bytes to a tensor of INT8 or UINT8, as ONNX has it.
    GiveOut(#[serde(with = "crate::stored::data_type")] DataType),
    /// The same bytes in another layout; what fills a halo.
    ChangeLayout(u8),
    /// A function of each byte.
    Lut(Lut),
    /// Bytes times a constant matrix.
    MatMul(Box<Product>),
    /// A convolution of bytes with constant weights.
    Conv(Box<Conv>),
    /// The sum or product of bytes, as bytes.
    BytesBinary(BytesBinary),
    /// An operator on the floats that bytes stand for, and a function of its result.
    DequantizedBinary(DequantizedBinary),
    /// The greatest byte or the average of each window.
    BytesPool(BytesPool),
    /// The average over the spatial axes of bytes.
    GlobalAverage(GlobalAverage),
    /// Elements of several values along an axis.
    Concat(Concat),
    /// Axes in another order.
    Transpose(Transpose),
    /// The same elements in another shape.
    Reshape(NewShape),
    /// A function of each float.
    Function(Function),
    /// An operator on two floats.
    Binary(Binary),
    /// LayerNormalization or RMSNormalization over the last axis.
    Norm(Norm),
    /// Softmax over the last axis.
    Softmax,
    /// A sum, mean or maximum over the last axes.
    Reduce(Reduce),
    /// A convolution of floats with constant weights.
    FloatConv(Box<FloatConv>),
    /// The greatest float or the average of each window.
    FloatPool(FloatPool),
    /// Floats times a constant matrix.
    MatMulConstant(Box<MatMulConstant>),
    /// The product of two floats.
    FloatMatMul(FloatMatMul),
    /// softmax(q kᵀ · scale + mask) v.
    Attention(Attention),
    /// Rows of a constant table.
    Gather(Gather),
    /// Resize of floats.
    Resize(Resize),
    /// Numbers as others: integers as floats, floats as 64-bit integers, floats rounded to halves.
    Cast(#[serde(with = "crate::stored::data_type")] DataType),
    /// An operator on two 64-bit integers.
    IntegerBinary(IntegerBinary),
    /// Sums of 64-bit integers.
    SumOfIntegers(SumOfIntegers),
    /// Running sums of 64-bit integers.
    CumSum(CumSum),
    /// The position of the greatest float of each row, the first of equal ones; the axis stays, of size
    /// 1, if told.
    ArgMax {
        /// Whether the last axis stays, of size 1.
        keep_axis: bool,
    },
    /// 1 where a float is above the threshold, 0 elsewhere: Greater and Cast.
    Threshold(f32),
    /// The constant at each position.
    Labels(Vec<i64>),
    /// MatMulInteger: int32 sums.
    MatMulInteger(MatMulInteger),
    /// ConvInteger: int32 sums.
    ConvInteger(ConvInteger),
    /// A part of the model that another executor runs.
    Fallback(Box<Subgraph>),
}

impl Op {
    /// Whether it only brings a value into the form in which an operator on integers reads it.
    pub fn converts(&self) -> bool {
        matches!(self, Op::Quantize(_) | Op::DynamicQuantize | Op::ChangeLayout(_) | Op::GiveOut(_))
    }

    /// Whether every CPU gives the same bits.
    pub fn is_exact(&self) -> bool {
        match self {
            Op::Fallback(subgraph) => subgraph.is_exact,
            _ => true,
        }
    }

    /// Whether the output may lie where the first input lies.
    pub fn shares_memory(&self) -> bool {
        matches!(self, Op::Reshape(_))
    }
}
