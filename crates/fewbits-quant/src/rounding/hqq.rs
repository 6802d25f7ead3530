//! HQQ: scales and zero points that fit most weights well and let outliers be, found without data.
//!
//! Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models"
//! (mobiusml.github.io/hqq_blog). `|| w - s (q - z) ||_p^p` with `p < 1` is made small by splitting
//! off what counts as an outlier, `e`, and solving in turn for
//!
//! ```text
//! e = shrink(w - s (q - z), β)    the generalized soft threshold (sub-problem 1)
//! z = mean(q - (w - e) / s)       the zero point (sub-problem 2)
//! ```
//!
//! while β grows. What differs here, and why:
//!
//! - A file has whole zero points. The paper's are floats; rounded they would rarely be others than
//!   those of the range. So with the whole ones beside it, and that of the range, the *scale* is
//!   solved for in the same way, `s = Σ c (w - e) / Σ c²` with `c = q - z`. For symmetric schemes,
//!   which have no zero point, that is all.
//! - Errors are measured in steps, so that the threshold means the same for weights of any size.
//! - `p` is 11/16 instead of 0.7, since roots of 16 are square roots, which every CPU rounds alike.
//! - Of all parameters met on the way those with the least *squared* error are kept, those of the
//!   range among them: by the norm of `p` itself a language model of 2 bits came out worse.

use rayon::prelude::*;

use super::nearest;
use crate::range::weights::by_param;
use crate::{Encoding, PackedInts, QTensor, QuantParams, round_half_even};

/// The paper's: β at the beginning, its factor from one iteration to the next, and how many there
/// are at most. They end when the mean magnitude of the errors falls by less than a thousandth.
const BETA: f32 = 10.0;
const GROWTH: f32 = 1.01;
const ITERATIONS: usize = 20;
const STILL_FALLING: f64 = 0.999;

/// Sums are made in lanes, of which a part of the weights in f32 before they are added up in f64.
const LANES: usize = 8;
const SUMMED: usize = 64 * LANES;
type Lanes = [f32; LANES];

/// Groups that are worth a thread.
const GROUPS: usize = 64;

/// `values` with better parameters than those of `plain`, rounded to nearest. One bit keeps its
/// parameters: the mean magnitude is the best scale already.
pub(crate) fn quantize(values: &[f32], plain: QTensor) -> QTensor {
    let (width, encoding) = (plain.codes().width(), plain.codes().encoding());
    let max = 1i16 << (width - 1);
    let (low, high) = match encoding {
        Encoding::Sign | Encoding::Float(_) | Encoding::Exponent => return plain,
        Encoding::Unsigned => (0, 2 * (max - 1) + 1),
        Encoding::TwosComplement => (1 - max, max - 1),
    };
    let params = plain.params();
    let counts = plain.layout().elements_per_param();
    let sorted = by_param(values, plain.layout(), &counts);
    let mut rest = &sorted[..];
    let groups: Vec<&[f32]> =
        counts.iter().map(|&n| rest.split_off(..n).expect("as many as are counted")).collect();
    let best = |(param, group): (usize, &&[f32])| {
        let start = (params.scale[param], f32::from(params.zero_point_of(param)));
        let group = Group { values: group, low: f32::from(low), high: f32::from(high) };
        group.solve(start)
    };
    let found: Vec<Point> = groups.par_iter().enumerate().with_min_len(GROUPS).map(best).collect();
    let zero_point = match params.zero_point.is_empty() {
        true => Vec::new(),
        false => found.iter().map(|&(_, zero_point)| zero_point as u8).collect(),
    };
    let params = QuantParams { scale: found.iter().map(|&(scale, _)| scale).collect(), zero_point };
    let mut codes = PackedInts::with_capacity(values.len(), width, encoding);
    nearest::nearest(values, plain.layout(), &params, (low, high), &mut codes);
    plain.with_params(params).with_codes(codes)
}

/// A scale and a zero point.
type Point = (f32, f32);

/// The weights that share parameters.
struct Group<'a> {
    values: &'a [f32],
    low: f32,
    high: f32,
}

/// What one look at all weights finds.
#[derive(Default)]
struct Sums {
    /// `Σ x²` and `Σ |x|`, the errors `x` in units of the tensor.
    squared_error: f64,
    error: f64,
    /// `Σ (e - x)` in steps: what moves the zero point.
    moved: f64,
    /// `Σ c (w - e) / s` and `Σ c²`: what the scale is multiplied and divided by.
    along: f64,
    squares: f64,
}

impl Group<'_> {
    /// The best parameters met, from these on.
    fn solve(&self, start: Point) -> Point {
        let mut best = (start, f64::INFINITY);
        self.solve_scale(start, &mut best);
        // Integers on both sides of zero have no zero point.
        if self.low == 0.0 && !self.values.is_empty() {
            let below = self.solve_zero_point(start).floor();
            for zero_point in [below, below + 1.0] {
                if zero_point != start.1 && zero_point >= self.low && zero_point <= self.high {
                    self.solve_scale((start.0, zero_point), &mut best);
                }
            }
        }
        best.0
    }

    /// Sub-problems 1 and 2 in turn: the zero point as a float.
    fn solve_zero_point(&self, (scale, mut zero_point): Point) -> f32 {
        let (mut beta, mut best, mut least) = (BETA, zero_point, f64::INFINITY);
        for _ in 0..ITERATIONS {
            let sums = self.look((scale, zero_point), beta);
            if sums.error > least * STILL_FALLING {
                break;
            }
            (best, least) = (zero_point, sums.error);
            zero_point += (sums.moved / self.values.len() as f64) as f32;
            beta *= GROWTH;
        }
        best
    }

    /// The same with the scale in place of the zero point, which is whole.
    fn solve_scale(&self, (mut scale, zero_point): Point, best: &mut (Point, f64)) {
        let (mut beta, mut least) = (BETA, f64::INFINITY);
        for _ in 0..ITERATIONS {
            let sums = self.look((scale, zero_point), beta);
            if sums.error > least * STILL_FALLING {
                break;
            }
            least = sums.error;
            if sums.squared_error < best.1 {
                *best = ((scale, zero_point), sums.squared_error);
            }
            scale *= (sums.along / sums.squares) as f32;
            if !scale.is_normal() || scale < 0.0 {
                break;
            }
            beta *= GROWTH;
        }
    }

    fn look(&self, point: Point, beta: f32) -> Sums {
        let scale = f64::from(point.0);
        let mut sums = Sums::default();
        for values in self.values.chunks(SUMMED) {
            let mut lanes = SumsOfLanes::default();
            let (whole, rest) = values.as_chunks::<LANES>();
            for values in whole {
                for (lane, &value) in values.iter().enumerate() {
                    lanes.add(lane, value, self, point, beta);
                }
            }
            for (lane, &value) in rest.iter().enumerate() {
                lanes.add(lane, value, self, point, beta);
            }
            let sum = |lanes: Lanes| lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
            sums.squared_error += sum(lanes.squared_error) * scale * scale;
            sums.error += sum(lanes.error) * scale;
            sums.moved += sum(lanes.moved);
            sums.along += sum(lanes.along);
            sums.squares += sum(lanes.squares);
        }
        sums
    }
}

/// [`Sums`] in lanes, all in steps.
#[derive(Default)]
struct SumsOfLanes {
    squared_error: Lanes,
    error: Lanes,
    moved: Lanes,
    along: Lanes,
    squares: Lanes,
}

impl SumsOfLanes {
    #[inline(always)]
    fn add(&mut self, lane: usize, value: f32, group: &Group, point: Point, beta: f32) {
        let (scale, zero_point) = point;
        let steps = value / scale;
        let code = steps + zero_point;
        let code = if code > group.low { code } else { group.low };
        let code = if code < group.high { code } else { group.high };
        let code = round_half_even(code) - zero_point;
        let x = steps - code;
        let outlier = shrink(x, beta);
        self.squared_error[lane] += x * x;
        self.error[lane] += x.abs();
        self.moved[lane] += outlier - x;
        self.along[lane] += code * (steps - outlier);
        self.squares[lane] += code * code;
    }
}

/// The generalized soft threshold, `sign(x) max(|x| - |x|^(p - 1) / β, 0)`.
#[inline]
fn shrink(x: f32, beta: f32) -> f32 {
    let fourth_root = x.abs().sqrt().sqrt();
    let sixteenth_root = fourth_root.sqrt().sqrt();
    // |x|^(-5/16); infinite for 0, which stays 0.
    let rest = x.abs() - 1.0 / (fourth_root * sixteenth_root * beta);
    (if rest > 0.0 { rest } else { 0.0 }).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_that_of_the_paper() {
        for x in [-30.0f32, -0.5, -0.1, 0.0, 0.05, 0.2, 0.49, 7.0] {
            for beta in [1.0f32, 10.0, 100.0] {
                let rest = x.abs() - x.abs().powf(11.0 / 16.0 - 1.0) / beta;
                let wanted = x.signum() * rest.max(0.0);
                assert!((shrink(x, beta) - wanted).abs() < 1e-5 * (1.0 + x.abs()), "{x} {beta}");
            }
        }
    }

    #[test]
    fn a_zero_point_in_between_is_found_whatever_an_outlier_says() {
        // Of a grid with step 0.5 whose zero lies at 3.3; the last value is far off the grid.
        let mut values: Vec<f32> = (0..16).map(|q| (q as f32 - 3.3) * 0.5).collect();
        values.push(20.0);
        let group = Group { values: &values, low: 0.0, high: 15.0 };
        let zero_point = group.solve_zero_point((0.5, 3.0));
        assert!((zero_point - 3.3).abs() < 0.01, "{zero_point}");
    }

    #[test]
    fn the_scale_of_a_grid_is_found() {
        let values: Vec<f32> = (0..27).map(|i| ((i % 9) as f32 - 4.0) * 0.1).collect();
        let group = Group { values: &values, low: -7.0, high: 7.0 };
        let (scale, _) = group.solve((0.108, 0.0));
        assert!((scale - 0.1).abs() < 1e-6, "{scale}");
    }
}
