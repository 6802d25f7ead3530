//! What the integers of a weight must keep to, so that runtimes compute what a file means.
//!
//! A channel that breaks a limit gets the scale and the integers with the least squared error of those
//! tried: scales from its own up to one at which nothing can break (twice as large), each with its values
//! rounded to nearest and then pairs that can saturate brought to the nearest integers that cannot. So a
//! few pairs among many are cut a little, and where large weights stand beside each other everywhere the
//! channel uses fewer integers. Other channels stay as they are.

use rayon::prelude::*;
use serde::Serialize;

use crate::pairs::{Pair, none_saturates, project};
use crate::range::weights::by_param;
use crate::{
    Encoding, Granularity, Layout, Matrix, PackedInts, QTensor, QuantParams, SumOrder,
    round_half_even,
};

/// What the integers of a weight must keep to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// How pairs are kept from saturating a sum.
    pub pairs: PairLimit,
    /// The least scale of every parameter, in units of the weight; none where any is fine.
    pub least_scale: Vec<f32>,
}

/// How the pairs of a weight are kept from saturating a sum of 16 bits ([`crate::saturating_pairs`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub enum PairLimit {
    /// Nothing adds them in 16 bits.
    #[default]
    Free,
    /// No pair of these sums is so large. Narrower integers than 8 bits never are, and unsigned ones are
    /// multiplied otherwise.
    Sums(Vec<SumOrder>),
    /// All integers have 7 bits.
    SevenBits,
}

/// The largest integer of 8 bits, and the largest of which two make no pair that saturates.
const LARGEST: i16 = 127;
const SAFE: f32 = 64.0;

/// The ratio of one scale of the first search to the next, `2^(1/8)`, and how many are tried at most.
/// Only products, which every CPU rounds alike.
const RATIO: f32 = 1.090_507_7;
const SCALES: usize = 64;
/// Ratios of the scales that are tried around the best, `2^(1/16)` to `2^(1/64)`.
const FINER: [f32; 3] = [1.044_273_8, 1.021_897_1, 1.010_889_3];

/// Errors summed in f32 before their sum is added up in f64.
const SUMMED: usize = 512;
const LANES: usize = 8;

impl Limits {
    /// The channels of `quantized` that break a limit: those that [`Limits::keep`] would change. Of
    /// [`PairLimit::SevenBits`] it is every one that uses the eighth.
    pub fn broken(&self, quantized: &QTensor) -> Vec<usize> {
        let Some(channels) = Channels::of(quantized) else { return Vec::new() };
        let lists = self.lists(quantized);
        let codes = channels.sorted(&quantized.codes().unpack());
        let breaks = |channel: usize| {
            let codes = &codes[channels.range(channel)];
            let wide = match self.pairs {
                PairLimit::SevenBits => codes.iter().any(|code| code.abs() > LARGEST / 2),
                PairLimit::Free | PairLimit::Sums(_) => false,
            };
            let scale = quantized.params().scale[channel];
            wide || scale < self.least(channel) || !none_saturates(codes, &lists)
        };
        (0..channels.count()).filter(|&channel| breaks(channel)).collect()
    }

    /// `plain` with other scales and integers for the channels that break a limit, which stand for
    /// `values`. Errors count by `importance`, all alike where there is none.
    ///
    /// Scales of groups, zero points and small floats have no limits.
    pub fn keep(&self, values: &[f32], plain: QTensor, importance: Option<&[f32]>) -> QTensor {
        if self.is_free(&plain) {
            return plain;
        }
        let Some(channels) = Channels::of(&plain) else { return plain };
        let lists = self.lists(&plain);
        let mut codes = channels.sorted(&plain.codes().unpack());
        let values_of = channels.sorted(values);
        let importance = importance.map(|importance| channels.sorted(importance));
        let mut scale = plain.params().scale.clone();
        let largest = ((1u32 << (plain.codes().width() - 1)) - 1) as f32;
        let mut rest = &mut codes[..];
        let parts: Vec<(usize, &mut [i16], &mut f32)> = scale
            .iter_mut()
            .enumerate()
            .map(|(channel, scale)| {
                let codes = rest.split_off_mut(..channels.range(channel).len());
                (channel, codes.expect("as many as are counted"), scale)
            })
            .collect();
        parts.into_par_iter().for_each(|(channel, codes, scale)| {
            let least = self.least(channel);
            if *scale >= least && none_saturates(codes, &lists) {
                return;
            }
            let range = channels.range(channel);
            let values = &values_of[range.clone()];
            let search = Search {
                values,
                amplitude: values.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs())),
                importance: importance.as_ref().map(|all| &all[range]),
                lists: &lists,
                largest,
            };
            let found = search.best(scale.max(least));
            *scale = found.scale;
            codes.copy_from_slice(&found.codes);
        });
        let (width, encoding) = (plain.codes().width(), plain.codes().encoding());
        let mut codes = channels.unsorted(codes.clone());
        self.project(values, &mut codes, &scale, &plain);
        let codes = PackedInts::pack(&codes, width, encoding);
        let params = QuantParams { scale, zero_point: Vec::new() };
        plain.with_params(params).with_codes(codes)
    }

    /// `rounded`, whose pairs that can saturate are brought to the nearest that cannot; scales stay.
    pub(crate) fn keep_pairs(&self, values: &[f32], rounded: QTensor) -> QTensor {
        if self.is_free(&rounded) {
            return rounded;
        }
        let mut codes = rounded.codes().unpack();
        self.project(values, &mut codes, &rounded.params().scale, &rounded);
        let codes = PackedInts::pack(&codes, rounded.codes().width(), rounded.codes().encoding());
        rounded.with_codes(codes)
    }

    /// The pairs of columns of a weight that is read as `matrix`, alike in each row.
    pub(crate) fn column_pairs(&self, quantized: &QTensor, matrix: Matrix) -> Vec<Vec<Pair>> {
        if !can_saturate(quantized.codes()) {
            return Vec::new();
        }
        let mut row = quantized.layout().shape().to_vec();
        row[matrix.output_axis()] = 1;
        let within = self.orders().iter().filter(|order| !order.contains(matrix.output_axis()));
        within.map(|order| order.pairs(&row)).collect()
    }

    fn orders(&self) -> &[SumOrder] {
        match &self.pairs {
            PairLimit::Sums(orders) => orders,
            PairLimit::Free | PairLimit::SevenBits => &[],
        }
    }

    fn least(&self, channel: usize) -> f32 {
        self.least_scale.get(channel).copied().unwrap_or(0.0)
    }

    /// Whether such integers can break nothing.
    fn is_free(&self, quantized: &QTensor) -> bool {
        let adds_pairs = !self.orders().is_empty() && can_saturate(quantized.codes());
        !adds_pairs && self.least_scale.is_empty()
    }

    /// The pairs within each channel, by positions in it.
    fn lists(&self, quantized: &QTensor) -> Vec<Vec<Pair>> {
        if !can_saturate(quantized.codes()) {
            return Vec::new();
        }
        let (shape, axis) = own_shape(quantized.layout());
        let within = self.orders().iter().filter(|order| axis.is_none_or(|a| !order.contains(a)));
        within.map(|order| order.pairs(&shape)).collect()
    }

    /// Mends the pairs of all sums, also of those that go through several channels.
    fn project(&self, values: &[f32], codes: &mut [i16], scale: &[f32], like: &QTensor) {
        if !can_saturate(like.codes()) {
            return;
        }
        let shape = like.layout().shape();
        let saturates = |order: &&SumOrder| {
            let mut any = false;
            order.for_each_pair(shape, |a, b| any |= crate::pairs::saturates(codes[a], codes[b]));
            any
        };
        if !self.orders().iter().any(|order| saturates(&order)) {
            return;
        }
        let lists: Vec<Vec<Pair>> = self.orders().iter().map(|order| order.pairs(shape)).collect();
        let mut steps = vec![0f32; values.len()];
        like.layout().for_each_run(|run, span| {
            for (i, element) in run.enumerate() {
                steps[element] = values[element] / scale[span.param(i)];
            }
        });
        project(codes, &lists, |i| (steps[i], 1.0));
    }
}

/// Whether pairs of such integers can be too large.
fn can_saturate(codes: &PackedInts) -> bool {
    codes.encoding() == Encoding::TwosComplement && codes.width() == 8
}

/// The shape of one channel, its own axis having one element, and that axis.
fn own_shape(layout: &Layout) -> (Vec<usize>, Option<usize>) {
    let mut shape = layout.shape().to_vec();
    let axis = match layout.granularity() {
        Granularity::Channel { axis } => Some(axis),
        Granularity::Tensor | Granularity::Group { .. } => None,
    };
    if let Some(axis) = axis {
        shape[axis] = 1;
    }
    (shape, axis)
}

/// The elements of each channel, one behind the other.
struct Channels<'a> {
    layout: &'a Layout,
    counts: Vec<usize>,
}

impl Channels<'_> {
    /// `None` for tensors without limits.
    fn of(quantized: &QTensor) -> Option<Channels<'_>> {
        let layout = quantized.layout();
        let integers = quantized.codes().encoding() == Encoding::TwosComplement
            && quantized.params().zero_point.is_empty()
            && quantized.coded_scales().is_none();
        let grouped = matches!(layout.granularity(), Granularity::Group { .. });
        (integers && !grouped && layout.elements() > 0)
            .then(|| Channels { layout, counts: layout.elements_per_param() })
    }

    fn count(&self) -> usize {
        self.counts.len()
    }

    /// Where a channel lies among sorted elements; all have as many.
    fn range(&self, channel: usize) -> std::ops::Range<usize> {
        let count = self.counts[channel];
        channel * count..(channel + 1) * count
    }

    fn sorted<T: Copy + Default>(&self, elements: &[T]) -> Vec<T> {
        by_param(elements, self.layout, &self.counts)
    }

    /// What [`Channels::sorted`] gave, as it lies in memory.
    fn unsorted<T: Copy + Default>(&self, sorted: Vec<T>) -> Vec<T> {
        let mut next: Vec<usize> = (0..self.count()).map(|c| self.range(c).start).collect();
        let mut elements = vec![T::default(); sorted.len()];
        self.layout.for_each_run(|run, span| {
            for (i, element) in run.enumerate() {
                let next = &mut next[span.param(i)];
                elements[element] = sorted[*next];
                *next += 1;
            }
        });
        elements
    }
}

/// The search for one channel.
struct Search<'a> {
    values: &'a [f32],
    /// The largest magnitude of the values: the unit of errors, whose squares might underflow.
    amplitude: f32,
    importance: Option<&'a [f32]>,
    lists: &'a [Vec<Pair>],
    largest: f32,
}

/// A scale, what it makes of the values, and the squared error of that.
struct Found {
    scale: f32,
    codes: Vec<i16>,
    error: f64,
    /// Whether pairs had to be mended.
    mended: bool,
}

impl Search<'_> {
    /// The best scale from `least` on, and its integers.
    fn best(&self, least: f32) -> Found {
        // From here on all are so small that no two make too large a pair.
        let safe = (self.amplitude / SAFE).max(least);
        let mut best = self.at(least);
        let mut scale = least;
        let mut mended = best.mended;
        for _ in 0..SCALES {
            // Where nothing is mended a larger scale only rounds more.
            if scale >= safe || !mended {
                break;
            }
            scale = (scale * RATIO).min(safe);
            let found = self.at(scale);
            mended = found.mended;
            if found.error < best.error {
                best = found;
            }
        }
        for ratio in FINER {
            for scale in [best.scale * ratio, best.scale / ratio] {
                if scale >= least && scale <= safe {
                    let found = self.at(scale);
                    if found.error < best.error {
                        best = found;
                    }
                }
            }
        }
        best
    }

    /// The values to nearest, and pairs that can saturate to the nearest that cannot.
    fn at(&self, scale: f32) -> Found {
        let largest = self.largest;
        let code = |&x: &f32| round_half_even((x / scale).clamp(-largest, largest)) as i32 as i16;
        let mut codes: Vec<i16> = self.values.iter().map(code).collect();
        let weight = |i: usize| self.importance.map_or(1.0, |all| all[i]);
        let mended = project(&mut codes, self.lists, |i| (self.values[i] / scale, weight(i)));
        let error = self.error(&codes, scale);
        Found { scale, codes, error, mended }
    }

    fn error(&self, codes: &[i16], scale: f32) -> f64 {
        let ones = [1f32; SUMMED];
        let mut error = 0f64;
        for (part, (values, codes)) in
            self.values.chunks(SUMMED).zip(codes.chunks(SUMMED)).enumerate()
        {
            let weights = match self.importance {
                Some(all) => &all[part * SUMMED..][..values.len()],
                None => &ones[..values.len()],
            };
            let mut lanes = [0f32; LANES];
            for (i, ((&x, &code), &weight)) in values.iter().zip(codes).zip(weights).enumerate() {
                let lost = (x - f32::from(code) * scale) / self.amplitude;
                lanes[i % LANES] += weight * lost * lost;
            }
            error += lanes.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rounding::tests::{hessian, inputs, noise};
    use crate::{
        Bits, Inputs, Rounding, Scheme, WeightRange, quantize, quantize_on, saturating_pairs,
    };

    fn sums(orders: &[&[usize]]) -> Limits {
        let orders = orders.iter().map(|axes| SumOrder::new(axes.to_vec())).collect();
        Limits { pairs: PairLimit::Sums(orders), least_scale: Vec::new() }
    }

    fn symmetric(granularity: Granularity) -> Scheme {
        Scheme::Symmetric { bits: Bits::EIGHT, granularity }
    }

    fn nearest(values: &[f32], shape: &[usize], scheme: Scheme, limits: &Limits) -> QTensor {
        let (range, rounding) = (WeightRange::MinMax, Rounding::Nearest);
        quantize_on(values, shape, scheme, range, rounding, None, limits).unwrap()
    }

    #[test]
    fn the_magnitude_of_a_weight_makes_no_difference() {
        let values = noise(64 * 4, 3);
        let limits = sums(&[&[0]]);
        let scheme = symmetric(Granularity::Channel { axis: 1 });
        let plain = nearest(&values, &[64, 4], scheme, &limits);
        for exponent in [-100, 100] {
            let scaled: Vec<f32> = values.iter().map(|x| x * 2f32.powi(exponent)).collect();
            let found = nearest(&scaled, &[64, 4], scheme, &limits);
            assert_eq!(found.codes(), plain.codes(), "{exponent}");
        }
    }

    fn error(values: &[f32], quantized: &QTensor) -> f64 {
        let pairs = values.iter().zip(quantized.dequantize());
        pairs.map(|(x, q)| f64::from(x - q).powi(2)).sum()
    }

    #[test]
    fn only_channels_that_break_a_limit_change() {
        let rows = Granularity::Channel { axis: 0 };
        // Two large neighbours; two of other signs; the same two apart; one pair of small ones.
        let values =
            [1.0, 0.9, 0.1, 0.2, 1.0, -0.9, 0.1, 0.2, 0.1, 0.9, 0.2, 1.0, 1.0, 0.0, 0.1, 0.2];
        let limits = sums(&[&[1]]);
        let free = quantize(&values, &[4, 4], symmetric(rows)).unwrap();
        let kept = nearest(&values, &[4, 4], symmetric(rows), &limits);
        // 0.9 + 0.2 of the third is 139 steps.
        assert_eq!(limits.broken(&free), [0, 2]);
        assert_eq!(limits.broken(&kept), []);
        assert_eq!(kept.params().scale[1], free.params().scale[1]);
        assert_eq!(kept.codes().unpack()[4..8], free.codes().unpack()[4..8]);
        assert!(kept.params().scale[0] > free.params().scale[0]);
    }

    #[test]
    fn one_pair_among_many_is_cut_and_the_rest_keeps_its_steps() {
        let mut values = noise(4096, 3);
        values.iter_mut().for_each(|x| *x *= 0.3);
        (values[0], values[1]) = (1.0, 0.02);
        let limits = sums(&[&[0]]);
        let free = quantize(&values, &[4096], symmetric(Granularity::Tensor)).unwrap();
        let kept = nearest(&values, &[4096], symmetric(Granularity::Tensor), &limits);
        assert_eq!((limits.broken(&free), limits.broken(&kept)), (vec![0], vec![]));
        assert_eq!(kept.params(), free.params());
        assert_eq!(kept.codes().unpack()[2..], free.codes().unpack()[2..]);
    }

    #[test]
    fn scales_are_no_smaller_than_the_least() {
        let values = [1e-9f32, -2e-9, 0.5, 1.0];
        let least_scale = vec![0.25, 1e-3];
        let limits = Limits { least_scale, ..Limits::default() };
        let rows = symmetric(Granularity::Channel { axis: 0 });
        let kept = nearest(&values, &[2, 2], rows, &limits);
        assert_eq!(limits.broken(&quantize(&values, &[2, 2], rows).unwrap()), [0]);
        assert_eq!(kept.params().scale, [0.25, 1.0 / 127.0]);
        assert_eq!(kept.codes().unpack(), [0, 0, 64, 127]);
    }

    #[test]
    fn seven_bits_are_those_of_seven_bits_in_bytes() {
        let values = noise(60, 1);
        let limits = Limits { pairs: PairLimit::SevenBits, ..Limits::default() };
        for affine in [false, true] {
            let of = |bits| {
                let (bits, granularity) =
                    (Bits::new(bits).unwrap(), Granularity::Channel { axis: 1 });
                match affine {
                    true => Scheme::Affine { bits, granularity },
                    false => Scheme::Symmetric { bits, granularity },
                }
            };
            let kept = nearest(&values, &[10, 6], of(8), &limits);
            let narrow = quantize(&values, &[10, 6], of(7)).unwrap();
            assert_eq!((kept.codes().width(), kept.params()), (8, narrow.params()));
            assert_eq!(kept.codes().unpack(), narrow.codes().unpack());
            assert_eq!(nearest(&values, &[10, 6], of(6), &limits).codes().width(), 6);
        }
    }

    /// Shapes, axes of outputs and sums: a MatMul, a Gemm with transB, convolutions of two ranks, one of
    /// them depth-wise, a batch of matrices, and a weight that is read along both axes.
    type Weight = (&'static [usize], usize, &'static [&'static [usize]]);
    const WEIGHTS: [Weight; 6] = [
        (&[12, 8], 1, &[&[0]]),
        (&[8, 12], 0, &[&[1]]),
        (&[4, 3, 2, 4], 0, &[&[1, 2, 3], &[2, 3, 1]]),
        (&[12, 1, 8], 0, &[&[1, 2], &[2, 1]]),
        (&[2, 8, 6], 2, &[&[1]]),
        (&[12, 8], 1, &[&[0], &[1]]),
    ];

    /// Heavy tails, as weights have them; or all alike, the worst for pairs.
    fn weights() -> impl Strategy<Value = Vec<f32>> {
        let tailed = prop::collection::vec((-1f32..1.0, 1i32..6), 96);
        let tailed = tailed.prop_map(|v| v.into_iter().map(|(x, power)| x.powi(power)).collect());
        prop_oneof![tailed, prop::collection::vec(0.8f32..1.0, 96)]
    }

    proptest! {
        #[test]
        fn no_pair_saturates_and_little_is_lost(
            values in weights(), kind in 0usize..6, per_channel in any::<bool>(),
            rounding in 0usize..4, mse in any::<bool>(), seed in 0u32..9,
        ) {
            let (shape, axis, orders) = WEIGHTS[kind];
            let limits = sums(orders);
            let granularity = match per_channel {
                true => Granularity::Channel { axis },
                false => Granularity::Tensor,
            };
            let scheme = symmetric(granularity);
            let (range, rounding) =
                (if mse { WeightRange::Mse } else { WeightRange::MinMax }, Rounding::ALL[rounding]);
            let matrix = Matrix::new(shape, axis).ok();
            let seen = matrix.map(|m| hessian(&inputs(32, m.columns(), seed), m.columns()));
            let given = matrix.zip(seen.as_ref()).map(|(matrix, seen)| Inputs {
                matrix,
                hessians: std::slice::from_ref(seen),
            });
            prop_assume!(given.is_some() || !rounding.needs_inputs());
            let of = |limits: &Limits| {
                quantize_on(&values, shape, scheme, range, rounding, given, limits).unwrap()
            };
            let (free, kept) = (of(&Limits::default()), of(&limits));
            let PairLimit::Sums(orders) = &limits.pairs else { unreachable!() };
            prop_assert!(saturating_pairs(&kept.codes().unpack(), shape, orders).is_empty());
            prop_assert!(limits.broken(&kept).is_empty());
            if saturating_pairs(&free.codes().unpack(), shape, orders).is_empty() && !rounding.needs_inputs() {
                prop_assert_eq!(&kept, &free);
            }
            // At worst the step is twice as large; where sums go through several channels, integers of
            // other steps are cut.
            if kind < 5 && !rounding.needs_inputs() && !mse {
                let step = free.params().scale.iter().fold(0f32, |most, s| most.max(*s));
                let twice = f64::from(2.0 * step).powi(2) / 4.0 * values.len() as f64;
                prop_assert!(error(&values, &kept) <= twice.max(1.2 * error(&values, &free)));
            }
        }
    }
}
