//! The weights of one tensor before and after quantization.

use fewbits_onnx::Model;

use super::WeightHistogram;
use crate::plan::Plan;
use crate::prepare::prepare_as;
use crate::{Error, Result, WeightLimits};

/// Histograms of so many tensors are shown.
const SHOWN: usize = 3;

/// Fine enough to show the levels of 4 bits, coarse enough for a phone.
const BINS: usize = 48;

/// The weights of `source` that lose most by a plan, before and after.
///
/// # Errors
/// If a weight cannot be read or quantized.
pub fn worst_weights(source: &Model, plan: &Plan) -> Result<Vec<WeightHistogram>> {
    let mut prepared = source.clone();
    prepare_as(&mut prepared, plan.least_opset(), plan.integer_weights)?;
    let limits = WeightLimits::new(&prepared, plan)?;
    let mut weights: Vec<(f64, Option<WeightHistogram>)> = Vec::new();
    for (planned, integers) in plan.tensors.iter().filter_map(|t| Some((t, t.integers()?))) {
        let Some(tensor) = prepared.graph().find_initializer(&planned.tensor) else { continue };
        let before = tensor.floats()?;
        let after = integers
            .rounded(&before, &planned.shape, limits.of(&planned.tensor))
            .map_err(|source| Error::Quant { tensor: planned.tensor.clone(), source })?;
        let scheme = integers.scheme.to_string();
        let histogram = WeightHistogram::of(&planned.tensor, &scheme, &before, &after);
        weights.push((relative_noise(&before, &after), histogram));
    }
    weights.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(weights.into_iter().filter_map(|(_, histogram)| histogram).take(SHOWN).collect())
}

/// The power of what changed over that of the values.
fn relative_noise(before: &[f32], after: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let noise: f64 = before.iter().zip(after).map(|(b, a)| square(b - a)).sum();
    noise / before.iter().map(|&b| square(b)).sum::<f64>().max(f64::MIN_POSITIVE)
}

impl WeightHistogram {
    /// Counts the values of a float tensor and what its integers stand for. What is not finite is
    /// not counted; without a finite value there is nothing to show.
    pub fn of(
        tensor: &str,
        scheme: &str,
        before: &[f32],
        after: &[f32],
    ) -> Option<WeightHistogram> {
        let finite = || before.iter().chain(after).copied().filter(|v| v.is_finite());
        let low = finite().reduce(f32::min)?;
        let high = finite().reduce(f32::max)?;
        Some(WeightHistogram {
            tensor: tensor.to_string(),
            scheme: scheme.to_string(),
            low,
            high,
            before: count(before, low, high),
            after: count(after, low, high),
        })
    }
}

fn count(values: &[f32], low: f32, high: f32) -> Vec<u64> {
    // In f64, where the width of the range cannot overflow.
    let (low, width) = (f64::from(low), f64::from(high) - f64::from(low));
    let mut bins = vec![0; if width > 0.0 { BINS } else { 1 }];
    let last = bins.len() - 1;
    for value in values.iter().filter(|v| v.is_finite()) {
        let at = (f64::from(*value) - low) / width * BINS as f64;
        // The largest value belongs to the last bin, which is closed.
        bins[(at as usize).min(last)] += 1;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_counted_in_the_same_bins() {
        let h = WeightHistogram::of("w", "2-bit", &[-1.0, 0.2, 1.0], &[-1.0, 0.0, 2.0]).unwrap();
        assert_eq!((h.low, h.high), (-1.0, 2.0));
        assert_eq!((h.before.len(), h.after.len()), (BINS, BINS));
        assert_eq!((h.before[0], h.before[19], h.before[32]), (1, 1, 1));
        assert_eq!((h.after[0], h.after[16], h.after[47]), (1, 1, 1));
    }

    #[test]
    fn extremes_do_not_overflow_and_what_is_not_finite_is_left_out() {
        let values = [f32::MIN, f32::MAX, f32::NAN, f32::INFINITY];
        let h = WeightHistogram::of("w", "", &values, &[]).unwrap();
        assert_eq!((h.before[0], h.before[BINS - 1]), (1, 1));
        assert_eq!(h.before.iter().sum::<u64>(), 2);
        assert_eq!(h.after, vec![0; BINS]);
        assert_eq!(WeightHistogram::of("w", "", &[f32::NAN], &[]), None);
    }

    #[test]
    fn one_value_is_one_bin() {
        let h = WeightHistogram::of("w", "", &[3.0; 5], &[3.0; 5]).unwrap();
        assert_eq!((h.before, h.after), (vec![5], vec![5]));
    }
}
