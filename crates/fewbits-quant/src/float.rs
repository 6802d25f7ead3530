//! Floats of 4 and 8 bits.
//!
//! Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1 (E4M3 and E5M2), and the OCP
//! Microscaling Formats (MX) Specification v1.0, section 5 (E2M1; E8M0, for scales alone).
//! Rounded to nearest, ties to even, saturating: what ONNX's `Cast` and `QuantizeLinear` do with
//! `saturate = 1`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bits, round_half_even};

/// A float of few bits: a sign, an exponent and a mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatFormat {
    /// 4 bits of exponent, 3 of mantissa, up to 448; no infinities (`FLOAT8E4M3FN`).
    E4m3,
    /// 5 bits of exponent, 2 of mantissa, up to 57,344 (`FLOAT8E5M2`).
    E5m2,
    /// 2 bits of exponent, 1 of mantissa, up to 6; neither infinities nor NaN (`FLOAT4E2M1`).
    E2m1,
}

impl FloatFormat {
    /// All of them.
    pub const ALL: [FloatFormat; 3] = [FloatFormat::E4m3, FloatFormat::E5m2, FloatFormat::E2m1];

    /// Its name in blocks with a power of two: the MX formats.
    pub fn mx_name(self) -> &'static str {
        match self {
            FloatFormat::E4m3 => "mxfp8-e4m3",
            FloatFormat::E5m2 => "mxfp8-e5m2",
            FloatFormat::E2m1 => "mxfp4",
        }
    }

    /// Bits of one number.
    pub fn bits(self) -> Bits {
        match self {
            FloatFormat::E4m3 | FloatFormat::E5m2 => Bits::EIGHT,
            FloatFormat::E2m1 => Bits::FOUR,
        }
    }

    /// The largest finite number.
    pub fn largest(self) -> f32 {
        match self {
            FloatFormat::E4m3 => 448.0,
            FloatFormat::E5m2 => 57_344.0,
            FloatFormat::E2m1 => 6.0,
        }
    }

    /// The exponent of the largest number, `emax` of the MX specification.
    pub fn largest_exponent(self) -> i32 {
        match self {
            FloatFormat::E4m3 => 8,
            FloatFormat::E5m2 => 15,
            FloatFormat::E2m1 => 2,
        }
    }

    /// The exponent of the smallest normal number.
    fn smallest_exponent(self) -> i32 {
        match self {
            FloatFormat::E4m3 => -6,
            FloatFormat::E5m2 => -14,
            FloatFormat::E2m1 => 0,
        }
    }

    /// Bits of the mantissa that are stored.
    fn mantissa_bits(self) -> i32 {
        match self {
            FloatFormat::E4m3 => 3,
            FloatFormat::E5m2 => 2,
            FloatFormat::E2m1 => 1,
        }
    }

    /// The smallest positive number.
    pub fn smallest(self) -> f32 {
        power_of_two(self.smallest_exponent() - self.mantissa_bits())
    }

    /// The bits of the number nearest to a finite `x`, of two as near the one with an even mantissa;
    /// those of the largest number where `x` is beyond it. Zero keeps its sign.
    #[inline]
    pub fn encode(self, x: f32) -> u8 {
        let (magnitude, mantissa_bits) = (x.abs().min(self.largest()), self.mantissa_bits());
        // Subnormal numbers have the step of the smallest normal ones.
        let exponent = exponent_of(magnitude).max(self.smallest_exponent());
        // Exact: the step is a power of two.
        let steps = round_half_even(magnitude * power_of_two(mantissa_bits - exponent));
        // Counted in codes from zero on, the leading one of a normal number is that of its
        // exponent: a carry out of the mantissa goes to the next binade.
        let binade = (exponent - self.smallest_exponent()) << mantissa_bits;
        let sign = if x.is_sign_negative() { 1 << (self.bits().get() - 1) } else { 0 };
        (binade + steps as i32) as u8 | sign
    }

    /// The number of these bits; of 4 bits the lower ones are read.
    pub fn decode(self, code: u8) -> f32 {
        let (sign_bit, mantissa_bits) = (1u8 << (self.bits().get() - 1), self.mantissa_bits());
        let magnitude = i32::from(code & (sign_bit - 1));
        let (exponent, mantissa) =
            (magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1));
        let step = self.smallest_exponent() - mantissa_bits;
        let value = match (self, exponent, mantissa) {
            (FloatFormat::E4m3, 15, 7) | (FloatFormat::E5m2, 31, 1..) => f32::NAN,
            (FloatFormat::E5m2, 31, 0) => f32::INFINITY,
            (_, 0, _) => mantissa as f32 * power_of_two(step),
            _ => (mantissa + (1 << mantissa_bits)) as f32 * power_of_two(step + exponent - 1),
        };
        if code & sign_bit != 0 { -value } else { value }
    }
}

impl fmt::Display for FloatFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FloatFormat::E4m3 => "fp8-e4m3",
            FloatFormat::E5m2 => "fp8-e5m2",
            FloatFormat::E2m1 => "fp4-e2m1",
        })
    }
}

/// The power of two of an E8M0 scale; NaN for 255.
pub(crate) fn power_of_code(code: u8) -> f32 {
    match code {
        // 2^-127 is subnormal.
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        code => f32::from_bits(u32::from(code) << 23),
    }
}

/// `floor(log2 |x|)`, of what is subnormal that of the smallest normal number.
#[inline]
pub(crate) fn exponent_of(x: f32) -> i32 {
    ((x.to_bits() >> 23) as i32 & 0xff).max(1) - 127
}

/// `2^exponent`, which must be a normal number.
#[inline]
pub(crate) fn power_of_two(exponent: i32) -> f32 {
    debug_assert!((-126..=127).contains(&exponent), "2^{exponent} is not normal");
    f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The finite numbers of a format by their definition, in order of magnitude.
    fn numbers(format: FloatFormat) -> Vec<f32> {
        let codes = 0..1u16 << (format.bits().get() - 1);
        codes.map(|code| format.decode(code as u8)).filter(|x| x.is_finite()).collect()
    }

    #[test]
    fn formats_have_the_numbers_of_their_specification() {
        assert_eq!(numbers(FloatFormat::E2m1), [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        for (format, count, smallest) in
            [(FloatFormat::E4m3, 127, 2f32.powi(-9)), (FloatFormat::E5m2, 124, 2f32.powi(-16))]
        {
            let numbers = numbers(format);
            assert_eq!((numbers.len(), numbers[1]), (count, smallest));
            assert_eq!(format.smallest(), smallest);
            assert!(numbers.is_sorted());
        }
        for format in FloatFormat::ALL {
            assert_eq!(*numbers(format).last().unwrap(), format.largest());
            assert_eq!(exponent_of(format.largest()), format.largest_exponent());
        }
        assert!(FloatFormat::E4m3.decode(0x7f).is_nan() && FloatFormat::E5m2.decode(0xfd).is_nan());
        assert_eq!(FloatFormat::E5m2.decode(0xfc), f32::NEG_INFINITY);
    }

    #[test]
    fn numbers_keep_their_bits() {
        for format in FloatFormat::ALL {
            for code in 0..=(1u16 << format.bits().get()) - 1 {
                let x = format.decode(code as u8);
                if x.is_finite() {
                    assert_eq!(u16::from(format.encode(x)), code, "{format} {x}");
                }
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_what_is_too_large_saturates() {
        for (x, expected) in
            [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0)]
        {
            assert_eq!(FloatFormat::E2m1.decode(FloatFormat::E2m1.encode(x)), expected, "{x}");
        }
        for format in FloatFormat::ALL {
            for x in [f32::MAX, 1.01 * format.largest()] {
                assert_eq!(format.decode(format.encode(x)), format.largest());
                assert_eq!(format.decode(format.encode(-x)), -format.largest());
            }
            assert_eq!(format.decode(format.encode(f32::from_bits(1))), 0.0);
        }
    }

    #[test]
    fn scales_are_powers_of_two() {
        assert_eq!([1, 127, 254].map(power_of_code), [2f32.powi(-126), 1.0, 2f32.powi(127)]);
        assert_eq!(f64::from(power_of_code(0)), 2f64.powi(-127));
        assert!(power_of_code(255).is_nan());
    }

    proptest! {
        #[test]
        fn the_nearest_number_is_taken(fraction in -1.2f32..1.2, shift in 0i32..24, kind in 0usize..3) {
            let format = FloatFormat::ALL[kind];
            let x = fraction * format.largest() * 0.5f32.powi(shift);
            let (code, numbers) = (format.encode(x), numbers(format));
            let found = format.decode(code);
            let distance = |n: f32| (f64::from(x.abs()) - f64::from(n)).abs();
            let least = numbers.iter().map(|&n| distance(n)).fold(f64::INFINITY, f64::min);
            prop_assert_eq!(distance(found.abs()), least, "{} became {}", x, found);
            prop_assert_eq!(found.is_sign_negative(), x.is_sign_negative());
            if numbers.iter().filter(|&&n| distance(n) == least).count() == 2 {
                prop_assert_eq!(code & 1, 0, "{} became {}", x, found);
            }
        }
    }
}
