//! Score intervals of proportions: they stay true where answers hardly differ.

use super::Z;

/// Halvings of an interval of length 2: past the last bit of a double near 1e-4.
const HALVINGS: usize = 60;

/// Wilson's interval of a proportion of which `successes` of `n` were seen, n > 0.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
/// the American Statistical Association 22 (1927); as method 3 of Newcombe, Statistics in Medicine
/// 17 (1998), 857–872: (2np + z² ∓ z√(z² + 4npq)) / 2(n + z²).
pub fn wilson(successes: f64, n: f64) -> (f64, f64) {
    let p = successes / n;
    let middle = 2.0 * n * p + Z * Z;
    let half = Z * (Z * Z + 4.0 * n * p * (1.0 - p)).sqrt();
    let below = 2.0 * (n + Z * Z);
    (((middle - half) / below).max(0.0), ((middle + half) / below).min(1.0))
}

/// Tango's interval of the difference of two proportions that were seen on the same `n` > 0 rows:
/// `only_a` of them are successes of the first alone, `only_b` of the second alone. Positive where
/// the first has more.
///
/// T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
/// paired-sample design", Statistics in Medicine 17 (1998), 891–908: the differences Δ that the
/// score test does not reject, |T(Δ)| ≤ z.
///
/// Why it and not the square-and-add of Newcombe (method 10 of Statistics in Medicine 17 (1998),
/// 2635–2650) or the adjusted Wald intervals: quantized models differ from the original on very few
/// rows. There the others' upper end, which is what a claim rests on, lies too low or depends on how
/// accurate both models are, which tells nothing of their difference.
pub fn tango(only_a: f64, only_b: f64, n: f64) -> (f64, f64) {
    let difference = (only_a - only_b) / n;
    // T falls from a limit past z at -1 to one past -z at 1 and is 0 at the difference seen.
    let passes = |level: f64, mut low: f64, mut high: f64| {
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            let side = if score(only_a, only_b, n, middle) > level { &mut low } else { &mut high };
            *side = middle;
        }
        (low + high) / 2.0
    };
    (passes(Z, -1.0, difference), passes(-Z, difference, 1.0))
}

/// Tango's statistic T(Δ) = (b − c − nΔ) / √(n(2q₂₁ + Δ(1 − Δ))), with the rate q₂₁ of successes of
/// the second alone at which the likelihood is largest among those of difference Δ: the root
/// (√(B² − 4AC) − B) / 2A of A = 2n, B = −b − c + (2n − b + c)Δ, C = −cΔ(1 − Δ).
fn score(only_a: f64, only_b: f64, n: f64, delta: f64) -> f64 {
    let (b, c) = (only_a, only_b);
    let square = 2.0 * n;
    let linear = -b - c + (2.0 * n - b + c) * delta;
    let constant = -c * delta * (1.0 - delta);
    let root = (linear * linear - 4.0 * square * constant).max(0.0).sqrt();
    let q21 = (root - linear) / (2.0 * square);
    let variance = n * (2.0 * q21 + delta * (1.0 - delta));
    let distance = b - c - n * delta;
    if variance > 0.0 { distance / variance.sqrt() } else { distance * f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::SplitMix64;
    use super::*;

    #[track_caller]
    fn near(found: (f64, f64), expected: (f64, f64), within: f64) {
        let both = (found.0 - expected.0).abs().max((found.1 - expected.1).abs());
        assert!(both <= within, "{found:?}, not {expected:?}");
    }

    #[test]
    fn wilson_gives_the_published_figures() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        near(wilson(81.0, 263.0), (0.2553, 0.3662), 5e-5);
        near(wilson(15.0, 148.0), (0.0624, 0.1605), 5e-5);
        near(wilson(0.0, 20.0), (0.0, 0.1611), 5e-5);
        near(wilson(1.0, 29.0), (0.0061, 0.1718), 5e-5);
    }

    #[test]
    fn tango_gives_the_published_figures() {
        // Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), airway reactivity of 21
        // children: before and after, 1, 1, 7, 12; "Tango asymptotic score −0.517 to −0.026".
        near(tango(1.0, 7.0, 21.0), (-0.517, -0.026), 5e-4);
        // tests/fixtures/scripts/intervals.py: the likelihood maximized by scipy.
        near(tango(1.0, 7.0, 21.0), (-0.517_232, -0.026_003), 1e-5);
        near(tango(12.0, 2.0, 50.0), (0.061_112, 0.344_709), 1e-5);
        near(tango(4.0, 2.0, 450.0), (-0.008_189, 0.018_729), 1e-5);
        near(tango(31.0, 12.0, 1000.0), (0.006_439, 0.032_932), 1e-5);
    }

    #[test]
    fn tango_is_symmetric_and_stays_in_range() {
        for (a, b, n) in [(0.0, 0.0, 1.0), (3.0, 9.0, 40.0), (40.0, 0.0, 40.0), (0.0, 1.0, 1.0)] {
            let (low, high) = tango(a, b, n);
            near(tango(b, a, n), (-high, -low), 1e-9);
            let difference = (a - b) / n;
            assert!((-1.0..=difference).contains(&low) && (difference..=1.0).contains(&high));
        }
    }

    /// The part of intervals that hold the true difference, and that end below it.
    fn coverage(only_a: f64, only_b: f64, n: usize) -> (f64, f64) {
        const SAMPLES: usize = 4000;
        let mut random = SplitMix64::new(5);
        let (mut held, mut below) = (0, 0);
        for _ in 0..SAMPLES {
            let (mut b, mut c) = (0.0, 0.0);
            for _ in 0..n {
                match random.unit() {
                    x if x < only_a => b += 1.0,
                    x if x < only_a + only_b => c += 1.0,
                    _ => {}
                }
            }
            let (low, high) = tango(b, c, n as f64);
            held += usize::from((low..=high).contains(&(only_a - only_b)));
            below += usize::from(high < only_a - only_b);
        }
        (held as f64 / SAMPLES as f64, below as f64 / SAMPLES as f64)
    }

    #[test]
    fn tango_holds_the_drop_as_often_as_it_says() {
        // Rates at which models of few bits differ from float ones.
        for (only_a, only_b, n) in [(0.006, 0.0, 450), (0.01, 0.002, 450), (0.03, 0.02, 1000)] {
            let (held, below) = coverage(only_a, only_b, n);
            assert!((0.935..=0.995).contains(&held), "{only_a} {only_b} {n}: {held}");
            assert!(below <= 0.035, "{only_a} {only_b} {n}: {below} too optimistic");
        }
    }
}
