//! Loops over slices: maps, and reductions in an order that no vector width changes.

/// How many partial results a reduction keeps: two vectors of AVX-512, four of AVX2, so that
/// several additions are under way at once.
const LANES: usize = 32;

/// Replaces every value by `function` of it.
#[inline(always)]
pub fn each(values: &mut [f32], function: impl Fn(f32) -> f32) {
    for value in values {
        *value = function(*value);
    }
}

/// The sum of `term` of all values, where `term` of `zero` is 0.
#[inline(always)]
pub fn sum(values: &[f32], zero: f32, term: impl Fn(f32) -> f32) -> f32 {
    let lanes = into_lanes(values, 0.0, zero, |sum, x| sum + term(x));
    fold(lanes, |a, b| a + b)
}

/// The largest value that is not NaN, or -inf.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(into_lanes(values, f32::NEG_INFINITY, f32::NEG_INFINITY, larger), larger)
}

/// Joins value number `i` into lane `i % LANES`, first to last. A ragged end is filled up with
/// `padding`.
#[inline(always)]
fn into_lanes(
    values: &[f32],
    start: f32,
    padding: f32,
    join: impl Fn(f32, f32) -> f32,
) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, value);
        }
    }
    if !rest.is_empty() {
        // Lanes that are indexed by a variable would leave the registers, in the loop above too.
        let mut chunk = [padding; LANES];
        chunk[..rest.len()].copy_from_slice(rest);
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, value);
        }
    }
    lanes
}

/// Joins lane `i` with lane `i + width` for widths of 16, 8, 4, 2 and 1.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{SIZES, noise};

    #[test]
    fn reductions_take_in_every_value_once() {
        for len in SIZES {
            let values: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            assert_eq!(sum(&values, 0.0, |x| x), (len * (len + 1) / 2) as f32);
            assert_eq!(largest(&values), len as f32);
            let negative: Vec<f32> = values.iter().map(|x| -x).collect();
            assert_eq!(largest(&negative), -1.0);
        }
    }

    #[test]
    fn nothing_sums_to_zero_and_has_no_largest() {
        assert_eq!(sum(&[], 0.0, |x| x), 0.0);
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
        assert_eq!(largest(&[f32::NAN, 1.0]), 1.0);
    }

    #[test]
    fn padding_counts_as_nothing() {
        let values = noise(37, 1);
        let wanted: f64 = values.iter().map(|&x| (f64::from(x) - 5.0).powi(2)).sum();
        let got = f64::from(sum(&values, 5.0, |x| (x - 5.0) * (x - 5.0)));
        assert!((got / wanted - 1.0).abs() < 1e-6);
    }
}
