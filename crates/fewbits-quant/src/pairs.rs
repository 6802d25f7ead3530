//! Pairs of integers whose products a kernel adds up in 16 bits.
//!
//! CPUs with AVX2 and no VNNI multiply unsigned by signed bytes with `vpmaddubsw`, which adds two
//! neighbouring products and saturates the sum at 16 bits: `255 * 127 + 255 * 127` is 64,770 and
//! becomes 32,767. Where the positive integers of a pair add up to no more than 128, and the negative
//! ones to no less than -128, no inputs can do that: `255 * 128 < 2^15`.

use std::cmp::{max, min};

use serde::Serialize;

/// The most that the integers of one sign in a pair may add up to.
pub const PAIR_LIMIT: i16 = i16::MAX / u8::MAX as i16;

/// The order in which a kernel goes through what a product sums over: axes of the weight, the last one
/// fastest. Elements 0 and 1 of a sum make a pair, 2 and 3 the next; an odd last one stands alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SumOrder {
    axes: Vec<usize>,
}

impl SumOrder {
    /// The order over these axes.
    pub fn new(axes: Vec<usize>) -> SumOrder {
        SumOrder { axes }
    }

    /// Whether the sum goes along this axis.
    pub fn contains(&self, axis: usize) -> bool {
        self.axes.contains(&axis)
    }

    /// Calls `visit` with the positions of every pair in a row-major weight of `shape`.
    pub fn for_each_pair(&self, shape: &[usize], mut visit: impl FnMut(usize, usize)) {
        let own = self.axes.iter().copied().filter(|&axis| axis < shape.len());
        let within = offsets(shape, own);
        let sums = offsets(shape, (0..shape.len()).filter(|&axis| !self.contains(axis)));
        for start in sums {
            for &[first, second] in within.as_chunks::<2>().0 {
                visit(start + first, start + second);
            }
        }
    }

    /// The positions of every pair.
    pub(crate) fn pairs(&self, shape: &[usize]) -> Vec<Pair> {
        let mut pairs = Vec::with_capacity(shape.iter().product::<usize>() / 2);
        self.for_each_pair(shape, |first, second| pairs.push((first as u32, second as u32)));
        pairs
    }
}

/// The positions of two neighbours.
pub(crate) type Pair = (u32, u32);

/// The positions of the elements along some axes, at the start of all others; the last axis fastest.
fn offsets(shape: &[usize], axes: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut offsets = vec![0];
    for axis in axes {
        let stride: usize = shape[axis + 1..].iter().product();
        let longer = offsets.iter().flat_map(|&o| (0..shape[axis]).map(move |i| o + i * stride));
        offsets = longer.collect();
    }
    offsets
}

/// The pairs of integers, of a row-major weight of `shape`, that can saturate a sum of 16 bits.
pub fn saturating_pairs(
    codes: &[i16],
    shape: &[usize],
    orders: &[SumOrder],
) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for order in orders {
        order.for_each_pair(shape, |first, second| {
            if saturates(codes[first], codes[second]) {
                found.push((first, second));
            }
        });
    }
    found
}

#[inline]
pub(crate) fn saturates(first: i16, second: i16) -> bool {
    max(first, 0) + max(second, 0) > PAIR_LIMIT || min(first, 0) + min(second, 0) < -PAIR_LIMIT
}

/// What a weight may become beside one that it makes a pair with, or many.
#[inline]
pub(crate) fn bounds_beside(partners: impl Iterator<Item = i16>) -> (i16, i16) {
    partners.fold((-PAIR_LIMIT, PAIR_LIMIT), |(low, high), code| {
        (max(low, -PAIR_LIMIT - min(code, 0)), min(high, PAIR_LIMIT - max(code, 0)))
    })
}

/// Whether no pair of `lists` can saturate.
pub(crate) fn none_saturates(codes: &[i16], lists: &[Vec<Pair>]) -> bool {
    let of = |&(first, second): &Pair| saturates(codes[first as usize], codes[second as usize]);
    lists.iter().all(|pairs| !pairs.iter().any(of))
}

/// Brings every pair of `lists` that can saturate to the nearest integers that cannot: `target` is what
/// an element would be in steps, and how much its squared error counts. An element may be in a pair of
/// every list, so the lists are gone through until none saturates; magnitudes only fall, so that ends.
/// Says whether there was any.
pub(crate) fn project(
    codes: &mut [i16],
    lists: &[Vec<Pair>],
    target: impl Fn(usize) -> (f32, f32),
) -> bool {
    let (mut any, mut changed) = (false, true);
    while changed {
        changed = false;
        for &(first, second) in lists.iter().flatten() {
            let (first, second) = (first as usize, second as usize);
            if saturates(codes[first], codes[second]) {
                let sum = [codes[first], codes[second]];
                [codes[first], codes[second]] = nearest(sum, [target(first), target(second)]);
                changed = true;
            }
        }
        any |= changed;
    }
    any
}

/// The integers of one sign nearest to two targets that add up to the limit, neither larger than it was.
fn nearest(codes: [i16; 2], targets: [(f32, f32); 2]) -> [i16; 2] {
    let sign = codes[0].signum();
    let [(x, x_weight), (y, y_weight)] = targets;
    let [a, b] = codes.map(|code| code * sign);
    // The least of `x_weight (x - a)² + y_weight (y - limit + a)²`.
    let (x, rest) = (x * f32::from(sign), f32::from(PAIR_LIMIT) - y * f32::from(sign));
    let weight = x_weight + y_weight;
    let best = match weight > 0.0 && weight.is_finite() {
        true => (x_weight * x + y_weight * rest) / weight,
        false => (x + rest) / 2.0,
    };
    let best = crate::round_half_even(best.clamp(f32::from(PAIR_LIMIT - b), f32::from(a))) as i16;
    [best * sign, (PAIR_LIMIT - best) * sign]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(shape: &[usize], axes: &[usize]) -> Vec<Pair> {
        SumOrder::new(axes.to_vec()).pairs(shape)
    }

    #[test]
    fn neighbours_follow_the_order_of_the_sum() {
        // A MatMul sums down each column, of which the last element stands alone.
        assert_eq!(pairs(&[3, 2], &[0]), [(0, 2), (1, 3)]);
        // A Gemm with transB along each row.
        assert_eq!(pairs(&[2, 3], &[1]), [(0, 1), (3, 4)]);
        // A convolution [out, channels, taps]: channel by channel, or tap by tap.
        assert_eq!(pairs(&[1, 2, 3], &[1, 2]), [(0, 1), (2, 3), (4, 5)]);
        assert_eq!(pairs(&[1, 2, 3], &[2, 1]), [(0, 3), (1, 4), (2, 5)]);
        // Matrices of a batch are sums of their own.
        assert_eq!(pairs(&[2, 2, 1], &[1]), [(0, 1), (2, 3)]);
        assert_eq!(pairs(&[0, 2], &[1]), []);
    }

    #[test]
    fn the_limit_is_what_sixteen_bits_hold() {
        for (first, second) in [(64, 64), (127, 1), (127, -127), (-64, -64), (-127, -1), (-128, 0)]
        {
            let sums = [255 * (first.max(0) + second.max(0)), 255 * (first.min(0) + second.min(0))];
            assert!(sums.iter().all(|sum: &i32| i16::try_from(*sum).is_ok()));
            assert!(!saturates(first as i16, second as i16));
        }
        for (first, second) in [(65, 64), (127, 2), (-64, -65), (-127, -2)] {
            assert!(i16::try_from(255 * (first + second)).is_err());
            assert!(saturates(first as i16, second as i16));
        }
    }

    #[test]
    fn a_pair_goes_to_the_nearest_that_cannot_saturate() {
        assert_eq!(nearest([127, 127], [(127.0, 1.0), (127.0, 1.0)]), [64, 64]);
        assert_eq!(nearest([-100, -40], [(-100.2, 1.0), (-39.8, 1.0)]), [-94, -34]);
        // What counts more moves less, and what is cut off already stays there.
        assert_eq!(nearest([100, 40], [(100.0, 3.0), (40.0, 1.0)]), [97, 31]);
        assert_eq!(nearest([127, 10], [(150.0, 1.0), (10.0, 1.0)]), [127, 1]);
        assert_eq!(nearest([127, 127], [(127.0, 0.0), (127.0, 0.0)]), [64, 64]);
    }

    proptest! {
        #[test]
        fn projecting_ends_with_no_pair_that_saturates(
            codes in prop::collection::vec(-127i16..=127, 30), axes in 0usize..3,
        ) {
            let shape = [2, 3, 5];
            let axes = [vec![vec![1, 2], vec![2, 1]], vec![vec![0], vec![1]], vec![vec![0, 1, 2]]][axes].clone();
            let orders: Vec<SumOrder> = axes.into_iter().map(SumOrder::new).collect();
            let lists: Vec<Vec<Pair>> = orders.iter().map(|order| order.pairs(&shape)).collect();
            let mut found = codes.clone();
            project(&mut found, &lists, |i| (f32::from(codes[i]), 1.0));
            prop_assert!(saturating_pairs(&found, &shape, &orders).is_empty());
            for (found, code) in found.iter().zip(&codes) {
                prop_assert!(found.abs() <= code.abs() && found * code >= 0);
            }
            // What does not saturate stays.
            if saturating_pairs(&codes, &shape, &orders).is_empty() {
                prop_assert_eq!(found, codes);
            }
        }
    }
}
