//! Scales that follow from the data.

use crate::cpu::per_cpu;

per_cpu! {
    /// Finds the least and the greatest number, passing over NaN; zeros if there is none.
    pub fn min_max(input: &[f32]) -> (f32, f32) {
        // Independent lanes, since the compiler may not reorder comparisons of floats itself.
        const LANES: usize = 64;
        let mut least = [f32::INFINITY; LANES];
        let mut most = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = input.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                least[i] = if chunk[i] < least[i] { chunk[i] } else { least[i] };
                most[i] = if chunk[i] > most[i] { chunk[i] } else { most[i] };
            }
        }
        let least = least.iter().chain(rest).fold(f32::INFINITY, |a, &b| if b < a { b } else { a });
        let most = most.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if least <= most { (least, most) } else { (0.0, 0.0) }
    }
}

/// Computes the scale and zero point that DynamicQuantizeLinear chooses for numbers in `min..=max`.
///
/// The range is extended to hold zero. If it is zero alone the scale is 1, as in onnxruntime;
/// the specification divides by zero there.
pub fn dynamic_parameters(min: f32, max: f32) -> (f32, u8) {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = if max == min { 1.0 } else { (max - min) / 255.0 };
    let zero_point = (0.0 - min / scale).clamp(0.0, 255.0).round_ties_even();
    (scale, zero_point as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn least_and_greatest(input in prop::collection::vec(-1e9f32..1e9, 1..300)) {
            let least = input.iter().copied().fold(f32::INFINITY, f32::min);
            let most = input.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for cpu in Cpu::available() {
                prop_assert_eq!(min_max(cpu, &input), (least, most));
            }
        }
    }

    #[test]
    fn nothing_and_nan_give_zeros() {
        for cpu in Cpu::available() {
            assert_eq!(min_max(cpu, &[]), (0.0, 0.0));
            assert_eq!(min_max(cpu, &[f32::NAN; 70]), (0.0, 0.0));
            assert_eq!(min_max(cpu, &[f32::NAN, 2.0]), (2.0, 2.0));
        }
    }

    #[test]
    fn parameters_are_those_of_onnxruntime() {
        for (min, max, scale_bits, zero_point) in [
            (0.0, 0.0, 1065353216, 0),
            (1.0, 3.0, 1010876609, 0),
            (-3.0, -1.0, 1010876609, 255),
            (-1.0, 2.0, 1010876609, 85),
            (-0.7, 3.3, 1015054465, 45),
            (5.5, 5.5, 1018212529, 0),
            (-1e-45, 0.0, 0, 255),
            (-1.5, 253.5, 1065353216, 2),
            (-2.5, 252.5, 1065353216, 2),
        ] {
            let (scale, zero) = dynamic_parameters(min, max);
            assert_eq!((scale.to_bits(), zero), (scale_bits, zero_point), "{min}..={max}");
        }
    }
}
