//! Operators on bytes, element by element.

use fewbits_kernels::Cpu;
use fewbits_kernels::bytes::{
    AddScales, Averaging, Divisor, QuantizeTo, dynamic_parameters, min_max,
};
use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::DataType;
use serde::{Deserialize, Serialize};

use super::{Computed, f32s, floats, shape, u8s};
use crate::shape::Broadcast;
use crate::{Result, Tensor, Values};

/// The scale and zero point of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByteScale {
    /// What a step is worth.
    #[serde(with = "fewbits_kernels::exact_f32")]
    pub scale: f32,
    /// The byte of zero.
    pub zero_point: u8,
}

impl ByteScale {
    /// The float that a byte stands for: `(byte - zero_point) * scale`.
    pub fn float(self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero_point)) * self.scale
    }

    /// That of the bytes that come out.
    pub fn of(to: QuantizeTo) -> ByteScale {
        ByteScale { scale: to.scale, zero_point: to.zero_point }
    }

    /// An average of such bytes, as bytes.
    pub fn averaging(self, divisor: Divisor, to: QuantizeTo) -> Averaging {
        let ByteScale { scale: from_scale, zero_point: from_zero_point } = self;
        Averaging { divisor, from_scale, from_zero_point, to }
    }

    /// The bytes of floats, all of them allowed.
    pub fn all_bytes(self) -> QuantizeTo {
        QuantizeTo::all_bytes(self.scale, self.zero_point)
    }
}

/// A table of what becomes of each byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lut {
    /// By the byte.
    #[serde(with = "crate::stored::table")]
    pub table: Box<[u8; 256]>,
    /// The zero point of what comes out, which fills a halo.
    pub zero_point: u8,
}

/// What is done with two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BytesOperator {
    /// Their sum.
    Add,
    /// Their product.
    Mul,
}

/// The sum or product of the floats that bytes stand for, as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BytesBinary {
    /// What is done with them.
    pub operator: BytesOperator,
    /// What the bytes stand for, and those that come out.
    pub scales: AddScales,
}

/// An operator on the floats that bytes stand for, and a function of its result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DequantizedBinary {
    /// What the bytes of both inputs stand for.
    pub scales: [ByteScale; 2],
    /// What is done with them.
    pub operation: Binary,
    /// What follows.
    pub function: Option<Function>,
}

pub(super) fn quantize(tensor: &Tensor, scale: ByteScale) -> Result<Tensor> {
    let to = scale.all_bytes();
    each(tensor, f32s(tensor)?, |&x| to.byte(x))
}

pub(super) fn dynamic_quantize(tensor: &Tensor) -> Result<Computed> {
    let (least, most) = min_max(Cpu::SCALAR, f32s(tensor)?);
    let (scale, zero_point) = dynamic_parameters(least, most);
    let scale = ByteScale { scale, zero_point };
    Ok(Computed { tensor: quantize(tensor, scale)?, dynamic: Some(scale) })
}

pub(super) fn dequantize(tensor: &Tensor, scale: ByteScale) -> Result<Tensor> {
    each(tensor, u8s(tensor)?, |&q| scale.float(q))
}

pub(super) fn give_out(tensor: &Tensor, data_type: DataType) -> Result<Tensor> {
    match data_type {
        DataType::Int8 => each(tensor, u8s(tensor)?, |&q| (q ^ 0x80) as i8),
        _ => Ok(tensor.clone()),
    }
}

pub(super) fn look_up(tensor: &Tensor, lut: &Lut) -> Result<Tensor> {
    each(tensor, u8s(tensor)?, |&q| lut.table[usize::from(q)])
}

fn each<T, O>(tensor: &Tensor, elements: &[T], function: impl Fn(&T) -> O) -> Result<Tensor>
where
    Values: From<Vec<O>>,
{
    Tensor::new(tensor.shape().to_vec(), elements.iter().map(function).collect::<Vec<O>>())
}

pub(super) fn binary(op: &BytesBinary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let scales = op.scales;
    let of_a = ByteScale { scale: scales.a_scale, zero_point: scales.a_zero_point };
    let of_b = ByteScale { scale: scales.b_scale, zero_point: scales.b_zero_point };
    let to = shape(a)?.broadcast(shape(b)?)?;
    let at = [Broadcast::new(shape(a)?, to), Broadcast::new(shape(b)?, to)];
    let (a, b) = (u8s(a)?, u8s(b)?);
    let byte = |i: usize| {
        let (a, b) = (of_a.float(a[at[0].at(i)]), of_b.float(b[at[1].at(i)]));
        scales.to.byte(match op.operator {
            BytesOperator::Add => a + b,
            BytesOperator::Mul => a * b,
        })
    };
    Tensor::new(to.dims().to_vec(), (0..to.len()).map(byte).collect::<Vec<u8>>())
}

pub(super) fn dequantized_binary(op: &DequantizedBinary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (dequantize(a, op.scales[0])?, dequantize(b, op.scales[1])?);
    let result = floats::binary(op.operation, &a, &b)?;
    match op.function {
        Some(function) => floats::function(function, &result),
        None => Ok(result),
    }
}
