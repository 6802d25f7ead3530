//! All but a share of outliers.
//!
//! McKinstry et al. 2019, "Discovering Low-Precision Networks Close to Full-Precision Networks for
//! Efficient Embedded Inference": activations are clipped at a high percentile (99.9 to 99.99)
//! instead of their maximum.
//!
//! Exact zeros are not ranked: every range keeps them exactly, and a tensor of mostly zeros would
//! otherwise lose all that it says.

use super::Percentile;
use crate::{Bin, Observer};

/// The range that holds at least `percentile` per cent of the values, half of the others on either
/// side; `None` if nothing finite was seen. Inside a bin values are taken to be spread evenly.
pub fn range(observer: &Observer, percentile: Percentile) -> Option<(f32, f32)> {
    let (min, max) = observer.range()?;
    let ranked = observer.count_finite() - observer.zeros();
    let cut = ranked as f64 * (1.0 - percentile.get() / 100.0) / 2.0;
    let half = observer.bin_width() / 2.0;
    let high = edge(observer.bins().rev(), cut).map_or(max, |(c, beyond)| {
        // The share of the bin that lies beyond the edge is cut from its upper end.
        (c + half - 2.0 * half * beyond) as f32
    });
    let low = edge(observer.bins(), cut).map_or(min, |(c, beyond)| {
        let inner = c - half + 2.0 * half * beyond;
        inner as f32
    });
    // The outermost bins reach beyond the outermost values.
    Some((low.clamp(min, max), high.clamp(min, max)))
}

/// The first bin, from outside in, that is not cut off whole: its center and the share of it that
/// is; `None` if all bins are empty.
fn edge(bins: impl Iterator<Item = Bin>, mut cut: f64) -> Option<(f64, f64)> {
    for bin in bins {
        let count = bin.count as f64;
        if count > cut {
            return Some((bin.center, cut / count));
        }
        cut -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(values: &[f32]) -> Observer {
        let mut observer = Observer::new();
        observer.observe(values);
        observer
    }

    fn percentile(p: f64) -> Percentile {
        Percentile::new(p).unwrap()
    }

    #[test]
    fn outliers_are_cut_and_the_rest_is_kept() {
        let mut values: Vec<f32> = (0..10_000).map(|i| i as f32 / 10_000.0).collect();
        values.push(1000.0);
        let (low, high) = range(&observed(&values), percentile(99.9)).unwrap();
        assert!((0.9..2.0).contains(&high), "{high}");
        assert!(low < 0.5);
        let (low, high) = range(&observed(&values[1..]), percentile(100.0)).unwrap();
        assert_eq!((low, high), (1e-4, 1000.0));
    }

    #[test]
    fn the_share_is_cut_half_from_either_end_and_linearly_inside_a_bin() {
        let values: Vec<f32> = (0..100_000).map(|i| i as f32 / 50_000.0 - 1.0).collect();
        for p in [99.99, 99.0, 90.0, 60.0] {
            let (low, high) = range(&observed(&values), percentile(p)).unwrap();
            let want = (p / 100.0) as f32;
            // Much closer than the width of a bin, 2^-10.
            assert!((high - want).abs() < 1e-4 && (low + want).abs() < 1e-4, "{p}: {low}..{high}");
        }
    }

    #[test]
    fn a_tensor_of_mostly_zeros_keeps_its_few_values() {
        let mut values = vec![0.0; 1_000_000];
        values.extend((1..=50).map(|i| i as f32 / 50.0));
        let (_, high) = range(&observed(&values), percentile(99.99)).unwrap();
        assert!(high > 0.9, "{high}");
        assert_eq!(range(&observed(&[0.0; 9]), percentile(99.0)), Some((0.0, 0.0)));
        assert_eq!(range(&observed(&[0.0, 3.0]), percentile(51.0)).map(|r| r.1 > 2.9), Some(true));
        assert_eq!(range(&Observer::new(), percentile(99.0)), None);
    }
}
