//! The least loss of information.
//!
//! Migacz 2017, "8-bit Inference with TensorRT" (GTC 2017, session S7310): among the ranges that
//! cut off more and more of the tails, take the one whose quantized histogram Q diverges least from
//! the histogram P of the clipped values, `KL(P || Q) = sum P log(P / Q)`. The outliers join the
//! outermost bin of P but not of Q, so that clipping is charged for; Q spreads what an integer
//! holds evenly over its bins that are not empty; a bin that is empty in Q alone counts as half a
//! value, lest it outweigh everything.
//!
//! Where this is known to fail, and what is done:
//! - With about as many bins as integers nothing is ever cut: here are up to 2048 bins, and a range
//!   with fewer bins than integers is not tried.
//! - A bin of zeros from a ReLU outweighs all others: exact zeros do not take part.
//! - Divergence does not see how far an outlier was moved, and on smooth tails cuts more than is
//!   good: a range must also have no larger expected squared error than the whole one.

use super::Levels;
use super::mse::ExpectedError;
use crate::Observer;

/// The thresholds tried: multiples of this share of the range.
const CANDIDATES: usize = 64;

/// The range of least divergence; `None` if nothing finite was seen. Both ends are cut at one
/// magnitude: the shorter tail stays whole longer.
pub fn range(observer: &Observer, levels: Levels) -> Option<(f32, f32)> {
    let (min, max) = observer.range()?;
    let (min, max) = (min.min(0.0), max.max(0.0));
    let counts: Vec<(f64, u64)> = observer.bins().map(|b| (b.center, b.count)).collect();
    let error = ExpectedError::new(observer);
    let allowed = error.of(levels, (min, max));
    let mut best = ((min, max), f64::INFINITY);
    for candidate in (1..=CANDIDATES).rev() {
        let threshold = max.max(-min) * (candidate as f32 / CANDIDATES as f32);
        let clipped = (min.max(-threshold), max.min(threshold));
        let (step, least, greatest) = levels.cover(clipped);
        if step < observer.bin_width() {
            break;
        }
        let divergence = divergence(&counts, step, least, greatest);
        if divergence < best.1 && error.of(levels, clipped) <= allowed {
            best = (clipped, divergence);
        }
    }
    Some(best.0)
}

/// `KL(P || Q)` in nats of bins, given as center and count, quantized to the integers
/// `least..=greatest`.
fn divergence(bins: &[(f64, u64)], step: f64, least: f64, greatest: f64) -> f64 {
    let integer = |center: f64| (center / step).round_ties_even();
    let begin = bins.partition_point(|b| integer(b.0) < least);
    let end = bins.partition_point(|b| integer(b.0) <= greatest);
    let count = |bins: &[(f64, u64)]| bins.iter().map(|b| b.1).sum::<u64>();
    let (below, above) = (count(&bins[..begin]), count(&bins[end..]));
    let (bins, inside) = (&bins[begin..end], count(&bins[begin..end]));
    if inside == 0 {
        return f64::INFINITY;
    }
    let mut p: Vec<u64> = bins.iter().map(|b| b.1).collect();
    p[0] += below;
    p[bins.len() - 1] += above;
    let total = (inside + below + above) as f64;
    let mut divergence = 0.0;
    let mut start = 0;
    for group in bins.chunk_by(|a, b| integer(a.0) == integer(b.0)) {
        let p = &p[start..start + group.len()];
        start += group.len();
        let occupied = p.iter().filter(|&&p| p > 0).count();
        let held = count(group) as f64 / occupied.max(1) as f64;
        let q = held.max(0.5) / inside as f64;
        for p in p.iter().filter(|&&p| p > 0).map(|&p| p as f64 / total) {
            divergence += p * (p / q).ln();
        }
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::mse::expected_error;
    use std::f64::consts::PI;

    /// Quantiles of a distribution: the same values at every run.
    fn quantiles(inverse: impl Fn(f64) -> f64) -> Observer {
        let values: Vec<f32> =
            (0..200_000).map(|i| inverse((f64::from(i) + 0.5) / 200_000.0) as f32).collect();
        let mut observer = Observer::new();
        observer.observe(&values);
        observer
    }

    /// Normal values, by the method of Box and Muller; `map` is applied to each.
    fn normal(map: impl Fn(f64) -> f64) -> Observer {
        let golden = 0.618_033_988_749_894_9;
        quantiles(|u| {
            let angle = (u * 200_000.0 * golden).fract() * 2.0 * PI;
            map((-2.0 * u.ln()).sqrt() * angle.cos())
        })
    }

    fn share_inside(observer: &Observer, (low, high): (f32, f32)) -> f64 {
        let inside: u64 = observer
            .bins()
            .filter(|b| (f64::from(low)..=f64::from(high)).contains(&b.center))
            .map(|b| b.count)
            .sum();
        (inside + observer.zeros()) as f64 / observer.count_finite() as f64
    }

    #[test]
    fn common_distributions_keep_almost_all_of_their_mass() {
        let exponential = quantiles(|u| -(1.0 - u).ln());
        let laplace = quantiles(|u| if u < 0.5 { (2.0 * u).ln() } else { -(2.0 - 2.0 * u).ln() });
        let half_normal = normal(f64::abs);
        let relu = normal(|x| x.max(0.0));
        let gauss = normal(|x| x);
        let (affine, symmetric) = (Levels::Affine(255), Levels::Symmetric(127));
        for (name, observer, levels) in [
            ("exponential", &exponential, affine),
            ("laplace", &laplace, affine),
            ("laplace", &laplace, symmetric),
            ("half-normal", &half_normal, affine),
            ("relu", &relu, affine),
            ("normal", &gauss, affine),
            ("normal", &gauss, symmetric),
        ] {
            let chosen = range(observer, levels).unwrap();
            let share = share_inside(observer, chosen);
            let whole = observer.range().unwrap();
            let error = |r: (f32, f32)| expected_error(observer, levels, r);
            assert!(share > 0.999, "{name} {levels:?}: {chosen:?} keeps {share}");
            assert!(error(chosen) <= 1.001 * error(whole), "{name} {levels:?}: {chosen:?}");
        }
    }

    #[test]
    fn a_far_outlier_is_cut() {
        let mut observer = normal(|x| x.max(0.0));
        observer.observe(&[25.0]);
        let (_, high) = range(&observer, Levels::Affine(15)).unwrap();
        assert!((2.0..12.0).contains(&high), "{high}");
    }

    #[test]
    fn too_few_bins_leave_the_range_whole() {
        let mut observer = Observer::new();
        observer.observe(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(range(&Observer::new(), Levels::Affine(255)), None);
        observer = Observer::new();
        observer.observe(&[0.0; 4]);
        assert_eq!(range(&observer, Levels::Affine(255)), Some((0.0, 0.0)));
        observer.observe(&[-7.5; 4]);
        assert_eq!(range(&observer, Levels::Symmetric(127)), Some((-7.5, 0.0)));
    }
}
