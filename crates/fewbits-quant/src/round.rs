//! The one rounding rule of fewbits.

/// Rounds half to even, as IEEE 754, ONNX and numpy do (`f32::round` rounds half away from zero).
///
/// Defined for magnitudes up to 2^22; callers clamp to their integer range first. NaN stays NaN.
///
/// Adding 1.5 * 2^23 pushes the fraction out of the mantissa, and the addition itself rounds half
/// to even. Unlike `f32::round_ties_even` this needs no instruction beyond SSE2, so loops over it
/// are vectorized on every CPU.
#[inline]
pub fn round_half_even(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let cases = [
            (0.5, 0.0),
            (1.5, 2.0),
            (2.5, 2.0),
            (-0.5, 0.0),
            (-1.5, -2.0),
            (126.5, 126.0),
            (127.5, 128.0),
        ];
        for (x, expected) in cases {
            assert_eq!(round_half_even(x), expected, "{x}");
        }
        assert!(round_half_even(f32::NAN).is_nan());
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(x in -4_194_304f32..=4_194_304f32) {
            prop_assert_eq!(round_half_even(x), x.round_ties_even());
        }

        #[test]
        fn agrees_on_exact_halves(n in -100_000i32..100_000) {
            let x = n as f32 / 2.0;
            prop_assert_eq!(round_half_even(x), x.round_ties_even());
        }
    }
}
