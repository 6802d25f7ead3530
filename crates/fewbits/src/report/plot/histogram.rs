//! Weights before and after quantization: two histograms over one axis.

use super::WIDTH;
use super::svg::Svg;
use crate::report::WeightHistogram;
use crate::report::format;

const HEIGHT: f64 = 190.0;
/// Where the common axis lies: what was before stands on it, what came after hangs below.
const AXIS: f64 = 88.0;
/// The height of each half's highest bar.
const HALF: f64 = 72.0;
/// The free part of a bin's width.
const GAP: f64 = 1.0;

/// Both histograms, each as high as its fullest bin.
pub(in crate::report) fn weight_histogram(h: &WeightHistogram) -> String {
    let (before, after) = (fullest(&h.before), fullest(&h.after));
    let title = format!("Weights of {} before and after", h.tensor);
    let mut svg = Svg::new(WIDTH, HEIGHT, &title, &in_words(h));
    let width = WIDTH / h.before.len().max(1) as f64;
    for (i, count) in h.before.iter().enumerate() {
        let height = HALF * *count as f64 / before as f64;
        svg.rect("hist s1", (i as f64 * width, AXIS - height), width - GAP, height);
    }
    let width = WIDTH / h.after.len().max(1) as f64;
    for (i, count) in h.after.iter().enumerate() {
        let height = HALF * *count as f64 / after as f64;
        svg.rect("hist s0", (i as f64 * width, AXIS), width - GAP, height);
    }
    svg.line("base", (0.0, AXIS), (WIDTH, AXIS));
    let (low, high) = (f64::from(h.low), f64::from(h.high));
    let floor = AXIS + HALF + 22.0;
    svg.text("mark", (0.0, floor), &format::significant(low, 3));
    svg.text("mark end", (WIDTH, floor), &format::significant(high, 3));
    if low < 0.0 && 0.0 < high {
        let zero = -low / (high - low) * WIDTH;
        svg.line("base", (zero, AXIS + HALF + 4.0), (zero, AXIS + HALF + 9.0));
        // Only where it leaves the ends alone.
        if (60.0..WIDTH - 60.0).contains(&zero) {
            svg.text("mark middle", (zero, floor), "0");
        }
    }
    svg.finish()
}

/// The count of the fullest bin, at least 1.
fn fullest(bins: &[u64]) -> u64 {
    bins.iter().copied().max().unwrap_or(0).max(1)
}

fn in_words(h: &WeightHistogram) -> String {
    let used = |bins: &[u64]| bins.iter().filter(|count| **count > 0).count();
    format!(
        "As {}: values from {} to {} in {} bins. Before, they fill {} of them, at most {} values in \
         one; after, {}, at most {}.",
        h.scheme,
        format::significant(f64::from(h.low), 3),
        format::significant(f64::from(h.high), 3),
        h.before.len(),
        used(&h.before),
        format::bytes(fullest(&h.before)),
        used(&h.after),
        format::bytes(fullest(&h.after)),
    )
}
