//! How sure a measured drop is: confidence intervals of the difference between two models that
//! answered the same rows.
//!
//! Rows are taken as a random sample of all rows that the models will meet; the interval says where
//! the drop over all of those may lie. All methods are paired: what both models get right or wrong
//! alike tells nothing of their difference.
//!
//! | metric | method |
//! |---|---|
//! | accuracy | [`tango`]'s score interval for the difference of paired proportions |
//! | agreement | [`wilson`]'s score interval |
//! | mae; accuracy of several answers a row | [`mean`]: Student's t over rows |
//! | perplexity | [`mean`]: the delta method over rows, since tokens of one row depend on each other |
//! | f1, auc, r2, rmse | the paired percentile [`bootstrap`] |

pub mod bootstrap;
pub mod mean;
pub mod proportion;

use std::fmt;

use serde::Serialize;

use proportion::{tango, wilson};

/// The confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;
/// The normal distribution's quantile for it: 2.5 % lie above.
pub(crate) const Z: f64 = 1.959_963_984_540_054;
/// More rows than this are not worth naming.
const MOST_TIMES_THE_ROWS: f64 = 1e9;

/// Where the drop over all data lies, with the confidence told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DropInterval {
    /// The lower end, in the metric's unit; positive is worse, as for the drop.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The part of such intervals that hold the drop.
    pub confidence: f64,
    /// The method, with its source.
    pub method: &'static str,
    /// Rows that it was made of.
    #[serde(skip)]
    pub rows: usize,
    /// The drop that was measured on them.
    #[serde(skip)]
    pub drop: f64,
    #[serde(skip)]
    shrinks: Shrinks,
}

/// How the interval narrows with more rows of the same kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shrinks {
    /// With the root of their number.
    ByRoot,
    /// As [`tango`] has it for so many rows that only one of the models answered rightly.
    Tango { only_a: f64, only_b: f64 },
    /// As [`wilson`] has it for so many rows on which the answers differ.
    Wilson { differ: f64 },
}

impl DropInterval {
    /// Of accuracy: `only_a` of `rows` are answered rightly by the first model alone, `only_b` by
    /// the second alone. `None` without rows.
    pub fn of_paired_answers(only_a: u64, only_b: u64, rows: usize) -> Option<DropInterval> {
        let (only_a, only_b, n) = (only_a as f64, only_b as f64, rows as f64);
        let (low, high) = (rows > 0).then(|| tango(only_a, only_b, n))?;
        Some(DropInterval {
            low,
            high,
            confidence: CONFIDENCE,
            method: "score interval of paired proportions (Tango 1998)",
            rows,
            drop: (only_a - only_b) / n,
            shrinks: Shrinks::Tango { only_a, only_b },
        })
    }

    /// Of agreement, whose drop is the part of `rows` on which the answers `differ`. `None` without
    /// rows.
    pub fn of_differing_answers(differ: u64, rows: usize) -> Option<DropInterval> {
        let (differ, n) = (differ as f64, rows as f64);
        let (low, high) = (rows > 0).then(|| wilson(differ, n))?;
        Some(DropInterval {
            low,
            high,
            confidence: CONFIDENCE,
            method: "score interval of a proportion (Wilson 1927)",
            rows,
            drop: differ / n,
            shrinks: Shrinks::Wilson { differ },
        })
    }

    /// One that narrows with the root of the rows; `None` if an end is not a number.
    pub(crate) fn by_root(
        (low, high): (f64, f64),
        drop: f64,
        rows: usize,
        method: &'static str,
    ) -> Option<DropInterval> {
        let finite = low.is_finite() && high.is_finite();
        let shrinks = Shrinks::ByRoot;
        finite.then_some(DropInterval {
            low,
            high,
            confidence: CONFIDENCE,
            method,
            rows,
            drop,
            shrinks,
        })
    }

    /// Whether these rows show that the drop is at most `max_drop`: the whole interval is.
    pub fn shows(&self, max_drop: f64) -> bool {
        self.high <= max_drop
    }

    /// About how many rows would show that the drop is at most `max_drop`, in two digits, if more
    /// rows are like these. `None` where no number of them would: the measured drop is not below
    /// `max_drop`.
    pub fn rows_needed(&self, max_drop: f64) -> Option<u64> {
        if self.drop.is_nan() || self.drop >= max_drop {
            return None;
        }
        // The upper end falls as rows are added, so bisection finds where it passes max_drop.
        let (mut few, mut enough) = (0.0, 1.0);
        while self.high_of(enough) > max_drop {
            (few, enough) = (enough, enough * 2.0);
            if enough > MOST_TIMES_THE_ROWS {
                return None;
            }
        }
        while enough - few > 1e-3 * enough {
            let middle = (few + enough) / 2.0;
            let side = if self.high_of(middle) > max_drop { &mut few } else { &mut enough };
            *side = middle;
        }
        let rows = enough * self.rows as f64;
        let unit = 10f64.powf((rows.log10().floor() - 1.0).max(0.0));
        Some(((rows / unit).ceil() * unit) as u64)
    }

    /// The upper end for `times` as many rows of the same kind.
    fn high_of(&self, times: f64) -> f64 {
        let rows = times * self.rows as f64;
        match self.shrinks {
            Shrinks::ByRoot => self.drop + (self.high - self.drop) / times.sqrt(),
            Shrinks::Tango { only_a, only_b } => tango(times * only_a, times * only_b, rows).1,
            Shrinks::Wilson { differ } => wilson(times * differ, rows).1,
        }
    }
}

impl fmt::Display for DropInterval {
    /// `95 % confidence: -0.0012 to 0.0045`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.confidence;
        write!(f, "{percent:.0} % confidence: {:.4} to {:.4}", self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_rows_are_needed_that_the_interval_fits() {
        // Models that never differ: T(Δ) = −z at Δ = z²/(n + z²).
        let equal = DropInterval::of_paired_answers(0, 0, 450).unwrap();
        assert!((equal.high - Z * Z / (450.0 + Z * Z)).abs() < 1e-9);
        assert!(equal.shows(0.01) && !equal.shows(0.002));
        let exact = Z * Z * (1.0 - 0.002) / 0.002;
        assert_eq!(exact.round(), 1917.0);
        assert_eq!(equal.rows_needed(0.002), Some(2000));

        for (interval, max_drop) in [
            (DropInterval::of_paired_answers(4, 2, 450).unwrap(), 0.01),
            (DropInterval::of_differing_answers(7, 450).unwrap(), 0.02),
            (DropInterval::by_root((-0.2, 0.4), 0.1, 100, "").unwrap(), 0.13),
        ] {
            let needed = interval.rows_needed(max_drop).unwrap() as f64;
            let times = needed / interval.rows as f64;
            assert!(interval.high_of(times) <= max_drop, "{interval:?}");
            assert!(interval.high_of(0.85 * times) > max_drop, "{interval:?}: {needed}");
        }
    }

    #[test]
    fn no_number_of_rows_shows_what_is_not_so() {
        let worse = DropInterval::of_paired_answers(20, 2, 450).unwrap();
        assert_eq!(worse.rows_needed(worse.drop), None);
        assert_eq!(worse.rows_needed(0.01), None);
        assert_eq!(DropInterval::of_paired_answers(0, 0, 0), None);
        assert_eq!(DropInterval::of_differing_answers(0, 0), None);
        assert_eq!(DropInterval::by_root((0.0, f64::NAN), 0.0, 9, ""), None);
    }

    #[test]
    fn rows_that_are_already_enough_are_told_in_their_own_number() {
        let equal = DropInterval::of_paired_answers(0, 0, 10_000).unwrap();
        assert!(equal.rows_needed(0.002).unwrap() <= 2000);
    }

    #[test]
    fn json_has_the_four_facts() {
        let json = serde_json::to_value(DropInterval::of_paired_answers(3, 1, 100)).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["confidence", "high", "low", "method"]);
    }
}
