//! What pooling makes of the pixels of a window.

use super::quantize::{QuantizeTo, Rounding};

/// One rule; each channel of a window has a sum.
pub(super) trait Pool {
    type Sum: Copy + Default;
    fn take(sum: &mut Self::Sum, byte: u8);
    /// What follows from the number of pixels, once a window.
    fn multiplier(&self, pixels: usize) -> f32;
    fn finish(&self, sum: Self::Sum, pixels: usize, multiplier: f32) -> u8;
}

pub(super) struct Max;

impl Pool for Max {
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
    pub(super) fn new(
        from_scale: f32,
        zero_point: u8,
        to: QuantizeTo,
        taps: Option<usize>,
    ) -> Average {
        let (zero_point, rounding) = (i32::from(zero_point), to.rounding());
        Average { from_scale, zero_point, to_scale: to.scale, rounding, taps }
    }
}

impl Pool for Average {
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
