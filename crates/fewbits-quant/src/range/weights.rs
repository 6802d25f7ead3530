//! The least squared error over the weights themselves.
//!
//! Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference" (OMSE),
//! eq. 4: the scale that minimises `|| w - q(w) ||^2`, what is cut off against what is rounded.
//! Banner et al. 2019, "Post Training 4-bit Quantization of Convolutional Networks for
//! Rapid-Deployment", section 3, assume a distribution; here, as in the reference implementation
//! of GPTQ (Frantar et al. 2023), shares of the whole range are tried on the values, since the few
//! of a group have no distribution. Each error may count by its [`Importance`](crate::Importance).

use std::array;

use super::{Levels, minmax};
use crate::{Layout, Span, round_half_even};

/// Ranges tried at a time, a lane each: so that groups of any size fill vectors.
const LANES: usize = 8;

/// Errors summed in f32 before their sum is added up in f64.
const SUMMED: usize = 512;

/// The ratio of one share of the first search to the next, `2^(-1/16)`, and how many are tried: to
/// a 16th. Only products, which every CPU rounds alike.
const RATIO: f32 = 0.957_603_3;
const SHARES: usize = 64;

/// The ratio of shares of the second search, `2^(-1/128)`: it reaches from one share of the first
/// to the next.
const FINE_RATIO: f32 = 0.994_599_4;
const FINE_SHARES: i32 = 7;

/// The search of two ends: half octaves to a 16th, then around the best, `1 + i * size` for these
/// sizes in turn and `i` from -2 to 2.
const HALF_OCTAVES: usize = 9;
const SIZES: [f32; 3] = [0.12, 0.05, 0.02];

/// The range of each parameter whose levels have the least weighted squared error, among those
/// tried the whole range; `(0, 0)` where a parameter has no elements.
///
/// `importance` has an entry for each value; values must be finite and as many as the layout has
/// elements.
pub fn ranges(
    values: &[f32],
    layout: &Layout,
    levels: Levels,
    importance: &[f32],
) -> Vec<(f32, f32)> {
    let counts = layout.elements_per_param();
    let (values, importance) =
        (by_param(values, layout, &counts), by_param(importance, layout, &counts));
    let mut start = 0;
    counts
        .iter()
        .map(|&count| {
            let elements = start..start + count;
            start += count;
            range(&values[elements.clone()], &importance[elements], levels)
        })
        .collect()
}

/// The elements of each parameter behind those of the one before.
pub(crate) fn by_param<T: Copy + Default>(
    elements: &[T],
    layout: &Layout,
    counts: &[usize],
) -> Vec<T> {
    let mut sorted = vec![T::default(); elements.len()];
    let mut next: Vec<usize> = counts
        .iter()
        .scan(0, |start, count| Some(std::mem::replace(start, *start + count)))
        .collect();
    layout.for_each_run(|run, span| match span {
        Span::One(param) => {
            sorted[next[param]..][..run.len()].copy_from_slice(&elements[run.clone()]);
            next[param] += run.len();
        }
        Span::Each(first) => {
            for (&x, next) in elements[run].iter().zip(&mut next[first..]) {
                sorted[*next] = x;
                *next += 1;
            }
        }
    });
    sorted
}

/// The range of the elements of one parameter.
fn range(values: &[f32], importance: &[f32], levels: Levels) -> (f32, f32) {
    let (min, max) = minmax::of(values);
    if values.is_empty() || (min >= 0.0 && max <= 0.0) {
        return (0.0, 0.0);
    }
    let whole = (min.min(0.0), max.max(0.0));
    let mut search = Search { values, importance, levels, best: whole, least: f64::INFINITY };
    search.try_all(&[whole]);
    match levels {
        Levels::Affine(_) if whole.0 < 0.0 && whole.1 > 0.0 => search.two_ends(whole),
        _ => search.one_end(whole),
    }
    search.best
}

struct Search<'a> {
    values: &'a [f32],
    importance: &'a [f32],
    levels: Levels,
    best: (f32, f32),
    least: f64,
}

impl Search<'_> {
    /// Both ends by the same share, of which a symmetric scheme and values of one sign need no more.
    fn one_end(&mut self, whole: (f32, f32)) {
        let shares = powers(RATIO).take(SHARES);
        self.try_all(&shares.map(|share| scaled(whole, (share, share))).collect::<Vec<_>>());
        let best = self.best;
        let finer = powers(FINE_RATIO).zip(powers(1.0 / FINE_RATIO)).skip(1);
        let finer = finer.take(FINE_SHARES as usize).flat_map(|(less, more)| [less, more]);
        self.try_all(&finer.map(|share| scaled(best, (share, share))).collect::<Vec<_>>());
    }

    /// Each end by a share of its own: together they also decide the zero point.
    fn two_ends(&mut self, whole: (f32, f32)) {
        self.try_pairs(
            whole,
            &powers(std::f32::consts::FRAC_1_SQRT_2).take(HALF_OCTAVES).collect::<Vec<_>>(),
        );
        for size in SIZES {
            self.try_pairs(self.best, &[-2.0, -1.0, 0.0, 1.0, 2.0].map(|i| 1.0 + i * size));
        }
    }

    fn try_pairs(&mut self, range: (f32, f32), shares: &[f32]) {
        let pairs = shares.iter().flat_map(|&low| shares.iter().map(move |&high| (low, high)));
        self.try_all(&pairs.map(|shares| scaled(range, shares)).collect::<Vec<_>>());
    }

    fn try_all(&mut self, ranges: &[(f32, f32)]) {
        for ranges in ranges.chunks(LANES) {
            let errors = self.errors(array::from_fn(|lane| ranges[lane.min(ranges.len() - 1)]));
            for (&range, error) in ranges.iter().zip(errors) {
                if error < self.least {
                    (self.best, self.least) = (range, error);
                }
            }
        }
    }

    /// The weighted squared error of the integers that each range gives, by the arithmetic of
    /// rounding to nearest.
    fn errors(&self, ranges: [(f32, f32); LANES]) -> [f64; LANES] {
        let covers = ranges.map(|range| self.levels.cover(range));
        let scale = covers.map(|(step, _, _)| step as f32);
        let least = covers.map(|(_, least, _)| least as f32);
        let greatest = covers.map(|(_, _, greatest)| greatest as f32);
        let mut errors = [0f64; LANES];
        for (values, importance) in self.values.chunks(SUMMED).zip(self.importance.chunks(SUMMED)) {
            let mut sums = [0f32; LANES];
            for (&x, &weight) in values.iter().zip(importance) {
                for lane in 0..LANES {
                    let steps = x / scale[lane];
                    let steps = if steps < greatest[lane] { steps } else { greatest[lane] };
                    let steps = if steps > least[lane] { steps } else { least[lane] };
                    let error = x - round_half_even(steps) * scale[lane];
                    sums[lane] += weight * error * error;
                }
            }
            for lane in 0..LANES {
                errors[lane] += f64::from(sums[lane]);
            }
        }
        errors
    }
}

fn scaled((low, high): (f32, f32), shares: (f32, f32)) -> (f32, f32) {
    (low * shares.0, high * shares.1)
}

/// 1, `ratio`, its square and so on.
fn powers(ratio: f32) -> impl Iterator<Item = f32> {
    std::iter::successors(Some(1f32), move |&power| Some(power * ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bits, Granularity, Importance, Matrix, Scheme, WeightRange, quantize_by};
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    fn search<'a>(values: &'a [f32], importance: &'a [f32], levels: Levels) -> Search<'a> {
        Search { values, importance, levels, best: (0.0, 0.0), least: f64::INFINITY }
    }

    /// About normal: the sum of twelve uniform numbers.
    fn normal(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / 4_294_967_296.0 - 0.5
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum()).collect()
    }

    #[test]
    fn the_search_comes_close_to_trying_everything() {
        let many = normal(64 * 64);
        for levels in
            [3, 7, 15, 255].map(Levels::Affine).into_iter().chain([1, 3, 7].map(Levels::Symmetric))
        {
            let (mut found, mut least) = (0.0, 0.0);
            for values in many.chunks(64) {
                let ones = vec![1.0; values.len()];
                let error = |range| search(values, &ones, levels).errors([range; LANES])[0];
                found += error(range(values, &ones, levels));
                let (min, max) = minmax::of(values);
                let ranges = (20..=100).flat_map(|i| (20..=100).map(move |j| (i, j)));
                let ranges = ranges.filter(|(i, j)| i == j || matches!(levels, Levels::Affine(_)));
                least += ranges
                    .map(|(i, j)| error((min * i as f32 / 100.0, max * j as f32 / 100.0)))
                    .fold(f64::INFINITY, f64::min);
            }
            assert!(found <= 1.001 * least, "{levels:?}: {found} for {least}");
        }
    }

    #[test]
    fn a_lone_outlier_is_cut_on_its_own_side() {
        let mut values = normal(1000);
        values.push(20.0);
        let (low, high) = range(&values, &vec![1.0; 1001], Levels::Affine(15));
        assert!(high < 15.0 && low < -2.0, "{low}..{high}");
    }

    #[test]
    fn zeros_and_extremes_have_a_range() {
        for levels in [Levels::Affine(15), Levels::Symmetric(7)] {
            assert_eq!(range(&[], &[], levels), (0.0, 0.0));
            assert_eq!(range(&[0.0; 3], &[1.0; 3], levels), (0.0, 0.0));
            let whole = (f32::MIN, f32::MAX);
            assert_eq!(range(&[f32::MIN, 0.5, f32::MAX], &[1.0; 3], levels), whole);
            // Where nothing counts, nothing is cut.
            assert_eq!(range(&[-1.0, 0.3, 2.0], &[0.0; 3], levels), (-1.0, 2.0));
        }
    }

    proptest! {
        #[test]
        fn the_whole_range_is_never_better(
            values in prop::collection::vec((-4f32..4.0, 1i32..4), 48),
            squares in prop::collection::vec(0f32..9.0, 8),
            bits in 2u8..=8, affine in any::<bool>(), kind in 0usize..5, size in 1usize..12,
        ) {
            let values: Vec<f32> = values.iter().map(|&(x, power)| x.powi(power)).collect();
            let size = NonZeroUsize::new(size).unwrap();
            let granularity = [
                Granularity::Tensor,
                Granularity::Channel { axis: 0 },
                Granularity::Channel { axis: 1 },
                Granularity::Group { axis: 0, size },
                Granularity::Group { axis: 1, size },
            ][kind];
            let bits = Bits::new(bits).unwrap();
            let scheme = match affine {
                true => Scheme::Affine { bits, granularity },
                false => Scheme::Symmetric { bits, granularity },
            };
            // The same weight read by a Gemm with transB, and, where 8 are its inputs, by a MatMul.
            for (shape, output_axis) in [([6, 8], 0), ([8, 6], 1)] {
                let matrix = Matrix::new(&shape, output_axis).unwrap();
                let importance = Importance::OfColumns { matrix, mean_squares: &squares };
                let weights = importance.of_elements(48).unwrap();
                let error = |range| {
                    let q = quantize_by(&values, &shape, scheme, range, importance).unwrap();
                    let pairs = values.iter().zip(q.dequantize()).zip(&weights);
                    pairs.map(|((x, q), w)| f64::from(*w) * f64::from(x - q).powi(2)).sum::<f64>()
                };
                let (least, whole) = (error(WeightRange::Mse), error(WeightRange::MinMax));
                prop_assert!(least <= whole * (1.0 + 1e-5), "{scheme}: {least} for {whole}");
            }
        }
    }
}
