//! From floats to bytes and back.

use serde::{Deserialize, Serialize};

use crate::cpu::per_cpu;
use crate::exact_f32;

/// How real numbers become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizeTo {
    /// What one step of a byte is worth.
    #[serde(with = "exact_f32")]
    pub scale: f32,
    /// The byte of zero.
    pub zero_point: u8,
    /// The least byte: more than 0 where an absorbed Relu or Clip forbids what lies below.
    pub low: u8,
    /// The greatest byte, at least `low`.
    pub high: u8,
}

impl QuantizeTo {
    /// Allows every byte.
    pub fn all_bytes(scale: f32, zero_point: u8) -> QuantizeTo {
        QuantizeTo { scale, zero_point, low: 0, high: 255 }
    }

    /// Computes the byte of `value`, as [`quantize`] has it: for tables made beforehand.
    pub fn byte(self, value: f32) -> u8 {
        self.rounding().byte(value / self.scale)
    }

    #[inline(always)]
    pub(crate) fn rounding(self) -> Rounding {
        Rounding::new(self.zero_point, self.low, self.high)
    }
}

/// How sums of products become bytes: `(sum + bias) * scale`, rounded half to even, plus the zero
/// point, within `to.low..=to.high`.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// One a column of a product or a channel, in steps of input times weight; takes off what the
    /// input's zero point adds.
    pub bias: &'a [i32],
    /// As many: input scale times weight scale over output scale.
    pub scale: &'a [f32],
    /// The bytes that come out; its scale, which is part of `scale`, counts only where other bytes are
    /// added.
    pub to: QuantizeTo,
}

/// The last part of every kernel: a number of steps from zero becomes a byte.
#[derive(Clone, Copy)]
pub(crate) struct Rounding {
    least: f32,
    most: f32,
    zero_point: u8,
}

impl Rounding {
    #[inline(always)]
    pub(super) fn new(zero_point: u8, low: u8, high: u8) -> Rounding {
        let steps = |byte: u8| f32::from(byte) - f32::from(zero_point);
        Rounding { least: steps(low), most: steps(high), zero_point }
    }

    /// Rounds half to even, adds the zero point and saturates. NaN becomes the least byte, as in
    /// onnxruntime.
    #[inline(always)]
    pub(crate) fn byte(self, steps: f32) -> u8 {
        // The bounds are whole, so clamping before rounding is the same as after it. Comparisons
        // instead of f32::clamp: they are one instruction each, which sends NaN to the bound.
        let steps = if steps > self.least { steps } else { self.least };
        let steps = if steps < self.most { steps } else { self.most };
        // Floats of this size are the whole numbers, so the addition rounds; the low byte of
        // the sum is that of the rounded number, since that of the constant is zero.
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
        ((steps + ROUND).to_bits() as u8).wrapping_add(self.zero_point)
    }
}

per_cpu! {
    /// Computes QuantizeLinear: `out[i]` is `input[i] / scale` rounded half to even, plus the zero point,
    /// within `to.low..=to.high`. NaN becomes `to.low`, which is what onnxruntime makes of it.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize(input: &[f32], to: QuantizeTo, out: &mut [u8]) {
        assert_eq!(input.len(), out.len());
        let rounding = to.rounding();
        for (out, &x) in out.iter_mut().zip(input) {
            *out = rounding.byte(x / to.scale);
        }
    }
}

per_cpu! {
    /// Computes DequantizeLinear: `out[i] = (input[i] - zero_point) * scale`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dequantize(input: &[u8], scale: f32, zero_point: u8, out: &mut [f32]) {
        assert_eq!(input.len(), out.len());
        for (out, &q) in out.iter_mut().zip(input) {
            *out = real(q, scale, zero_point);
        }
    }
}

/// What the byte stands for.
#[inline(always)]
pub(crate) fn real(byte: u8, scale: f32, zero_point: u8) -> f32 {
    (i32::from(byte) - i32::from(zero_point)) as f32 * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use proptest::prelude::*;

    /// The definition in double precision, where nothing but the division rounds.
    fn wanted(x: f32, to: QuantizeTo) -> u8 {
        let steps = f64::from(x / to.scale).round_ties_even() + f64::from(to.zero_point);
        steps.clamp(f64::from(to.low), f64::from(to.high)) as u8
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_the_definition(
            input in prop::collection::vec(
                prop_oneof![-700.0f32..700.0, (-600i32..600).prop_map(|i| i as f32 / 2.0), any::<f32>()],
                0..130,
            ),
            scale in prop_oneof![Just(1.0f32), Just(0.5), 1e-6f32..10.0],
            (zero_point, a, b) in any::<(u8, u8, u8)>(),
        ) {
            let to = QuantizeTo { scale, zero_point, low: a.min(b), high: a.max(b) };
            for cpu in Cpu::available() {
                let mut bytes = vec![0; input.len()];
                quantize(cpu, &input, to, &mut bytes);
                for (&byte, &x) in bytes.iter().zip(&input) {
                    let wanted = if x.is_nan() { to.low } else { wanted(x, to) };
                    prop_assert_eq!(byte, wanted, "{} of {:?} on {:?}", x, to, cpu);
                    prop_assert_eq!(to.byte(x), wanted);
                }
                let mut floats = vec![0.0; bytes.len()];
                dequantize(cpu, &bytes, scale, zero_point, &mut floats);
                for (&x, &q) in floats.iter().zip(&bytes) {
                    prop_assert_eq!(x, (f32::from(q) - f32::from(zero_point)) * scale);
                }
            }
        }
    }

    #[test]
    fn extremes_saturate_as_in_onnxruntime() {
        let input = [f32::NAN, f32::INFINITY, -f32::INFINITY, 0.5, 1.5, 2.5, -0.5, -1.5, -0.0];
        for cpu in Cpu::available() {
            let mut bytes = [1; 9];
            quantize(cpu, &input, QuantizeTo::all_bytes(1.0, 7), &mut bytes);
            assert_eq!(bytes, [0, 255, 0, 7, 9, 9, 7, 5, 7]);
        }
    }
}
