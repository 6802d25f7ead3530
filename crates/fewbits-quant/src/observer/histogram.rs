//! A histogram that widens by joining bins, exactly.
//!
//! Bins are `2^exponent` wide and start at multiples of that, so that 0 is an edge. When a value
//! falls outside, the exponent grows and neighbouring bins are joined. Joining is exact: the bin of
//! a value in the wider histogram, `floor(x / 2^(e+1))`, is half of its bin in the narrower one,
//! `floor(x / 2^e)`, rounded down. The exponent is always the least for which all values fit, and
//! the bins are those from the smallest value to the largest, wherever those lie: a one-sided
//! tensor does not spend half of its bins on values that never come. So what a histogram holds
//! depends on the values alone, not on their order.

/// Bins of a histogram. Unless the values are too close to each other to be told apart so finely,
/// more than half of them are in use.
pub(super) const BINS: usize = 2048;

/// The finest bins are this many binary digits below the largest magnitude: almost as many as an
/// f32 has, and few enough that an index can be rounded in f32.
const FINEST_DIGITS: i32 = 21;

/// Finer than the bins of any other tensor: those of one that holds nothing but zeros.
const FINEST_EXPONENT: i32 = -180;

/// Values counted at a time in narrow counters.
const BLOCK: usize = 1 << 15;

/// Fewer values are not worth gathering the narrow counters.
const FEW: usize = 4096;

/// How many of the observed values lie in each bin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Bins are `2^exponent` wide.
    pub exponent: i32,
    /// The index of the first bin: it starts at `first * 2^exponent`.
    pub first: i64,
    /// From the bin of the smallest value to that of the largest.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Makes the bins those of the finite range `min..=max`, which must contain all earlier ones.
    pub fn widen(&mut self, min: f32, max: f32) {
        let exponent = exponent_for(min, max);
        let first = index(min, exponent);
        let bins = (index(max, exponent) - first + 1) as usize;
        let same = (exponent, first, bins) == (self.exponent, self.first, self.counts.len());
        if same {
            return;
        }
        let narrow = std::mem::take(self);
        *self = Histogram { exponent, first, counts: vec![0; bins] };
        self.add(&narrow);
    }

    /// Adds the counts of a histogram whose values all lie within the bins of this one.
    pub fn add(&mut self, other: &Histogram) {
        // Past 63 joins every index is 0 or -1.
        let joins = (self.exponent - other.exponent).clamp(0, 63);
        for (i, &count) in other.counts.iter().enumerate() {
            let bin = (other.first + i as i64) >> joins;
            self.counts[(bin - self.first) as usize] += count;
        }
    }

    /// Counts values; the finite ones must lie within the bins, the others are passed over if
    /// `all_finite` is false.
    pub fn count(&mut self, values: &[f32], all_finite: bool) {
        // 2^exponent and its inverse must both be normal numbers.
        let scalable = (-126..=126).contains(&self.exponent);
        if !all_finite || !scalable {
            for &x in values.iter().filter(|x| x.is_finite()) {
                self.counts[(index(x, self.exponent) - self.first) as usize] += 1;
            }
        } else if values.len() < FEW {
            self.for_each_bin(values, |counts, bins| {
                for &bin in bins {
                    counts[usize::from(bin)] += 1;
                }
            });
        } else {
            values.chunks(BLOCK).for_each(|block| self.count_block(block));
        }
    }

    /// Counts up to [`BLOCK`] values. Neighbouring values often share a bin, and a counter cannot
    /// be raised again before it is written: so there are four for each bin.
    fn count_block(&mut self, values: &[f32]) {
        const { assert!(BLOCK / 4 <= u16::MAX as usize) };
        let mut fours = [[0u16; 4]; BINS];
        self.for_each_bin(values, |_, bins| {
            let (chunks, tail) = bins.as_chunks::<4>();
            for chunk in chunks {
                for (lane, &bin) in chunk.iter().enumerate() {
                    fours[usize::from(bin) % BINS][lane] += 1;
                }
            }
            for &bin in tail {
                fours[usize::from(bin) % BINS][0] += 1;
            }
        });
        for (count, four) in self.counts.iter_mut().zip(&fours) {
            *count += four.iter().map(|&n| u64::from(n)).sum::<u64>();
        }
    }

    /// The bins of `values`, counted from the first one, some at a time.
    ///
    /// `floor(x / 2^e)` in operations that every vector unit has: the nearest integer, by adding
    /// 1.5 * 2^23, after which an f32 has no digits for fractions left; one less if that was
    /// above `x`. All of it is exact: scaling by a power of two loses digits only of values far
    /// below a bin's width, and those are compared unscaled.
    fn for_each_bin(&mut self, values: &[f32], mut visit: impl FnMut(&mut [u64], &[u16])) {
        const SHIFTER: f32 = 1.5 * (1 << 23) as f32;
        const { assert!(FINEST_DIGITS < 22) };
        let width = 2f32.powi(self.exponent);
        let inverse = 2f32.powi(-self.exponent);
        let origin = (SHIFTER.to_bits() as i32).wrapping_add(self.first as i32);
        let mut bins = [0u16; 256];
        for chunk in values.chunks(bins.len()) {
            for (bin, &x) in bins.iter_mut().zip(chunk) {
                let shifted = x * inverse + SHIFTER;
                let above = x < (shifted - SHIFTER) * width;
                *bin = (shifted.to_bits() as i32 - origin - i32::from(above)) as u16;
            }
            visit(&mut self.counts, &bins[..chunk.len()]);
        }
    }
}

/// The least exponent for which the range takes at most [`BINS`] bins.
fn exponent_for(min: f32, max: f32) -> i32 {
    let largest = min.abs().max(max.abs());
    if largest == 0.0 {
        return FINEST_EXPONENT;
    }
    let mut exponent = floor_log2(f64::from(largest)) - FINEST_DIGITS;
    let width = f64::from(max) - f64::from(min);
    if width > 0.0 {
        // A width of 2^k takes at least 2^(k-e) bins: below this exponent it never fits.
        exponent = exponent.max(floor_log2(width) - BINS.ilog2() as i32);
    }
    while index(max, exponent) - index(min, exponent) >= BINS as i64 {
        exponent += 1;
    }
    exponent
}

/// `floor(log2(x))` of a positive number that is normal, as every positive f32 is in f64.
fn floor_log2(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}

/// `floor(value / 2^exponent)`. A value far below a bin's width keeps its sign in f64.
fn index(value: f32, exponent: i32) -> i64 {
    (f64::from(value) * 2f64.powi(-exponent)).floor() as i64
}
