//! Where values lie along an axis, and which of them are written there.

use std::cmp::Ordering;

/// From this ratio of the greatest to the least value on, equal ratios are equally far apart.
const LOG_FROM: f64 = 4.0;
/// What a logarithmic axis leaves free at each end, of its length.
const MARGIN: f64 = 0.06;
/// More marks than this do not fit.
const MOST_MARKS: usize = 6;

/// An axis of a plot.
pub(super) struct Axis {
    low: f64,
    high: f64,
    spacing: Spacing,
    /// The values to write, rising.
    pub(super) marks: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Spacing {
    Linear,
    Log,
}

impl Axis {
    /// From the least to the greatest value, which is marked like every other.
    pub(super) fn of_each(values: impl Iterator<Item = f64>) -> Axis {
        let mut marks: Vec<f64> = values.filter(|v| v.is_finite()).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let (low, high) = bounds(marks.iter().copied());
        Axis { low, high, spacing: Spacing::Linear, marks }
    }

    /// Between round values, about so many of them.
    pub(super) fn round(values: impl Iterator<Item = f64>, about: f64) -> Axis {
        let (low, high) = bounds(values);
        let step = nice_step((high - low) / about);
        // A value that is round but for the last bit is round.
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let marks: Vec<f64> =
            (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Axis { low: first * step, high: last * step, spacing: Spacing::Linear, marks }
    }

    /// As `round`, or logarithmic where positive values differ by a large factor.
    pub(super) fn by_ratio(values: impl Iterator<Item = f64> + Clone, about: f64) -> Axis {
        let (low, high) = bounds(values.clone());
        if low <= 0.0 || high / low < LOG_FROM {
            return Axis::round(values, about);
        }
        let margin = (high / low).powf(MARGIN);
        let (low, high) = (low / margin, high * margin);
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let within = |multiples: &[f64]| -> Vec<f64> {
            let all =
                decades.clone().flat_map(|d| multiples.iter().map(move |m| m * 10f64.powi(d)));
            all.filter(|v| (low..=high).contains(v)).collect()
        };
        let mut marks = within(&[1.0, 2.0, 5.0]);
        if marks.len() > MOST_MARKS {
            marks = within(&[1.0]);
        }
        if marks.len() > MOST_MARKS {
            let every = marks.len().div_ceil(MOST_MARKS);
            marks = marks.into_iter().step_by(every).collect();
        }
        Axis { low, high, spacing: Spacing::Log, marks }
    }

    /// How far along the axis a value lies, from 0 to 1; what lies beyond an end is put there.
    pub(super) fn at(&self, value: f64) -> f64 {
        let place = |v: f64| if self.spacing == Spacing::Log { v.ln() } else { v };
        let (low, high) = (place(self.low), place(self.high));
        ((place(value.clamp(self.low, self.high)) - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Whether a value lies between the ends.
    pub(super) fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// A mark as it is written in units of `unit`: all on a linear axis with as many decimals.
    pub(super) fn written(&self, mark: f64, unit: f64) -> String {
        let step = match (self.spacing, self.marks.as_slice()) {
            (Spacing::Linear, [first, second, ..]) => second - first,
            _ => mark.abs(),
        };
        let decimals = (-(step / unit).log10() - 1e-9).ceil().clamp(0.0, 9.0) as usize;
        // No minus before a zero.
        let minus = if mark < -step * 1e-6 { "−" } else { "" };
        format!("{minus}{:.decimals$}", mark.abs() / unit)
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match low.partial_cmp(&high) {
        Some(Ordering::Less) if high - low > 1e-9 * high.abs().max(low.abs()) => (low, high),
        // All the same: a little room around it.
        Some(Ordering::Less | Ordering::Equal) => {
            let room = if low == 0.0 { 0.5 } else { 0.05 * low.abs() };
            (low - room, low + room)
        }
        _ => (0.0, 1.0),
    }
}

/// The next of 1, 2 or 5 times a power of ten.
fn nice_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= raw).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert!((nice_step(0.013) - 0.02).abs() < 1e-12);
        assert!((nice_step(31.0) - 50.0).abs() < 1e-12);
    }

    #[test]
    fn marks_are_round_and_end_at_the_values() {
        let axis = Axis::round([0.9, 1.0].into_iter(), 5.0);
        let written: Vec<String> = axis.marks.iter().map(|m| axis.written(*m, 1.0)).collect();
        assert_eq!(written, ["0.90", "0.92", "0.94", "0.96", "0.98", "1.00"]);
        let bytes = Axis::round([10_010.0, 10_190.0].into_iter(), 4.0);
        assert_eq!(bytes.written(bytes.marks[0], 1e3), "10.00");
        assert_eq!((axis.at(0.9), axis.at(1.0), axis.at(7.0)), (0.0, 1.0, 1.0));
    }

    #[test]
    fn large_factors_are_logarithmic() {
        let axis = Axis::by_ratio([1e3, 1e5].into_iter(), 4.0);
        assert_eq!(axis.marks, [1e3, 1e4, 1e5]);
        assert!((axis.at(1e4) - 0.5).abs() < 1e-12);
        let linear = Axis::by_ratio([1.0, 2.0].into_iter(), 4.0);
        assert!((linear.at(1.5) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn no_values_and_equal_values_have_an_axis() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![0.9, 0.9], vec![-1e300, 1e300]] {
            let axis = Axis::by_ratio(values.clone().into_iter(), 4.0);
            assert!(axis.marks.len() <= 12 && !axis.marks.is_empty(), "{values:?}");
            assert!(axis.at(0.9).is_finite(), "{values:?}");
        }
    }
}
