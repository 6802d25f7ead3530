//! From floats to the range that the integers shall cover, one method a file.

pub mod entropy;
pub mod minmax;
pub mod mse;
pub mod percentile;
pub mod weights;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Observer;
use crate::params::{affine_param, symmetric_scale};

/// How the range of an activation follows from what was observed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeMethod {
    /// Everything seen. Plans are hashed, so that they go on writing `min_max`.
    #[default]
    #[serde(alias = "minmax")]
    MinMax,
    /// All but a share of outliers.
    Percentile(Percentile),
    /// The least squared error.
    Mse,
    /// The least loss of information.
    Entropy,
}

/// How the ranges of a weight follow from its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightRange {
    /// All values.
    #[default]
    #[serde(alias = "minmax")]
    MinMax,
    /// The least squared error, weighted by importance.
    Mse,
}

/// A percentage above 50 and at most 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percentile(f64);

impl Percentile {
    /// `None` unless `percent` is above 50 and at most 100.
    pub fn new(percent: f64) -> Option<Percentile> {
        (percent > 50.0 && percent <= 100.0).then_some(Percentile(percent))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Percentile {
    type Error = String;

    fn try_from(percent: f64) -> Result<Percentile, String> {
        Percentile::new(percent)
            .ok_or_else(|| format!("{percent}: percentiles are above 50 and at most 100"))
    }
}

impl From<Percentile> for f64 {
    fn from(percentile: Percentile) -> f64 {
        percentile.0
    }
}

impl FromStr for RangeMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<RangeMethod, String> {
        match text {
            "minmax" => Ok(RangeMethod::MinMax),
            "mse" => Ok(RangeMethod::Mse),
            "entropy" => Ok(RangeMethod::Entropy),
            _ => text
                .strip_prefix("percentile=")
                .and_then(|p| p.parse().ok())
                .and_then(Percentile::new)
                .map(RangeMethod::Percentile)
                .ok_or_else(|| {
                    "range methods are minmax, percentile=P (P above 50), mse and entropy".into()
                }),
        }
    }
}

impl fmt::Display for RangeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeMethod::MinMax => f.write_str("minmax"),
            RangeMethod::Percentile(p) => write!(f, "percentile={}", p.0),
            RangeMethod::Mse => f.write_str("mse"),
            RangeMethod::Entropy => f.write_str("entropy"),
        }
    }
}

/// The integers that a range is to be covered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// So many steps between the two ends, with a zero point.
    Affine(u16),
    /// So many steps on either side of zero.
    Symmetric(u16),
}

impl Levels {
    /// The step of a range, and the least and the greatest integer, counted from that of zero:
    /// what [`QuantParams`](crate::QuantParams) makes of the range.
    fn cover(self, range: (f32, f32)) -> (f64, f64, f64) {
        match self {
            Levels::Affine(steps) => {
                let steps = f32::from(steps);
                let (step, zero_point) = affine_param(range, steps);
                (f64::from(step), f64::from(-zero_point), f64::from(steps - zero_point))
            }
            Levels::Symmetric(steps) => {
                let step = symmetric_scale(range, f32::from(steps));
                (f64::from(step), -f64::from(steps), f64::from(steps))
            }
        }
    }
}

impl FromStr for WeightRange {
    type Err = String;

    fn from_str(text: &str) -> Result<WeightRange, String> {
        match text {
            "minmax" => Ok(WeightRange::MinMax),
            "mse" => Ok(WeightRange::Mse),
            _ => Err("ranges of weights are minmax and mse".into()),
        }
    }
}

impl fmt::Display for WeightRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WeightRange::MinMax => "minmax",
            WeightRange::Mse => "mse",
        })
    }
}

impl RangeMethod {
    /// The range for `levels`, inside what was seen; `None` if nothing finite was.
    pub fn range(self, observer: &Observer, levels: Levels) -> Option<(f32, f32)> {
        let whole = observer.range()?;
        let chosen = match self {
            RangeMethod::MinMax => whole,
            RangeMethod::Percentile(p) => percentile::range(observer, p)?,
            RangeMethod::Mse => mse::range(observer, levels)?,
            RangeMethod::Entropy => entropy::range(observer, levels)?,
        };
        let low = chosen.0.clamp(whole.0, whole.1);
        Some((low, chosen.1.clamp(low, whole.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn methods_have_names() {
        for text in ["minmax", "percentile=99.9", "mse", "entropy"] {
            assert_eq!(text.parse::<RangeMethod>().unwrap().to_string(), text);
        }
        for text in ["minmax", "mse"] {
            assert_eq!(text.parse::<WeightRange>().unwrap().to_string(), text);
        }
        assert!("entropy".parse::<WeightRange>().is_err());
        for bad in ["max", "percentile", "percentile=40", "percentile=x", "percentile=101"] {
            assert!(bad.parse::<RangeMethod>().is_err(), "{bad}");
        }
    }

    fn methods() -> [RangeMethod; 4] {
        ["minmax", "percentile=99", "mse", "entropy"].map(|m| m.parse().unwrap())
    }

    fn observed(values: &[f32]) -> Observer {
        let mut observer = Observer::new();
        observer.observe(values);
        observer
    }

    #[test]
    fn extreme_tensors_have_a_finite_range() {
        let tiny = f32::from_bits(1);
        for values in [
            vec![0.0],
            vec![tiny, 0.0],
            vec![-tiny, tiny],
            vec![f32::MIN, 0.5, f32::MAX],
            vec![f32::MAX; 3],
            vec![-1e9, 0.1, 0.2, 0.3],
            vec![f32::NAN, 1.0, f32::INFINITY],
        ] {
            for method in methods() {
                for levels in [Levels::Affine(255), Levels::Affine(1), Levels::Symmetric(127)] {
                    let (low, high) = method.range(&observed(&values), levels).unwrap();
                    assert!(low.is_finite() && low <= high && high.is_finite(), "{values:?}");
                }
            }
        }
        for method in methods() {
            assert_eq!(method.range(&observed(&[f32::NAN]), Levels::Affine(255)), None);
        }
    }

    proptest! {
        #[test]
        fn every_range_lies_inside_what_was_seen(
            values in prop::collection::vec((-4f32..4.0, 1i32..5), 1..300),
            one_sided in any::<bool>(), signed in any::<bool>(), bits in 2u32..=8,
        ) {
            // Powers give long tails; a ReLU gives zeros.
            let values: Vec<f32> = values.iter().map(|&(x, power)| {
                let x = x.powi(power);
                if one_sided { x.max(0.0) } else { x }
            }).collect();
            let observer = observed(&values);
            let (min, max) = observer.range().unwrap();
            let levels = match signed {
                true => Levels::Symmetric((1 << (bits - 1)) - 1),
                false => Levels::Affine((1 << bits) - 1),
            };
            let error = |range| mse::expected_error(&observer, levels, range);
            let whole = error((min, max));
            for method in methods() {
                let (low, high) = method.range(&observer, levels).unwrap();
                prop_assert!(min <= low && low <= high && high <= max, "{method}: {low}..{high} of {min}..{max}");
                if matches!(method, RangeMethod::Mse | RangeMethod::Entropy) {
                    prop_assert!(error((low, high)) <= whole, "{method}: {low}..{high} of {min}..{max}");
                }
            }
        }
    }
}
