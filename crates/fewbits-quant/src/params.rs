//! Scales and zero points.

use std::fmt;
use std::str::FromStr;

use half::f16;
use serde::{Deserialize, Serialize};

use crate::{Bits, round_half_even};

/// The parameters of a quantized tensor: one scale, and for affine schemes one zero point, for
/// each parameter of its [`Layout`](crate::Layout).
#[derive(Clone, Debug, PartialEq)]
pub struct QuantParams {
    /// Step between two neighbouring integers, in units of the tensor; positive and normal.
    pub scale: Vec<f32>,
    /// The integer that stands for 0.0; empty when it is 0 everywhere.
    pub zero_point: Vec<u8>,
}

/// The largest integer of a symmetric scheme; 1 for one bit, whose integers are -1 and 1.
pub fn symmetric_max(bits: Bits) -> i16 {
    match bits.get() {
        1 => 1,
        b => (1 << (b - 1)) - 1,
    }
}

/// The largest integer of an affine scheme, whose smallest is 0.
pub fn affine_max(bits: Bits) -> i16 {
    (1 << bits.get()) - 1
}

/// A usable scale: 1 where everything is zero, never subnormal (dividing by a subnormal
/// overflows).
fn scale_of(width: f32, steps: f32) -> f32 {
    if width == 0.0 { 1.0 } else { (width / steps).max(f32::MIN_POSITIVE) }
}

/// Whether the values of a range are so small that the step of 8-bit integers would have to be a
/// subnormal number: with the smallest scale there is, most of them would become zero.
pub fn is_below_scales((low, high): (f32, f32)) -> bool {
    let width = high.max(0.0) - low.min(0.0);
    width > 0.0 && width / 255.0 < f32::MIN_POSITIVE
}

/// The scale of a range with so many steps on either side of zero.
pub(crate) fn symmetric_scale((low, high): (f32, f32), steps: f32) -> f32 {
    scale_of(low.abs().max(high.abs()), steps)
}

/// The scale and the zero point, an integer, of a range with so many steps from end to end.
pub(crate) fn affine_param((low, high): (f32, f32), steps: f32) -> (f32, f32) {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let width = high - low;
    let scale = match width.is_finite() {
        true => scale_of(width, steps),
        // The width overflows where the ends do not.
        false => high / steps - low / steps,
    };
    (scale, round_half_even((-low / scale).clamp(0.0, steps)))
}

/// How scales are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleType {
    /// As floats of 32 bits.
    #[default]
    F32,
    /// As floats of 16 bits, where none of a tensor's scales is too small or too large for them: half
    /// the bytes, at an error of at most a 2048th of each scale.
    F16,
    /// As integers of 8 bits with scales of their own, double quantization: a quarter of the bytes, at
    /// an error of at most a 510th of the largest scale of up to 256.
    U8,
}

impl ScaleType {
    const ALL: [ScaleType; 3] = [ScaleType::F32, ScaleType::F16, ScaleType::U8];

    /// The narrowest float that holds these scales exactly.
    pub fn of(scale: &[f32]) -> ScaleType {
        match scale.iter().all(|&x| f16::from_f32(x).to_f32() == x) {
            true => ScaleType::F16,
            false => ScaleType::F32,
        }
    }
}

impl fmt::Display for ScaleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScaleType::F32 => "f32",
            ScaleType::F16 => "f16",
            ScaleType::U8 => "u8",
        })
    }
}

impl FromStr for ScaleType {
    type Err = String;

    fn from_str(text: &str) -> Result<ScaleType, String> {
        let found = ScaleType::ALL.into_iter().find(|t| t.to_string() == text);
        found.ok_or_else(|| "scales are f32, f16 and u8".to_string())
    }
}

/// Brings scales to 16 bits, all or, where one is too small or too large, none.
pub(crate) fn halve(scale: &mut [f32]) {
    if scale.iter().all(|&x| f16::from_f32(x).is_normal()) {
        scale.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
    }
}

impl QuantParams {
    /// Symmetric parameters: the larger magnitude of each range maps to the largest integer.
    pub fn symmetric(ranges: &[(f32, f32)], bits: Bits) -> QuantParams {
        let steps = f32::from(symmetric_max(bits));
        let scale = ranges.iter().map(|&range| symmetric_scale(range, steps)).collect();
        QuantParams { scale, zero_point: Vec::new() }
    }

    /// Affine parameters: each range, widened to contain 0 so that 0.0 stays exact, maps to all
    /// integers (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    /// Integer-Arithmetic-Only Inference", eq. 1 and section 3.1; ONNX's `DynamicQuantizeLinear`).
    pub fn affine(ranges: &[(f32, f32)], bits: Bits) -> QuantParams {
        let steps = f32::from(affine_max(bits));
        let (scale, zero_point) = ranges
            .iter()
            .map(|&range| affine_param(range, steps))
            .map(|(s, z)| (s, z as u8))
            .unzip();
        QuantParams { scale, zero_point }
    }

    /// The zero point of parameter `param`.
    pub fn zero_point_of(&self, param: usize) -> i16 {
        self.zero_point.get(param).copied().map_or(0, i16::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_tiny_ranges_have_a_usable_scale() {
        for params in [
            QuantParams::symmetric(&[(0.0, 0.0), (-1e-45, 1e-45)], Bits::EIGHT),
            QuantParams::affine(&[(0.0, 0.0), (-1e-45, 1e-45)], Bits::EIGHT),
        ] {
            assert_eq!(params.scale, [1.0, f32::MIN_POSITIVE]);
        }
    }

    #[test]
    fn scales_are_rounded_together_or_not_at_all() {
        let mut scales = [0.1f32, 3.0, 7e-5];
        assert_eq!(ScaleType::of(&scales), ScaleType::F32);
        halve(&mut scales);
        assert_eq!(ScaleType::of(&scales), ScaleType::F16);
        for (rounded, scale) in scales.iter().zip([0.1f32, 3.0, 7e-5]) {
            assert!((rounded - scale).abs() <= scale / 2048.0);
        }
        // 6e-5 would be subnormal, 1e5 infinite.
        for mut scales in [[0.1f32, 6e-5], [0.1, 1e5]] {
            halve(&mut scales);
            assert_eq!(scales[0], 0.1);
        }
    }

    #[test]
    fn ranges_below_the_smallest_scale_are_known() {
        let tiny = f32::MIN_POSITIVE;
        for (range, below) in [
            ((0.0, 0.0), false),
            ((0.0, 1.4e-45), true),
            ((-100.0 * tiny, 100.0 * tiny), true),
            ((-200.0 * tiny, 200.0 * tiny), false),
            ((f32::MIN, f32::MAX), false),
        ] {
            assert_eq!(is_below_scales(range), below, "{range:?}");
        }
    }

    #[test]
    fn the_widest_range_does_not_overflow() {
        let params = QuantParams::affine(&[(f32::MIN, f32::MAX)], Bits::EIGHT);
        assert!(params.scale[0].is_finite());
        assert_eq!(params.zero_point, [128]);
    }

    #[test]
    fn zero_stays_exact_in_one_sided_ranges() {
        let params = QuantParams::affine(&[(2.0, 5.0), (-5.0, -2.0)], Bits::EIGHT);
        assert_eq!(params.zero_point, [0, 255]);
    }
}
