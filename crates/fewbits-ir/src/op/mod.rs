//! What steps compute: as plain data, and what it means, one kind a file.
//!
//! An operator holds all that its arithmetic needs but the values: these go by position, as a step
//! lists them. How the elements of a value lie in memory is not its concern.
//!
//! [`Op::compute`] is the plain version of every operator, to the bit: without threads and vectors, on
//! values that lie as ONNX orders them. What a kernel computes in floats it computes at its plain level.
//!
//! The rule of arithmetic: add up exactly in int32, convert to f32, multiply once, round half to even, add
//! the zero point, saturate. Where element by element a graph of DequantizeLinear, a float operator and
//! QuantizeLinear is replaced, its float operations are done in its order.

mod bytes;
mod col2im;
mod cum_prod;
mod det;
mod floats;
mod integer_products;
mod integers;
mod matrices;
mod movement;
mod non_max_suppression;
mod product;
mod resize;
mod roi_align;
mod subgraph;
mod windows;

use std::ops::RangeInclusive;

use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::DataType;
use serde::{Deserialize, Serialize};

use crate::shape::Shape;
use crate::{Result, RuntimeError, Tensor, Values};

pub use bytes::{ByteScale, BytesBinary, BytesOperator, DequantizedBinary, Lut};
pub use col2im::Col2Im;
pub use cum_prod::CumProd;
pub use floats::{Norm, NormKind, Reduce, Reduction};
pub use integer_products::{
    ConvInteger, MatMulInteger, Padding, WindowAxis, WindowsOfAnyRank, ZeroPoints,
};
pub use integers::{CumSum, CumSumOf, From, IntegerBinary, SumOfIntegers, arg_max, labels};
pub use matrices::{
    Attention, FloatMatMul, Gather, Heads, MatMulConstant, Matrix, Order, Permutation, row_of,
};
pub use movement::{Concat, NewShape, Transpose};
pub use non_max_suppression::{Boxes, NonMaxSuppression};
pub use product::{Activations, AddBytes, Conv, Epilogue, OutputAxis, Product, Weights};
pub use resize::{
    AspectRatio, Coordinates, Filter, Interpolation, Nearest, Outside, Resize, Target,
};
pub use roi_align::{Pixels, RoiAlign, RoiPooling};
pub use subgraph::Subgraph;
pub use windows::{BytesPool, FloatConv, FloatPool, FloatPooling, GlobalAverage};

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
    /// Running products.
    CumProd(CumProd),
    /// Boxes that overlap no better one.
    NonMaxSuppression(NonMaxSuppression),
    /// Features of images inside regions.
    RoiAlign(RoiAlign),
    /// The determinants of matrices.
    Det,
    /// Blocks of images added up.
    Col2Im(Col2Im),
    /// MatMulInteger: int32 sums.
    MatMulInteger(MatMulInteger),
    /// ConvInteger: int32 sums.
    ConvInteger(ConvInteger),
    /// A part of the model that another executor runs.
    Fallback(Box<Subgraph>),
}

/// A value as it is computed. Bytes of an activation are UINT8.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// The elements.
    pub tensor: Tensor,
    /// What the bytes of a dynamically quantized activation stand for.
    pub dynamic: Option<ByteScale>,
}

impl std::convert::From<Tensor> for Computed {
    fn from(tensor: Tensor) -> Computed {
        Computed { tensor, dynamic: None }
    }
}

/// Another executor, which computes the subgraphs that are left to it.
pub type Fallback<'a> = &'a dyn Fn(&Subgraph, &[Tensor]) -> Result<Vec<Tensor>>;

/// Refuses subgraphs that are left to another executor.
///
/// # Errors
/// Always.
pub fn no_fallback(subgraph: &Subgraph, _: &[Tensor]) -> Result<Vec<Tensor>> {
    Err(RuntimeError::Run { reason: format!("no executor for {subgraph:?}") })
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

    /// How many values it reads.
    pub fn inputs(&self) -> RangeInclusive<usize> {
        match self {
            Op::MatMul(product) => product.inputs(),
            Op::Conv(conv) => conv.product.inputs(),
            Op::BytesBinary(_)
            | Op::DequantizedBinary(_)
            | Op::Binary(_)
            | Op::FloatMatMul(_)
            | Op::IntegerBinary(_)
            | Op::CumProd(_) => 2..=2,
            Op::Resize(_) => 2..=3,
            Op::NonMaxSuppression(_) => 2..=5,
            Op::RoiAlign(_) | Op::Col2Im(_) => 3..=3,
            Op::Attention(_) => 3..=4,
            Op::MatMulInteger(product) => product.inputs(),
            Op::ConvInteger(conv) => conv.inputs(),
            Op::Concat(_) => 1..=usize::MAX,
            Op::Fallback(subgraph) => subgraph.inputs.len()..=subgraph.inputs.len(),
            _ => 1..=1,
        }
    }

    /// How many values it gives, those on the way included.
    pub fn outputs(&self) -> RangeInclusive<usize> {
        match self {
            Op::MatMul(product) => product.outputs(),
            // Floats of images may have a place of their own before their channels are planes.
            Op::Conv(conv) if matches!(conv.product.epilogue, Epilogue::Floats { .. }) => 1..=2,
            Op::Conv(conv) => conv.product.outputs(),
            Op::Fallback(subgraph) => subgraph.outputs.len()..=subgraph.outputs.len(),
            _ => 1..=1,
        }
    }

    /// Computes one operator: its output, then what it computes on the way.
    ///
    /// # Errors
    /// If the inputs do not fit it.
    pub fn compute(&self, inputs: &[&Computed], fallback: Fallback) -> Result<Vec<Computed>> {
        let tensor = match self {
            Op::DynamicQuantize => return Ok(vec![bytes::dynamic_quantize(input(inputs, 0)?)?]),
            Op::MatMul(product) => return product::matmul(product, inputs),
            Op::Conv(conv) => return product::conv(conv, inputs),
            Op::Fallback(subgraph) => {
                let tensors: Vec<Tensor> = inputs.iter().map(|one| one.tensor.clone()).collect();
                let outputs = fallback(subgraph, &tensors)?;
                return Ok(outputs.into_iter().map(|tensor| tensor.widened().into()).collect());
            }
            // Only where it lies changes.
            Op::ChangeLayout(_) => input(inputs, 0)?.clone(),
            Op::Quantize(scale) => bytes::quantize(input(inputs, 0)?, *scale)?,
            Op::Dequantize(scale) => bytes::dequantize(input(inputs, 0)?, *scale)?,
            Op::GiveOut(data_type) => bytes::give_out(input(inputs, 0)?, *data_type)?,
            Op::Lut(lut) => bytes::look_up(input(inputs, 0)?, lut)?,
            Op::BytesBinary(op) => bytes::binary(op, input(inputs, 0)?, input(inputs, 1)?)?,
            Op::DequantizedBinary(op) => {
                bytes::dequantized_binary(op, input(inputs, 0)?, input(inputs, 1)?)?
            }
            Op::BytesPool(pool) => windows::bytes_pool(pool, input(inputs, 0)?)?,
            Op::GlobalAverage(average) => windows::global_average(average, input(inputs, 0)?)?,
            Op::Concat(concat) => movement::concat(concat, inputs)?,
            Op::Transpose(transpose) => {
                movement::transpose(input(inputs, 0)?, &transpose.permutation)?
            }
            Op::Reshape(to) => {
                let tensor = input(inputs, 0)?;
                tensor.clone().reshaped(to.of(shape(tensor)?)?.dims().to_vec())?
            }
            Op::Function(function) => floats::function(*function, input(inputs, 0)?)?,
            Op::Binary(operation) => {
                floats::binary(*operation, input(inputs, 0)?, input(inputs, 1)?)?
            }
            Op::Norm(norm) => floats::norm(norm, input(inputs, 0)?)?,
            Op::Softmax => floats::softmax(input(inputs, 0)?)?,
            Op::Reduce(reduce) => {
                let tensor = input(inputs, 0)?;
                let (width, to) = reduce.shapes(shape(tensor)?)?;
                let mut out = vec![0.0; to.len()];
                reduce.reduce(f32s(tensor)?, width, &mut out);
                Tensor::new(to.dims().to_vec(), out)?
            }
            Op::FloatConv(conv) => windows::float_conv(conv, input(inputs, 0)?)?,
            Op::FloatPool(pool) => windows::float_pool(pool, input(inputs, 0)?)?,
            Op::MatMulConstant(product) => matrices::matmul_constant(product, input(inputs, 0)?)?,
            Op::FloatMatMul(product) => {
                matrices::float_matmul(product, input(inputs, 0)?, input(inputs, 1)?)?
            }
            Op::Attention(attention) => matrices::attention(attention, inputs)?,
            Op::Gather(gather) => matrices::gather(gather, input(inputs, 0)?)?,
            Op::Resize(op) => {
                let (tensor, told) = (input(inputs, 0)?, input(inputs, 1)?);
                let told = match op.target {
                    Target::Scales => resize::Told::Scales(f32s(told)?),
                    Target::Sizes(aspect) => resize::Told::Sizes(i64s(told)?, aspect),
                };
                let part = inputs.get(2).map(|part| f32s(&part.tensor)).transpose()?;
                let (values, to) = resize::resize(op, f32s(tensor)?, shape(tensor)?, told, part)?;
                Tensor::new(to.dims().to_vec(), values)?
            }
            Op::Cast(to) => input(inputs, 0)?.clone().cast(*to)?.widened(),
            Op::IntegerBinary(operator) => {
                let (left, right) = (input(inputs, 0)?, input(inputs, 1)?);
                let to = shape(left)?.broadcast(shape(right)?)?;
                let values = match operator {
                    IntegerBinary::PowOfFloats => integers::Right::Floats(f32s(right)?),
                    _ => integers::Right::Ints(i64s(right)?),
                };
                let (left, right) = ((i64s(left)?, shape(left)?), (values, shape(right)?));
                let mut out = vec![0; to.len()];
                integers::integer_binary(*operator, left, right, to, &mut out)?;
                Tensor::new(to.dims().to_vec(), out)?
            }
            Op::SumOfIntegers(sum) => {
                let tensor = input(inputs, 0)?;
                let (to, full) = sum.shapes(shape(tensor)?)?;
                let mut out = vec![0; to.len()];
                SumOfIntegers::sum(i64s(tensor)?, shape(tensor)?, full, &mut out);
                Tensor::new(to.dims().to_vec(), out)?
            }
            Op::CumSum(sum) => {
                let tensor = input(inputs, 0)?;
                let mut out = vec![0; tensor.len()];
                sum.run(i64s(tensor)?, shape(tensor)?, &mut out)?;
                Tensor::new(tensor.shape().to_vec(), out)?
            }
            Op::ArgMax { keep_axis } => {
                let tensor = input(inputs, 0)?;
                let from = shape(tensor)?;
                let mut dims = from.dims().to_vec();
                dims.pop();
                dims.extend(keep_axis.then_some(1));
                let mut out = vec![0; from.rows()];
                integers::arg_max(f32s(tensor)?, from.last(), &mut out)?;
                Tensor::new(dims, out)?
            }
            Op::Threshold(threshold) => {
                let tensor = input(inputs, 0)?;
                let above = f32s(tensor)?.iter().map(|&x| i64::from(x > *threshold));
                Tensor::new(tensor.shape().to_vec(), above.collect::<Vec<i64>>())?
            }
            Op::Labels(labels) => {
                let tensor = input(inputs, 0)?;
                let mut out = vec![0; tensor.len()];
                integers::labels(labels, i64s(tensor)?, &mut out)?;
                Tensor::new(tensor.shape().to_vec(), out)?
            }
            Op::CumProd(op) => op.compute(input(inputs, 0)?, input(inputs, 1)?)?,
            Op::NonMaxSuppression(op) => {
                let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
                op.compute(&tensors)?
            }
            Op::RoiAlign(op) => {
                let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
                op.compute(&tensors)?
            }
            Op::Det => det::det(input(inputs, 0)?)?,
            Op::Col2Im(op) => {
                let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
                op.compute(&tensors)?
            }
            Op::MatMulInteger(product) => {
                let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
                integer_products::matmul_integer(product, &tensors)?
            }
            Op::ConvInteger(conv) => {
                let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
                integer_products::conv_integer(conv, &tensors)?
            }
        };
        Ok(vec![tensor.into()])
    }
}

fn input<'a>(inputs: &[&'a Computed], at: usize) -> Result<&'a Tensor> {
    let missing = || RuntimeError::Run { reason: format!("a step has no input {at}") };
    Ok(&inputs.get(at).ok_or_else(missing)?.tensor)
}

fn shape(tensor: &Tensor) -> Result<Shape> {
    Shape::new(tensor.shape())
}

fn wrong_type(tensor: &Tensor, wanted: DataType) -> RuntimeError {
    RuntimeError::Cast { from: tensor.data_type(), to: wanted }
}

fn f32s(tensor: &Tensor) -> Result<&[f32]> {
    match tensor.values() {
        Values::F32(values) => Ok(values),
        _ => Err(wrong_type(tensor, DataType::Float)),
    }
}

fn u8s(tensor: &Tensor) -> Result<&[u8]> {
    match tensor.values() {
        Values::U8(values) => Ok(values),
        _ => Err(wrong_type(tensor, DataType::Uint8)),
    }
}

fn i64s(tensor: &Tensor) -> Result<&[i64]> {
    match tensor.values() {
        Values::I64(values) => Ok(values),
        _ => Err(wrong_type(tensor, DataType::Int64)),
    }
}

fn refused(reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Run { reason: reason.into() }
}
