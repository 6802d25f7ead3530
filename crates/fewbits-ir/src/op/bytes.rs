//! Operators on bytes.

use fewbits_kernels::bytes::{AddScales, Averaging, Divisor, QuantizeTo, Window};
use fewbits_kernels::float::{Binary, Function};
use serde::{Deserialize, Serialize};

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

/// Pooling of bytes over windows of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BytesPool {
    /// The greatest byte; padding never wins.
    Max {
        /// How windows move.
        window: Window,
        /// The zero point, which fills a halo.
        zero_point: u8,
    },
    /// The average of what the bytes stand for.
    Average {
        /// How windows move.
        window: Window,
        /// What the average is taken of, and how it becomes bytes.
        averaging: Averaging,
    },
}

/// The average of bytes over the spatial axes of `[images, channels, ..]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalAverage {
    /// What it is taken of, and how it becomes bytes.
    pub averaging: Averaging,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}
