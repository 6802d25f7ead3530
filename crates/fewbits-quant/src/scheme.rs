//! How a tensor is represented by few bits.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::FloatFormat;
use crate::scales::{MX_BLOCK, NV_BLOCK};

/// A width of 1 to 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Bits(u8);

impl Bits {
    /// Four bits.
    pub const FOUR: Bits = Bits(4);

    /// Eight bits.
    pub const EIGHT: Bits = Bits(8);

    /// `None` unless `bits` is 1 to 8.
    pub fn new(bits: u8) -> Option<Bits> {
        (1..=8).contains(&bits).then_some(Bits(bits))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Every width, from 1 to 8.
    pub fn all() -> impl Iterator<Item = Bits> {
        (1..=8).map(Bits)
    }
}

impl TryFrom<u8> for Bits {
    type Error = String;

    fn try_from(bits: u8) -> std::result::Result<Bits, String> {
        Bits::new(bits).ok_or_else(|| format!("{bits} bits: widths are 1 to 8"))
    }
}

impl From<Bits> for u8 {
    fn from(bits: Bits) -> u8 {
        bits.0
    }
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Bits, String> {
        let number: u8 =
            text.parse().map_err(|_| format!("'{text}' is not a width; widths are 1 to 8"))?;
        Bits::try_from(number)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Binary digits after the point: 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct FractionBits(u8);

impl FractionBits {
    /// Eight digits, as the notebook has.
    pub const EIGHT: FractionBits = FractionBits(8);

    /// `None` unless `digits` is 1 to 15.
    pub fn new(digits: u8) -> Option<FractionBits> {
        (1..=15).contains(&digits).then_some(FractionBits(digits))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Every number of digits, from 1 to 15.
    pub fn all() -> impl Iterator<Item = FractionBits> {
        (1..=15).map(FractionBits)
    }
}

impl TryFrom<u8> for FractionBits {
    type Error = String;

    fn try_from(digits: u8) -> std::result::Result<FractionBits, String> {
        FractionBits::new(digits)
            .ok_or_else(|| format!("{digits} fractional bits: fixed-point numbers have 1 to 15"))
    }
}

impl From<FractionBits> for u8 {
    fn from(digits: FractionBits) -> u8 {
        digits.0
    }
}

impl fmt::Display for FractionBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_legal_widths_can_be_made() {
        assert_eq!(Bits::new(0), None);
        assert_eq!(Bits::new(9), None);
        assert_eq!(Bits::all().count(), 8);
        assert!("9".parse::<Bits>().is_err());
        assert!("eight".parse::<Bits>().is_err());
        assert_eq!([0, 16].map(FractionBits::new), [None, None]);
        assert_eq!(FractionBits::all().count(), 15);
    }
}
