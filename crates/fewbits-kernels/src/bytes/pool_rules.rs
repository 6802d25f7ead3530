//! What pooling makes of the pixels of a window.

use serde::{Deserialize, Serialize};

use super::quantize::{QuantizeTo, Rounding};
use crate::exact_f32;

/// What the sum over a window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// The number of pixels in the image (`count_include_pad = 0`).
    PixelsInside,
    /// The number of taps; those outside count as zeros (`count_include_pad = 1`).
    AllTaps,
}

/// What an average is taken of, and how it becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Averaging {
    /// What the sum over a window is divided by.
    pub divisor: Divisor,
    /// The scale of the bytes that come in.
    #[serde(with = "exact_f32")]
    pub from_scale: f32,
    /// Their zero point.
    pub from_zero_point: u8,
    /// How averages become bytes.
    pub to: QuantizeTo,
}

/// One rule; each channel of a window has a sum.
pub(super) trait PoolRule {
    type Sum: Copy + Default;
    fn take(sum: &mut Self::Sum, byte: u8);
    /// What follows from the number of pixels, once a window.
    fn multiplier(&self, pixels: usize) -> f32;
    fn finish(&self, sum: Self::Sum, pixels: usize, multiplier: f32) -> u8;
}

pub(super) struct Max;

impl PoolRule for Max {
    type Sum = u8;

    #[inline(always)]
    fn take(sum: &mut u8, byte: u8) {
        *sum = byte.max(*sum);
    }

    #[inline(always)]
    fn multiplier(&self, _: usize) -> f32 {
        1.0
    }

    #[inline(always)]
    fn finish(&self, sum: u8, _: usize, _: f32) -> u8 {
        sum
    }
}

pub(super) struct Average {
    from_scale: f32,
    zero_point: i32,
    to_scale: f32,
    rounding: Rounding,
    taps: Option<usize>,
}

impl Average {
    #[inline(always)]
    pub(super) fn new(by: Averaging, kernel: [usize; 2]) -> Average {
        let taps = match by.divisor {
            Divisor::PixelsInside => None,
            Divisor::AllTaps => Some(kernel[0] * kernel[1]),
        };
        let (zero_point, rounding) = (i32::from(by.from_zero_point), by.to.rounding());
        Average { from_scale: by.from_scale, zero_point, to_scale: by.to.scale, rounding, taps }
    }
}

impl PoolRule for Average {
    type Sum = i32;

    #[inline(always)]
    fn take(sum: &mut i32, byte: u8) {
        *sum = sum.wrapping_add(i32::from(byte));
    }

    #[inline(always)]
    fn multiplier(&self, pixels: usize) -> f32 {
        self.from_scale / self.taps.unwrap_or(pixels.max(1)) as f32 / self.to_scale
    }

    #[inline(always)]
    fn finish(&self, sum: i32, pixels: usize, multiplier: f32) -> u8 {
        let sum = sum.wrapping_sub(self.zero_point.wrapping_mul(pixels as i32));
        self.rounding.byte(sum as f32 * multiplier)
    }
}
