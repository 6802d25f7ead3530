//! The least squared error: what is lost by cutting off against what is lost by rounding.
//!
//! The trade-off is that of Sung et al. 2015, "Resiliency of Deep Neural Networks under
//! Quantization", and of Banner et al. 2019, "Post Training 4-bit Quantization of Convolutional
//! Networks for Rapid-Deployment" (ACIQ), section 3, where a distribution is assumed and rounding
//! costs `step^2 / 12`. Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for
//! Efficient Inference" (OMSE), minimise it over the values themselves; here over their histogram,
//! the values of a bin taken to be spread evenly. That tells, too, that values far below a step
//! lose only what they are.

use std::f32::consts::FRAC_1_SQRT_2;

use super::Levels;
use crate::Observer;

/// The finer search: what the ends are multiplied by is `1 + i * size`, for these sizes in turn and
/// `i` from -2 to 2.
const SIZES: [f32; 3] = [0.15, 0.06, 0.025];

/// The range of least expected error; `None` if nothing finite was seen. Zero is in it.
///
/// The two ends are searched together, since each decides the step of both: by half octaves down
/// to a 64th of the whole range, which is among those tried, then ever closer around the best.
pub fn range(observer: &Observer, levels: Levels) -> Option<(f32, f32)> {
    let (min, max) = observer.range()?;
    let whole = (min.min(0.0), max.max(0.0));
    let symmetric = matches!(levels, Levels::Symmetric(_));
    let one_end = symmetric || whole.0 == 0.0 || whole.1 == 0.0;
    // The shares of the ends that are left; only products, which every CPU rounds alike.
    let cut = |(low, high): (f32, f32)| match symmetric {
        true => {
            let threshold = whole.1.max(-whole.0) * high;
            (whole.0.max(-threshold), whole.1.min(threshold))
        }
        false => (whole.0 * low, whole.1 * high),
    };
    let error = ExpectedError::new(observer);
    let mut best = (1.0, 1.0);
    let mut least = error.of(levels, whole);
    let mut around = |shares: &[f32]| {
        let center = best;
        for (i, low) in shares.iter().enumerate() {
            for (j, high) in shares.iter().enumerate() {
                let shares = ((center.0 * low).min(1.0), (center.1 * high).min(1.0));
                if one_end && i != j {
                    continue;
                }
                let e = error.of(levels, cut(shares));
                if e < least {
                    (best, least) = (shares, e);
                }
            }
        }
    };
    let half_octaves = std::iter::successors(Some(1f32), |&f| Some(f * FRAC_1_SQRT_2)).take(13);
    around(&half_octaves.collect::<Vec<_>>());
    for size in SIZES {
        around(&[-2.0, -1.0, 0.0, 1.0, 2.0].map(|i| 1.0 + i * size));
    }
    Some(cut(best))
}

/// The expected squared error of one value when `range` is covered by `levels`, in squared units of
/// the tensor; 0 if nothing finite was seen.
pub fn expected_error(observer: &Observer, levels: Levels, range: (f32, f32)) -> f64 {
    ExpectedError::new(observer).of(levels, range)
}

/// The signal to quantization noise of a range, in decibels; `None` where either is zero.
pub fn sqnr_db(observer: &Observer, levels: Levels, range: (f32, f32)) -> Option<f32> {
    let signal = observer.sum_of_squares() / observer.count_finite().max(1) as f64;
    let noise = expected_error(observer, levels, range);
    (signal > 0.0 && noise > 0.0).then(|| (10.0 * (signal / noise).log10()) as f32)
}

/// The expected squared error of any range of one tensor.
pub(super) struct ExpectedError {
    /// Where the first bin starts.
    start: f64,
    width: f64,
    counts: Vec<f64>,
    /// Finite values, exact zeros among them: those lose nothing.
    values: f64,
}

impl ExpectedError {
    pub fn new(observer: &Observer) -> ExpectedError {
        let width = observer.bin_width();
        ExpectedError {
            start: observer.bins().next().map_or(0.0, |b| b.center - width / 2.0),
            width,
            counts: observer.bins().map(|b| b.count as f64).collect(),
            values: observer.count_finite().max(1) as f64,
        }
    }

    /// Of one value, in squared units of the tensor.
    pub fn of(&self, levels: Levels, range: (f32, f32)) -> f64 {
        let (step, least, greatest) = levels.cover(range);
        // Edges of bins in steps.
        let (first, width) = (self.start / step, self.width / step);
        let mut lower = integral(first, least, greatest);
        let mut sum = 0.0;
        for (i, count) in self.counts.iter().enumerate() {
            let upper = integral(first + (i + 1) as f64 * width, least, greatest);
            sum += count * (upper - lower);
            lower = upper;
        }
        (sum / width).max(0.0) * step * step / self.values
    }
}

/// The integral of `(u - n)^2` from 0 to `u`, where `n` is the integer nearest to `u` among
/// `least..=greatest`: a twelfth for each whole step, then the cube of what is left.
fn integral(u: f64, least: f64, greatest: f64) -> f64 {
    // After adding it an f64 has no digits for fractions left.
    const SHIFTER: f64 = 1.5 * (1u64 << 52) as f64;
    let n = (u.max(least).min(greatest) + SHIFTER) - SHIFTER;
    let rest = u - n;
    n / 12.0 + rest * rest * rest / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bits, QuantParams};

    fn observed(values: &[f32]) -> Observer {
        let mut observer = Observer::new();
        observer.observe(values);
        observer
    }

    #[test]
    fn a_lone_outlier_is_cut_when_steps_are_few() {
        let mut values: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        values.push(20.0);
        let (_, high) = range(&observed(&values), Levels::Affine(15)).unwrap();
        assert!(high < 3.0, "{high}");
        // With many steps rounding costs less than cutting a single large value off.
        let uniform: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        let (_, high) = range(&observed(&uniform), Levels::Affine(255)).unwrap();
        assert!(high > 9_900.0, "{high}");
    }

    #[test]
    fn the_expected_error_is_the_error_of_quantizing() {
        let values: Vec<f32> = (0..200_000u32)
            .map(|i| {
                let u = (f64::from(i.wrapping_mul(2_654_435_761)) + 0.5) / 2f64.powi(32);
                (u / (1.0 - u)).ln() as f32 + 0.7
            })
            .collect();
        let o = observed(&values);
        for (low, high) in [(-12.0, 13.0), (-3.0, 5.0), (-6.0, 0.5), (-2.0, 2.0), (-0.1, 9.0)] {
            for bits in [2, 4, 8] {
                let bits = Bits::new(bits).unwrap();
                let steps = (1u16 << bits.get()) - 1;
                let half = (1u16 << (bits.get() - 1)) - 1;
                for (levels, params, zero) in [
                    (Levels::Affine(steps), QuantParams::affine(&[(low, high)], bits), 0),
                    (Levels::Symmetric(half), QuantParams::symmetric(&[(low, high)], bits), half),
                ] {
                    let scale = f64::from(params.scale[0]);
                    let zero = f64::from(zero) + f64::from(params.zero_point_of(0));
                    let top =
                        f64::from(if zero == f64::from(half) && params.zero_point.is_empty() {
                            2 * half
                        } else {
                            steps
                        });
                    let real: f64 = values
                        .iter()
                        .map(|&x| {
                            let q = (f64::from(x) / scale).round_ties_even() + zero;
                            ((q.clamp(0.0, top) - zero) * scale - f64::from(x)).powi(2)
                        })
                        .sum::<f64>()
                        / values.len() as f64;
                    let expected = expected_error(&o, levels, (low, high));
                    assert!(
                        (expected / real - 1.0).abs() < 0.02,
                        "{levels:?} {low}..{high}: {expected} for {real}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_search_comes_close_to_trying_everything() {
        let values: Vec<f32> = (0..100_000)
            .map(|i| {
                let u = (f64::from(i) + 0.5) / 100_000.0;
                (if u < 0.3 { (u / 0.3).ln() } else { -4.0 * ((1.0 - u) / 0.7).ln() }) as f32
            })
            .collect();
        let o = observed(&values);
        let (min, max) = o.range().unwrap();
        for levels in [Levels::Affine(255), Levels::Affine(15), Levels::Symmetric(7)] {
            let (low, high) = range(&o, levels).unwrap();
            let found = expected_error(&o, levels, (low, high));
            let mut least = f64::INFINITY;
            for i in 1..=40 {
                for j in 1..=40 {
                    let range = (min * i as f32 / 40.0, max * j as f32 / 40.0);
                    least = least.min(expected_error(&o, levels, range));
                }
            }
            assert!(found <= 1.02 * least, "{levels:?}: {found} for {least}");
        }
    }

    #[test]
    fn zeros_and_nothing_have_a_range() {
        assert_eq!(range(&observed(&[0.0; 5]), Levels::Affine(255)), Some((0.0, 0.0)));
        assert_eq!(range(&observed(&[-3.0; 5]), Levels::Symmetric(127)), Some((-3.0, 0.0)));
        assert_eq!(range(&Observer::new(), Levels::Affine(255)), None);
        assert_eq!(sqnr_db(&observed(&[0.0]), Levels::Affine(255), (0.0, 0.0)), None);
    }
}
