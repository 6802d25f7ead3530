//! How a tensor is represented by few bits.

use std::fmt;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::{Bits, FloatFormat, FractionBits};

/// Elements of a block of the MX formats.
pub const MX_BLOCK: usize = 32;
/// Elements of a block of NVFP4.
pub const NV_BLOCK: usize = 16;

/// Which elements of a tensor share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// Those with the same index on `axis`, usually the axis of output channels.
    Channel {
        /// The axis, counted from 0.
        axis: usize,
    },
    /// Runs of `size` elements along `axis`, usually the axis that a product sums over. The last
    /// run is shorter when `size` does not divide the axis.
    Group {
        /// The axis, counted from 0.
        axis: usize,
        /// Elements that share a scale.
        size: NonZeroUsize,
    },
}

/// How a tensor of floats is represented by integers, or by small floats.
///
/// A float `x` is approximated by `(q - zero_point) * scale`, as ONNX's `DequantizeLinear`
/// defines it; small floats have no zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// `q` in `0 ..= 2^bits - 1` with a zero point: uses the whole range of lopsided values.
    Affine {
        /// Width of the integers.
        bits: Bits,
        /// What shares a scale.
        granularity: Granularity,
    },
    /// `q` in `-(2^(bits-1) - 1) ..= 2^(bits-1) - 1`, no zero point. One bit is the sign, times the
    /// mean magnitude.
    Symmetric {
        /// Width of the integers.
        bits: Bits,
        /// What shares a scale.
        granularity: Granularity,
    },
    /// `round(x * 2^fraction_bits)`: the scale is known beforehand, the width of the integers
    /// follows from the values.
    FixedPoint {
        /// Binary digits after the point.
        fraction_bits: FractionBits,
    },
    /// `q` a small float; the scale maps the largest magnitude to the largest number.
    Float {
        /// Which one.
        format: FloatFormat,
        /// What shares a scale.
        granularity: Granularity,
    },
    /// `q` a small float, with a power of two for every 32 elements along `axis`: the OCP
    /// Microscaling formats.
    Mx {
        /// Which one.
        format: FloatFormat,
        /// The axis, counted from 0.
        axis: usize,
    },
    /// `q` an E2M1 float, with an E4M3 scale for every 16 elements along `axis`, and one scale of
    /// those: NVFP4.
    #[serde(rename = "nvfp4")]
    NvFp4 {
        /// The axis, counted from 0.
        axis: usize,
    },
}

impl Scheme {
    /// The same with 7 bits, where integers of 8 are asked for.
    pub(crate) fn of_seven_bits(self) -> Option<Scheme> {
        let bits = Bits::new(7)?;
        match self {
            Scheme::Affine { bits: Bits::EIGHT, granularity } => {
                Some(Scheme::Affine { bits, granularity })
            }
            Scheme::Symmetric { bits: Bits::EIGHT, granularity } => {
                Some(Scheme::Symmetric { bits, granularity })
            }
            _ => None,
        }
    }

    /// What shares a scale. A fixed-point tensor has one scale.
    pub fn granularity(self) -> Granularity {
        let blocks = |axis, size| Granularity::Group {
            axis,
            size: NonZeroUsize::new(size).expect("blocks have elements"),
        };
        match self {
            Scheme::Affine { granularity, .. }
            | Scheme::Symmetric { granularity, .. }
            | Scheme::Float { granularity, .. } => granularity,
            Scheme::FixedPoint { .. } => Granularity::Tensor,
            Scheme::Mx { axis, .. } => blocks(axis, MX_BLOCK),
            Scheme::NvFp4 { axis } => blocks(axis, NV_BLOCK),
        }
    }

    /// The bits of an element; `None` for fixed point, where they follow from the values.
    pub fn bits(self) -> Option<Bits> {
        match self {
            Scheme::Affine { bits, .. } | Scheme::Symmetric { bits, .. } => Some(bits),
            Scheme::FixedPoint { .. } => None,
            Scheme::Float { format, .. } | Scheme::Mx { format, .. } => Some(format.bits()),
            Scheme::NvFp4 { .. } => Some(FloatFormat::E2m1.bits()),
        }
    }

    /// The small floats that elements become; `None` where they become integers.
    pub fn float_format(self) -> Option<FloatFormat> {
        match self {
            Scheme::Affine { .. } | Scheme::Symmetric { .. } | Scheme::FixedPoint { .. } => None,
            Scheme::Float { format, .. } | Scheme::Mx { format, .. } => Some(format),
            Scheme::NvFp4 { .. } => Some(FloatFormat::E2m1),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheme::Affine { bits, .. } => write!(f, "affine {bits}-bit, ")?,
            Scheme::Symmetric { bits, .. } => write!(f, "symmetric {bits}-bit, ")?,
            Scheme::FixedPoint { fraction_bits } => {
                return write!(f, "fixed-point, {fraction_bits} fractional bits");
            }
            Scheme::Float { format, .. } => write!(f, "{format}, ")?,
            Scheme::Mx { format, .. } => write!(f, "{}, ", format.mx_name())?,
            Scheme::NvFp4 { .. } => write!(f, "nvfp4, ")?,
        }
        match self.granularity() {
            Granularity::Tensor => write!(f, "per tensor"),
            Granularity::Channel { axis } => write!(f, "per channel (axis {axis})"),
            Granularity::Group { axis, size } => write!(f, "groups of {size} (axis {axis})"),
        }
    }
}
