//! Convolutions window by window: a product of the weights, `[filters, taps]`, with what the windows
//! hold, `[taps, windows]`. The second is packed as the loops of products want it, a panel of windows at
//! a time, and never whole.

use std::ops::Range;

use super::convolution::{Convolution, Part};
use super::padded::{Padded, SLACK};
use super::slide::{LANES, WindowRows, slide};
use crate::Cpu;
use crate::cpu::per_cpu;
use crate::float::function::apply;
use crate::float::panel::{PANEL, times_panel};
use crate::float::strided::{Dims, Strided, StridedMut, at_least};

/// A part to be computed window by window.
pub(super) struct PartByWindows<'a> {
    pub cpu: Cpu,
    pub conv: &'a Convolution<'a>,
    pub weights: &'a [f32],
    pub part: Part<'a>,
}

impl PartByWindows<'_> {
    /// Computes it, inside of `out`, which has all rows.
    pub fn run(&self, padded: Padded, out: &mut [f32], scratch: &mut Vec<f32>) {
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
            let by = WindowRows { step: padded.step(), width };
            weighted(self.cpu, copy, taps, by, weights, bias, out);
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
            let dims = Dims { m: own.len(), k: depth, n: columns };
            times_panel(self.cpu, dims, weights, panel, StridedMut::rows(sums, PANEL));
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
        taps: &[usize],
        by: WindowRows,
        weights: &[f32],
        bias: Option<f32>,
        out: &mut [f32],
    ) {
        let join = |sum: f32, tap: usize, value: f32| weights[tap].mul_add(value, sum);
        // Adding 0.0 would turn -0.0 into it.
        match bias {
            Some(bias) => slide(copy, taps, by, 0.0, join, |sum| sum + bias, out),
            None => slide(copy, taps, by, 0.0, join, |sum| sum, out),
        }
    }
}
