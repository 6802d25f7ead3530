//! Watching tensors over many batches, in memory that does not grow with their number.
//!
//! - [`Observer`]: the range and a histogram of one tensor, for every
//!   [`RangeMethod`](crate::RangeMethod).
//! - [`ChannelObserver`]: the range, the mean and the power of every channel.
//! - [`HessianObserver`]: what the inputs of a product do together.
//!
//! All can be merged: `a.merge(&b)` leaves in `a` what observing the values of both would have.

mod channel;
mod extremes;
mod hessian;
mod histogram;

pub use channel::{ChannelObserver, ChannelSeen};
pub(crate) use hessian::cpu;
pub use hessian::{Hessian, HessianObserver};

use extremes::Extremes;
use histogram::Histogram;

/// Values looked at together: they stay in the cache between one pass and the next.
const BLOCK: usize = 1 << 15;

/// What was seen of one tensor: at most 2048 counters, however much was observed.
///
/// The range, the counts and the bins depend on the values alone, not on their order or batches.
/// The sums are rounded to f64 as they go: their last digits may depend on the order.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    extremes: Extremes,
    zeros: u64,
    sum: f64,
    sum_of_squares: f64,
    histogram: Histogram,
}

/// Some values of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// The middle of the bin, in units of the tensor.
    pub center: f64,
    /// How many values it holds.
    pub count: u64,
}

impl Observer {
    /// Nothing seen yet.
    pub fn new() -> Observer {
        Observer::default()
    }

    /// Adds values, of any number and order.
    pub fn observe(&mut self, values: &[f32]) {
        for block in values.chunks(BLOCK) {
            let extremes = Extremes::of(block);
            self.extremes.join(&extremes);
            if extremes.finite == 0 {
                continue;
            }
            self.histogram.widen(self.extremes.min, self.extremes.max);
            self.histogram.count(block, extremes.finite == block.len() as u64);
            let moments = Moments::of(block);
            self.zeros += moments.zeros;
            self.sum += moments.sum;
            self.sum_of_squares += moments.sum_of_squares;
        }
    }

    /// Adds what another observer saw; the same as having observed it here.
    pub fn merge(&mut self, other: &Observer) {
        self.extremes.join(&other.extremes);
        if other.extremes.finite == 0 {
            return;
        }
        self.zeros += other.zeros;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
        self.histogram.widen(self.extremes.min, self.extremes.max);
        self.histogram.add(&other.histogram);
    }

    /// The smallest and the largest finite value; `None` if there was none.
    pub fn range(&self) -> Option<(f32, f32)> {
        self.extremes.range()
    }

    /// Finite values seen.
    pub fn count_finite(&self) -> u64 {
        self.extremes.finite
    }

    /// NaNs and infinities seen; they are in no bin and no sum.
    pub fn count_not_finite(&self) -> u64 {
        self.extremes.nans + self.extremes.infinities
    }

    /// Infinities seen, of either sign.
    pub fn infinities(&self) -> u64 {
        self.extremes.infinities
    }

    /// Whether a NaN was seen.
    pub fn has_nan(&self) -> bool {
        self.extremes.nans > 0
    }

    /// Exact zeros seen, among the finite values.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The sum of the finite values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The sum of the squares of the finite values.
    pub fn sum_of_squares(&self) -> f64 {
        self.sum_of_squares
    }

    /// The mean of the finite values, 0 if there is none.
    pub fn mean(&self) -> f64 {
        self.sum / self.extremes.finite.max(1) as f64
    }

    /// The width of a bin, a power of two, in units of the tensor.
    pub fn bin_width(&self) -> f64 {
        2f64.powi(self.histogram.exponent)
    }

    /// The bins from that of the smallest value to that of the largest, each `bin_width` wide.
    /// Zero is an edge. Exact zeros, which every quantization keeps exactly, are left out.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = Bin> + ExactSizeIterator {
        let width = self.bin_width();
        self.histogram.counts.iter().enumerate().map(move |(i, &count)| {
            let index = self.histogram.first + i as i64;
            let zeros = if index == 0 { self.zeros } else { 0 };
            Bin { center: (index as f64 + 0.5) * width, count: count - zeros }
        })
    }
}

/// Sums over the finite values of a slice.
#[derive(Default)]
struct Moments {
    zeros: u64,
    sum: f64,
    sum_of_squares: f64,
}

impl Moments {
    /// Of at most `u32::MAX` values, in eight lanes.
    fn of(values: &[f32]) -> Moments {
        let (mut zeros, mut sum, mut squares) = ([0u32; 8], [0f64; 8], [0f64; 8]);
        let (chunks, tail) = values.as_chunks::<8>();
        for chunk in chunks {
            for lane in 0..8 {
                let x = f64::from(chunk[lane]);
                zeros[lane] += u32::from(chunk[lane] == 0.0);
                sum[lane] += x;
                squares[lane] += x * x;
            }
        }
        for (lane, &x) in tail.iter().enumerate() {
            zeros[lane] += u32::from(x == 0.0);
            sum[lane] += f64::from(x);
            squares[lane] += f64::from(x) * f64::from(x);
        }
        let moments = Moments {
            zeros: zeros.iter().map(|&n| u64::from(n)).sum(),
            sum: sum.iter().sum(),
            sum_of_squares: squares.iter().sum(),
        };
        // No sum of f32 squares overflows an f64: it is finite if all values are.
        match moments.sum_of_squares.is_finite() {
            true => moments,
            false => {
                let finite: Vec<f32> = values.iter().copied().filter(|x| x.is_finite()).collect();
                Moments::of(&finite)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::histogram::BINS;
    use super::*;
    use proptest::prelude::*;

    fn observed(batches: &[&[f32]]) -> Observer {
        let mut observer = Observer::new();
        batches.iter().for_each(|b| observer.observe(b));
        observer
    }

    /// All that does not depend on the order.
    fn exact(o: &Observer) -> (Extremes, u64, Histogram) {
        (o.extremes, o.zeros, o.histogram.clone())
    }

    /// The definition: bins counted one value at a time, in f64.
    fn counted(values: &[f32], o: &Observer) -> Vec<u64> {
        let mut counts = vec![0; o.histogram.counts.len()];
        for &x in values.iter().filter(|x| x.is_finite()) {
            let bin = (f64::from(x) / o.bin_width()).floor() as i64;
            counts[(bin - o.histogram.first) as usize] += 1;
        }
        counts
    }

    #[test]
    fn values_that_are_not_finite_are_counted_apart() {
        let o = observed(&[&[f32::NAN, f32::INFINITY, 1.0, 0.0, f32::NEG_INFINITY]]);
        assert_eq!((o.count_finite(), o.count_not_finite(), o.infinities()), (2, 3, 2));
        assert_eq!((o.zeros(), o.sum(), o.sum_of_squares()), (1, 1.0, 1.0));
        assert!(o.has_nan());
        assert_eq!(o.range(), Some((0.0, 1.0)));
        let o = observed(&[&[f32::NAN; 9]]);
        assert_eq!((o.range(), o.bins().len()), (None, 0));
        assert_eq!(exact(&observed(&[&[]])), exact(&Observer::new()));
    }

    #[test]
    fn memory_is_bounded_and_the_range_is_finely_covered() {
        let mut o = observed(&[&[1e-30]]);
        for exponent in -30..30 {
            o.observe(&[10f32.powi(exponent), 0.3 * 10f32.powi(exponent)]);
            assert!(o.bins().len() <= BINS);
        }
        assert!(o.bins().len() > BINS / 2);
        let one_sided: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        assert!(observed(&[&one_sided]).bins().len() > BINS / 2);
        assert_eq!(observed(&[&[7.5; 100]]).bins().len(), 1);
        assert_eq!(observed(&[&[0.0, -0.0]]).zeros(), 2);
        for extreme in [[f32::MIN, f32::MAX], [f32::from_bits(1), 1.0], [0.0, f32::from_bits(1)]] {
            assert!(observed(&[&extreme]).bins().len() <= BINS);
        }
    }

    #[test]
    fn a_value_far_below_the_width_of_a_bin_keeps_its_side_of_zero() {
        let (tiny, wide) = ([-1e-30f32, -f32::from_bits(1), 1e-40], [1e30f32, -1e30]);
        assert_eq!(exact(&observed(&[&tiny, &wide])), exact(&observed(&[&wide, &tiny])));
    }

    #[test]
    fn large_batches_are_counted_as_single_values_are() {
        let values: Vec<f32> = (0..100_001u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 2f32.powi(-20) - 5.0)
            .collect();
        let o = observed(&[&values]);
        assert_eq!(o.histogram.counts, counted(&values, &o));
        let sum: f64 = values.iter().map(|&x| f64::from(x)).sum();
        assert!((o.sum() - sum).abs() < 1e-6);
        let mut with_nan = values.clone();
        with_nan[77_777] = f32::NAN;
        assert_eq!(observed(&[&with_nan]).count_finite(), 100_000);
    }

    proptest! {
        #[test]
        fn order_batches_and_merging_do_not_matter(
            values in prop::collection::vec(any::<f32>(), 1..200), spread in 1i32..120, cut in 0usize..200,
        ) {
            // Every exponent, or fewer of them: then bins hold more than one value.
            let values: Vec<f32> = values.iter().map(|x| match x.is_finite() {
                true => (x.to_bits() as f32 / 2f32.powi(31) - 1.0) * 2f32.powi(x.to_bits() as i32 % spread),
                false => *x,
            }).collect();
            let cut = cut.min(values.len());
            let whole = observed(&[&values]);
            let (a, b) = values.split_at(cut);
            prop_assert_eq!(exact(&observed(&[a, b])), exact(&whole));
            prop_assert_eq!(exact(&observed(&[b, a])), exact(&whole));
            let mut merged = observed(&[a]);
            merged.merge(&observed(&[b]));
            prop_assert_eq!(exact(&merged), exact(&whole));
            let single: Vec<&[f32]> = values.chunks(1).collect();
            prop_assert_eq!(exact(&observed(&single)), exact(&whole));
            prop_assert_eq!(&whole.histogram.counts, &counted(&values, &whole));
            let size = values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x.abs())).sum::<f64>();
            prop_assert!((merged.sum() - whole.sum()).abs() <= 1e-12 * size);
        }

        #[test]
        fn any_floats_at_all_can_be_observed(values in prop::collection::vec(any::<f32>(), 1..100)) {
            let whole = observed(&[&values]);
            prop_assert_eq!(&whole.histogram.counts, &counted(&values, &whole));
            let single: Vec<&[f32]> = values.chunks(1).rev().collect();
            prop_assert_eq!(exact(&observed(&single)), exact(&whole));
            prop_assert!(whole.bins().len() <= BINS);
        }
    }
}
