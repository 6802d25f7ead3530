//! Convolutions.
//!
//! A product of the weights, `[filters, taps]`, with what the windows hold, `[taps, windows]`. The
//! second is packed as the loops of products want it, a panel of windows at a time, and never whole.

use std::ops::Range;

use super::padded::{Padded, SLACK};
use super::slide::{LANES, slide};
use super::winograd::{self, Tiles, Transformed};
use crate::Cpu;
use crate::bytes::Window;
use crate::cpu::per_cpu;
use crate::float::function::{Function, apply};
use crate::float::panel::{PANEL, times_panel};
use crate::float::strided::{Strided, at_least};

/// Floats of the padded copies that are made at a time: a quarter of a second cache of 1 MiB.
const COPIES: usize = 64 << 10;

/// A convolution with constant weights, over images of one size.
#[derive(Clone, Copy, Debug)]
pub struct Convolution<'a> {
    /// Those of all filters.
    pub weights: &'a Weights,
    /// One for each filter, or none at all.
    pub bias: &'a [f32],
    /// Channels of what comes out.
    pub filters: usize,
    /// Channels of what goes in.
    pub channels: usize,
    /// Groups of channels, each with its own filters.
    pub groups: usize,
    /// How it moves.
    pub window: Window,
    /// Rows and columns of the images.
    pub size: [usize; 2],
    /// Rows and columns of the result, at least one; what windows read beyond the image is zero.
    pub out_size: [usize; 2],
    /// Computed of each sum, the bias included.
    pub function: Option<Function>,
}

/// The weights of a convolution as its loops read them.
#[derive(Clone, Debug)]
pub struct Weights {
    form: Form,
    /// As ONNX has them: filters, channels of a group, rows and columns of the window.
    shape: [usize; 4],
}

#[derive(Clone, Debug)]
enum Form {
    /// As ONNX has them.
    Plain(Vec<f32>),
    /// For tiles instead of windows.
    Tiles(Transformed),
}

impl Weights {
    /// Weights of `shape`: filters, channels of a group, rows and columns of the window.
    ///
    /// # Panics
    /// If there are not as many as the shape says.
    pub fn new(
        cpu: Cpu,
        weights: Vec<f32>,
        shape: [usize; 4],
        groups: usize,
        window: Window,
    ) -> Weights {
        assert_eq!(weights.len(), shape.iter().product::<usize>(), "weights of another size");
        let form = match Transformed::new(cpu, &weights, shape, groups, window) {
            Some(transformed) => Form::Tiles(transformed),
            None => Form::Plain(weights),
        };
        Weights { form, shape }
    }
}

/// Computes the channels `planes` of the result, counted through all images, to `out`.
///
/// Every sum is one chain of fused multiply-adds along channels, rows and columns of the window,
/// or what [`winograd`] says; the bias is added last.
///
/// `input` is `[images, channels, rows, columns]`. `scratch` grows as
/// needed, and may be used again for anything.
///
/// # Panics
/// If lengths do not fit, or groups do not divide channels and filters.
pub fn convolve(
    cpu: Cpu,
    conv: &Convolution,
    input: &[f32],
    planes: Range<usize>,
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let Convolution { filters, channels, groups, window, .. } = *conv;
    assert!(filters % groups == 0 && channels % groups == 0, "groups that are not whole");
    let [rows, columns] = window.kernel;
    assert_eq!(
        conv.weights.shape,
        [filters, channels / groups, rows, columns],
        "weights of another size"
    );
    assert!(conv.bias.is_empty() || conv.bias.len() == filters, "biases of another number");
    assert_eq!(out.len(), planes.len() * conv.out_plane(), "an output of another size");
    match &conv.weights.form {
        Form::Plain(weights) => {
            let [height, width] = conv.out_size;
            let padded = |rows| Padded::new(window, conv.size, channels / groups, rows, width);
            let copy_len = |rows| padded(rows).image_pitch();
            in_parts(conv, input, copy_len, height, 1, planes, out, |part, out| {
                let padded = padded(part.rows.len());
                Job { cpu, conv, weights, part }.run(padded, out, scratch);
            });
        }
        Form::Tiles(weights) => {
            let tiles = Tiles::new(conv);
            let together = tiles.images_together();
            let copy_len = |rows| tiles.copy_len(rows);
            in_parts(conv, input, copy_len, tiles.count[0], together, planes, out, |part, out| {
                winograd::rows(cpu, conv, weights, tiles, part, out, scratch);
            });
        }
    }
}

/// Some rows of some filters over some images.
pub(super) struct Part<'a> {
    pub input: &'a [f32],
    pub images: Range<usize>,
    pub filters: Range<usize>,
    /// Of windows, or of tiles of them.
    pub rows: Range<usize>,
}

/// Cuts what is to be computed into parts whose padded copies stay in the cache: as many of `height`
/// rows as fit, of one image or of several. Each part is given those planes of the output, whole, of
/// which it computes rows. Of whole images there are a `multiple` together, if possible.
#[allow(clippy::too_many_arguments)]
fn in_parts(
    conv: &Convolution,
    input: &[f32],
    copy_len: impl Fn(usize) -> usize,
    height: usize,
    multiple: usize,
    planes: Range<usize>,
    out: &mut [f32],
    mut run: impl FnMut(Part, &mut [f32]),
) {
    let filters = conv.filters;
    let (first_row, each) = match height {
        1 => (copy_len(1), 0),
        _ => (copy_len(1), copy_len(2) - copy_len(1)),
    };
    let fitting = COPIES.saturating_sub(first_row) / each.max(1) + 1;
    let rows = fitting.min(height);
    let together = match rows == height {
        true => COPIES / copy_len(rows).max(1),
        false => 1,
    };
    // A few more than fit, or less, where no panel is left half empty then.
    let together = match together / multiple {
        0 if multiple <= 2 * together => multiple,
        0 => together,
        times => times * multiple,
    };
    let mut rest = out;
    let mut plane = planes.start;
    while plane < planes.end {
        let (image, first) = (plane / filters, plane % filters);
        let left = planes.end - plane;
        // Whole images, or a part of one.
        let (images, last) = match left / filters {
            whole if first == 0 && whole > 0 => (whole.min(together.max(1)), filters),
            _ => (1, filters.min(first + left)),
        };
        let count = images * (last - first);
        let (own, behind) = rest.split_at_mut(count * conv.out_plane());
        (rest, plane) = (behind, plane + count);
        for top in (0..height).step_by(rows) {
            let rows = top..(top + rows).min(height);
            let (images, filters) = (image..image + images, first..last);
            run(Part { input, images, filters, rows }, own);
        }
    }
}

impl Convolution<'_> {
    /// Elements of a channel of the result.
    pub(super) fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }
}

/// A part to be computed window by window.
struct Job<'a> {
    cpu: Cpu,
    conv: &'a Convolution<'a>,
    weights: &'a [f32],
    part: Part<'a>,
}

impl Job<'_> {
    /// Computes it, inside of `out`, which has all rows.
    fn run(&self, padded: Padded, out: &mut [f32], scratch: &mut Vec<f32>) {
        let Convolution { channels, groups, filters, .. } = *self.conv;
        let Part { input, ref images, filters: ref wanted, ref rows } = self.part;
        let (group_channels, group_filters) = (channels / groups, filters / groups);
        let taps = padded.taps();
        let copies_len = images.len() * padded.image_pitch() + SLACK;
        let panel_len = taps.len() * PANEL + SLACK;
        let scratch = at_least(scratch, copies_len + panel_len + group_filters * PANEL);
        let (copies, scratch) = scratch.split_at_mut(copies_len);
        let (panel, sums) = scratch.split_at_mut(panel_len);
        let groups = wanted.start / group_filters..wanted.end.div_ceil(group_filters);
        for group in groups {
            let first = group * group_filters;
            let own = first.max(wanted.start)..(first + group_filters).min(wanted.end);
            let planes = images.clone().map(|image| {
                let first = image * channels + group * group_channels;
                first..first + group_channels
            });
            padded.fill(self.cpu, input, planes, rows.start, 0.0, copies);
            match own.len() {
                1 => self.one_filter(own.start, &padded, &taps, rows.clone(), copies, out),
                _ => {
                    let block = Block { padded: &padded, taps: &taps, rows: rows.clone(), copies };
                    self.product(own, block, panel, sums, out);
                }
            }
        }
    }

    /// One filter, where a product would pack more than it multiplies.
    fn one_filter(
        &self,
        filter: usize,
        padded: &Padded,
        taps: &[usize],
        rows: Range<usize>,
        copies: &[f32],
        out: &mut [f32],
    ) {
        let width = self.conv.out_size[1];
        let weights = &self.weights[filter * taps.len()..][..taps.len()];
        let bias = self.conv.bias.get(filter).copied();
        for image in 0..self.part.images.len() {
            let plane = image * self.part.filters.len() + filter - self.part.filters.start;
            let start = plane * self.conv.out_plane() + rows.start * width;
            let out = &mut out[start..][..rows.len() * width];
            let copy = &copies[image * padded.image_pitch()..];
            weighted(self.cpu, copy, weights, bias, taps, padded.step(), width, out);
            if let Some(function) = self.conv.function {
                apply(self.cpu, function, out);
            }
        }
    }

    /// The filters `own` of a group as a product.
    fn product(
        &self,
        own: Range<usize>,
        block: Block,
        panel: &mut [f32],
        sums: &mut [f32],
        out: &mut [f32],
    ) {
        let Block { padded, taps, rows, copies } = block;
        let depth = taps.len();
        let width = self.conv.out_size[1];
        let weights = Strided::rows(&self.weights[own.start * depth..], depth);
        let bias = self.conv.bias.get(own.clone()).unwrap_or_default();
        let sums = &mut sums[..own.len() * PANEL];
        let per_image = rows.len() * width;
        let windows = self.part.images.len() * per_image;
        let mut pieces = Vec::with_capacity(PANEL);
        for first in (0..windows).step_by(PANEL) {
            let columns = PANEL.min(windows - first);
            pieces_of(first..first + columns, width, rows.len(), padded, &mut pieces);
            pack(self.cpu, taps, &pieces, copies, panel);
            times_panel(self.cpu, own.len(), depth, columns, weights, panel, sums, 0, PANEL);
            add_bias(self.cpu, bias, columns, sums);
            if let Some(function) = self.conv.function {
                apply(self.cpu, function, sums);
            }
            let mut column = 0;
            while column < columns {
                let (image, window) = ((first + column) / per_image, (first + column) % per_image);
                let len = (columns - column).min(per_image - window);
                let plane = image * self.part.filters.len() + own.start - self.part.filters.start;
                let start = plane * self.conv.out_plane() + rows.start * width + window;
                for (filter, sums) in sums.chunks_exact(PANEL).enumerate() {
                    let out = &mut out[start + filter * self.conv.out_plane()..][..len];
                    // A copy of constant length is no call.
                    match out.first_chunk_mut::<PANEL>() {
                        Some(out) => out.copy_from_slice(sums),
                        None => out.copy_from_slice(&sums[column..][..len]),
                    }
                }
                column += len;
            }
        }
    }
}

/// What a product reads: rows of windows and the padded copies below them.
struct Block<'a> {
    padded: &'a Padded,
    taps: &'a [usize],
    rows: Range<usize>,
    copies: &'a [f32],
}

/// Windows side by side: of a panel's columns those from `to` on, [`LANES`] or fewer.
#[derive(Clone, Copy)]
struct Piece {
    /// Where the first tap of the first window lies.
    from: usize,
    to: usize,
}

/// The pieces of some windows, counted through rows of `width` and images of `rows`.
fn pieces_of(
    windows: Range<usize>,
    width: usize,
    rows: usize,
    padded: &Padded,
    pieces: &mut Vec<Piece>,
) {
    pieces.clear();
    // Rows without padding between them are one run: where it ends, and what pieces cover of it.
    let (mut run_end, mut covered) = (usize::MAX, 0);
    let mut at = windows.start;
    while at < windows.end {
        let (row, x) = (at / width, at % width);
        let len = (width - x).min(windows.end - at);
        let from = row / rows * padded.image_pitch() + row % rows * padded.step() + x;
        let to = at - windows.start;
        if from != run_end {
            covered = to;
        }
        while covered < to + len {
            pieces.push(Piece { from: from + covered - to, to: covered });
            covered += LANES;
        }
        run_end = from + len;
        at += len;
    }
}

per_cpu! {
    /// Packs the taps of windows: one row of the panel for each tap.
    ///
    /// Pieces are copied whole: what lies behind them is written over by the next piece or row.
    fn pack(taps: &[usize], pieces: &[Piece], copies: &[f32], panel: &mut [f32]) {
        for (row, tap) in taps.iter().enumerate() {
            for piece in pieces {
                let from = &copies[tap + piece.from..][..LANES];
                panel[row * PANEL + piece.to..][..LANES].copy_from_slice(from);
            }
        }
    }
}

per_cpu! {
    /// Adds to each row of a panel's sums the bias of its filter.
    ///
    /// The rows' length is a variable: of constant length the compiler takes a vector of rows at a
    /// time, element by element.
    fn add_bias(bias: &[f32], columns: usize, sums: &mut [f32]) {
        for (sums, bias) in sums.chunks_exact_mut(PANEL).zip(bias) {
            sums[..columns].iter_mut().for_each(|sum| *sum += bias);
        }
    }
}

per_cpu! {
    /// The weighted sum of each window of one channel.
    fn weighted(
        copy: &[f32],
        weights: &[f32],
        bias: Option<f32>,
        taps: &[usize],
        step: usize,
        width: usize,
        out: &mut [f32],
    ) {
        let join = |sum: f32, tap: usize, value: f32| weights[tap].mul_add(value, sum);
        // Adding 0.0 would turn -0.0 into it.
        match bias {
            Some(bias) => slide(copy, taps, step, width, 0.0, join, |sum| sum + bias, out),
            None => slide(copy, taps, step, width, 0.0, join, |sum| sum, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{at_every_level, noise, same_bits};
    use proptest::prelude::*;

    /// The definition, element by element.
    fn chains(conv: &Convolution, input: &[f32], images: usize) -> Vec<f32> {
        let Form::Plain(weights) = &conv.weights.form else { panic!("not a chain") };
        let depth: usize = conv.weights.shape[1..].iter().product();
        let Convolution { filters, channels, groups, window, size, out_size, .. } = *conv;
        let inside = |axis: usize, at: usize, tap: usize| {
            let from = at * window.stride[axis] + tap * window.dilation[axis];
            from.checked_sub(window.pads_begin[axis]).filter(|&from| from < size[axis])
        };
        let (group_channels, group_filters) = (channels / groups, filters / groups);
        let mut out = Vec::new();
        for (image, filter) in (0..images).flat_map(|i| (0..filters).map(move |f| (i, f))) {
            let first = image * channels + filter / group_filters * group_channels;
            for (y, x) in (0..out_size[0]).flat_map(|y| (0..out_size[1]).map(move |x| (y, x))) {
                let mut weights = weights[filter * depth..].iter();
                let mut sum = 0f32;
                for plane in first..first + group_channels {
                    let plane = &input[plane * size[0] * size[1]..];
                    for (a, b) in (0..window.kernel[0])
                        .flat_map(|a| (0..window.kernel[1]).map(move |b| (a, b)))
                    {
                        let value = match (inside(0, y, a), inside(1, x, b)) {
                            (Some(y), Some(x)) => plane[y * size[1] + x],
                            _ => 0.0,
                        };
                        sum = weights.next().unwrap().mul_add(value, sum);
                    }
                }
                if let Some(bias) = conv.bias.get(filter) {
                    sum += bias;
                }
                out.push(conv.function.map_or(sum, |function| function.at(sum)));
            }
        }
        out
    }

    /// Checks a convolution as a whole and in two parts, cut anywhere.
    fn check(conv: &Convolution, images: usize, cut: usize) {
        let input = noise(images * conv.channels * conv.size[0] * conv.size[1], 7);
        let wanted = chains(conv, &input, images);
        let planes = images * conv.filters;
        for cut in [0, cut % (planes + 1)] {
            let got = at_every_level(|cpu| {
                let mut out = vec![7.0; wanted.len()];
                let mut scratch = vec![f32::NAN; 5000];
                let (left, right) = out.split_at_mut(cut * conv.out_plane());
                convolve(cpu, conv, &input, 0..cut, left, &mut scratch);
                convolve(cpu, conv, &input, cut..planes, right, &mut scratch);
                out
            });
            assert!(same_bits(&got, &wanted), "{conv:?}, cut at {cut}");
        }
    }

    fn out_size(size: [usize; 2], window: &Window, behind: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| {
            let extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            let padded = size[axis] + window.pads_begin[axis] + behind[axis];
            (padded - extent) / window.stride[axis] + 1
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn convolutions_are_chains_at_every_level(
            (kernel, stride, dilation) in (
                prop::array::uniform2(1usize..5),
                prop::array::uniform2(1usize..4),
                prop::array::uniform2(1usize..3),
            ),
            (before, behind, more) in (
                prop::array::uniform2(0usize..4),
                prop::array::uniform2(0usize..4),
                prop::array::uniform2(0usize..20),
            ),
            (groups, group_channels, group_filters) in (1usize..4, 1usize..4, 1usize..11),
            (images, cut) in (0usize..4, any::<usize>()),
            (has_bias, relu) in any::<(bool, bool)>(),
        ) {
            let window = Window { kernel, stride, pads_begin: before, dilation };
            let size =
                [0, 1].map(|axis| more[axis] + (kernel[axis] - 1) * dilation[axis] + 1);
            let (filters, channels) = (groups * group_filters, groups * group_channels);
            let shape = [filters, group_channels, kernel[0], kernel[1]];
            let weights = noise(shape.iter().product(), 8);
            let weights = Weights::new(Cpu::SCALAR, weights, shape, groups, window);
            let bias = noise(if has_bias { filters } else { 0 }, 9);
            let conv = Convolution {
                weights: &weights,
                bias: &bias,
                filters,
                channels,
                groups,
                window,
                size,
                out_size: out_size(size, &window, behind),
                function: relu.then_some(Function::Relu),
            };
            check(&conv, images, cut);
        }
    }

    /// Images of which not even one fits what is copied at a time, in a product and alone.
    #[test]
    fn large_images_are_cut_into_rows() {
        let window =
            Window { kernel: [3, 3], stride: [2, 1], pads_begin: [1, 1], dilation: [1, 1] };
        for (filters, groups) in [(3, 1), (2, 2)] {
            let (channels, size) = (2, [200, 400]);
            let shape = [filters, channels / groups, 3, 3];
            let weights = noise(shape.iter().product(), 1);
            let weights = Weights::new(Cpu::SCALAR, weights, shape, groups, window);
            let conv = Convolution {
                weights: &weights,
                bias: &[],
                filters,
                channels,
                groups,
                window,
                size,
                out_size: out_size(size, &window, [1, 1]),
                function: None,
            };
            assert!(size[0] * size[1] * channels / groups > COPIES);
            check(&conv, 1, 1);
        }
    }

    /// Windows of one pixel without padding, whose rows lie one behind the other.
    #[test]
    fn rows_without_padding_are_one_run() {
        let window =
            Window { kernel: [1, 1], stride: [1, 1], pads_begin: [0, 0], dilation: [1, 1] };
        for size in [[7, 7], [5, 3], [2, 40], [33, 1]] {
            let weights = Weights::new(Cpu::SCALAR, noise(5 * 4, 2), [5, 4, 1, 1], 1, window);
            let conv = Convolution {
                weights: &weights,
                bias: &[],
                filters: 5,
                channels: 4,
                groups: 1,
                window,
                size,
                out_size: size,
                function: None,
            };
            check(&conv, 2, 3);
        }
    }

    #[test]
    #[should_panic(expected = "an output of another size")]
    fn an_output_too_short_is_refused() {
        let window =
            Window { kernel: [1, 1], stride: [1, 1], pads_begin: [0, 0], dilation: [1, 1] };
        let size = [2, 2];
        let weights = Weights::new(Cpu::SCALAR, vec![1.0], [1; 4], 1, window);
        let conv = Convolution {
            weights: &weights,
            bias: &[],
            filters: 1,
            channels: 1,
            groups: 1,
            window,
            size,
            out_size: size,
            function: None,
        };
        convolve(Cpu::SCALAR, &conv, &[1.0; 4], 0..1, &mut [0.0; 3], &mut Vec::new());
    }
}
