//! Convolutions 3 × 3 with fewer multiplications.
//!
//! Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308): a
//! tile of 4 × 4 results is `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` (equation 8) of the window's weights `g` and
//! the 6 × 6 pixels `d` below it, F(4×4, 3×3) with the matrices of their section 4.3: 36
//! multiplications where windows alone take 144. The sum over channels is taken before the last
//! transform (equation 12), so there are 36 products of matrices, `[filters, channels]` times
//! `[channels, tiles]`.
//!
//! Results differ from those of chains in their last bits, a few times as much as chains differ
//! from exact sums, and not at all from one CPU to another: every step has one order.

use std::ops::Range;

use super::conv::{Convolution, Part};
use super::padded::Padded;
use super::slide::LANES;
use crate::Cpu;
use crate::bytes::Window;
use crate::cpu::per_cpu;
use crate::float::function::apply;
use crate::float::panel::{PANEL, times_panel};
use crate::float::strided::{Strided, at_least};

/// Results along each axis of a tile.
const TILE: usize = 4;
/// Pixels along each axis that a tile reads.
const READ: usize = TILE + 2;
/// Elements of a tile between the transforms.
const POINTS: usize = READ * READ;
/// Filters whose products are kept at a time: with their tiles a part of the second cache.
const FILTERS: usize = 16;
/// Fewer channels or filters would be transformed for longer than they are multiplied.
const LEAST: usize = 16;

type Lanes = [f32; LANES];

/// The weights `G g Gᵀ` of every filter and channel, point by point: `[POINTS, filters, channels]`.
#[derive(Clone, Debug)]
pub struct Transformed {
    values: Vec<f32>,
    filters: usize,
    channels: usize,
}

impl Transformed {
    /// Transforms weights of `[filters, channels, rows, columns]`, where this form is faster.
    pub fn new(weights: &[f32], shape: [usize; 4], groups: usize, window: Window) -> Option<Self> {
        let [filters, channels, rows, columns] = shape;
        let fits =
            [rows, columns] == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1];
        if !fits || groups != 1 || filters.min(channels) < LEAST {
            return None;
        }
        assert_eq!(weights.len(), filters * channels * 9, "weights of another size");
        let mut values = vec![0f32; POINTS * filters * channels];
        for (at, taps) in weights.as_chunks::<9>().0.iter().enumerate() {
            for (point, value) in transformed_taps(taps).into_iter().enumerate() {
                values[point * filters * channels + at] = value;
            }
        }
        Some(Transformed { values, filters, channels })
    }

    /// Those of some filters for one point.
    fn of(&self, point: usize, filters: &Range<usize>) -> Strided<'_> {
        let first = (point * self.filters + filters.start) * self.channels;
        Strided::rows(&self.values[first..], self.channels)
    }
}

/// `G g Gᵀ`, rounded once.
fn transformed_taps(taps: &[f32; 9]) -> [f32; POINTS] {
    const G: [[f64; 3]; READ] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    std::array::from_fn(|point| {
        let (row, column) = (G[point / READ], G[point % READ]);
        let pairs = (0..9).map(|tap| row[tap / 3] * column[tap % 3] * f64::from(taps[tap]));
        pairs.sum::<f64>() as f32
    })
}

/// How tiles lie in an image.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// Rows of tiles, and tiles in a row.
    pub count: [usize; 2],
    window: Window,
    size: [usize; 2],
    out_size: [usize; 2],
    channels: usize,
}

impl Tiles {
    pub fn new(conv: &Convolution) -> Tiles {
        let Convolution { window, size, out_size, channels, .. } = *conv;
        let count = out_size.map(|len| len.div_ceil(TILE));
        Tiles { count, window, size, out_size, channels }
    }

    /// Copies for some rows of tiles, all whole.
    pub fn padded(&self, rows: usize) -> Padded {
        let width = self.count[1] * TILE;
        Padded::new(self.window, self.size, self.channels, rows * TILE, width)
    }
}

/// Some filters of some rows of tiles.
pub(super) fn rows(
    cpu: Cpu,
    conv: &Convolution,
    weights: &Transformed,
    tiles: Tiles,
    part: Part,
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let Part { input, images, filters, rows } = part;
    let padded = tiles.padded(rows.len());
    let channels = conv.channels;
    let copies_len = images.len() * padded.image_pitch();
    let [pixels_len, points_len] = [POINTS * PANEL, POINTS * channels * PANEL];
    let [products_len, lines_len] = [POINTS * FILTERS * PANEL, TILE * TILE * PANEL];
    let len = copies_len + pixels_len + points_len + products_len + lines_len;
    let (copies, scratch) = at_least(scratch, len).split_at_mut(copies_len);
    let (pixels, scratch) = scratch.split_at_mut(pixels_len);
    let (points, scratch) = scratch.split_at_mut(points_len);
    let (products, lines) = scratch.split_at_mut(products_len);
    let planes = images.clone().map(|image| image * channels..(image + 1) * channels);
    padded.fill(input, planes, rows.start * TILE, 0.0, copies);
    let all = images.len() * rows.len() * tiles.count[1];
    let mut starts = Vec::with_capacity(PANEL);
    for first in (0..all).step_by(PANEL) {
        let panel = Panel { tiles, first, columns: PANEL.min(all - first), rows: rows.clone() };
        panel.starts(&padded, &mut starts);
        for channel in 0..channels {
            let plane = &copies[channel * padded.channel_pitch()..];
            gather(cpu, plane, padded.row_pitch(), &starts, pixels);
            transform_pixels(cpu, pixels, panel.columns, channel, channels, points);
        }
        for start in filters.clone().step_by(FILTERS) {
            let own = start..(start + FILTERS).min(filters.end);
            for point in 0..POINTS {
                let (a, b) = (weights.of(point, &own), &points[point * channels * PANEL..]);
                let to = point * FILTERS * PANEL;
                let b = &b[..channels * PANEL];
                times_panel(cpu, own.len(), channels, panel.columns, a, b, products, to, PANEL);
            }
            for (i, filter) in own.enumerate() {
                let bias = conv.bias.get(filter).copied();
                transform_products(cpu, products, panel.columns, i, bias, lines);
                if let Some(function) = conv.function {
                    apply(cpu, function, lines);
                }
                let plane = filter - filters.start;
                panel.write(lines, plane, filters.len(), out);
            }
        }
    }
}

/// Tiles side by side, counted through rows of tiles and images.
struct Panel {
    tiles: Tiles,
    first: usize,
    /// At most [`PANEL`].
    columns: usize,
    /// The rows of tiles that are computed.
    rows: Range<usize>,
}

/// Tiles of a panel that lie in one row.
struct Run {
    /// The first one in the panel.
    column: usize,
    count: usize,
    image: usize,
    /// Counted from the first row that is computed.
    row: usize,
    /// The first one in the row.
    x: usize,
}

impl Panel {
    fn runs(&self) -> impl Iterator<Item = Run> {
        let across = self.tiles.count[1];
        let mut column = 0;
        std::iter::from_fn(move || {
            let (row, x) = ((self.first + column) / across, (self.first + column) % across);
            let count = (across - x).min(self.columns - column);
            let (image, row) = (row / self.rows.len(), row % self.rows.len());
            let run = Run { column, count, image, row, x };
            column += count;
            (count > 0).then_some(run)
        })
    }

    /// Where the first pixel of each tile lies in the copies of a channel.
    fn starts(&self, padded: &Padded, starts: &mut Vec<usize>) {
        starts.clear();
        for Run { count, image, row, x, .. } in self.runs() {
            let start = image * padded.image_pitch() + row * TILE * padded.row_pitch();
            starts.extend((x..x + count).map(|x| start + x * TILE));
        }
    }

    /// Writes lines of tiles, `[TILE, PANEL * TILE]`, to plane number `plane` of `planes` an image;
    /// what reaches beyond the image is left out.
    fn write(&self, lines: &[f32], plane: usize, planes: usize, out: &mut [f32]) {
        let [height, width] = self.tiles.out_size;
        for Run { column, count, image, row, x } in self.runs() {
            let len = (count * TILE).min(width - x * TILE);
            let top = (self.rows.start + row) * TILE;
            let start = (image * planes + plane) * height * width + x * TILE;
            for (line, y) in (top..height.min(top + TILE)).enumerate() {
                let from = &lines[(line * PANEL + column) * TILE..][..len];
                out[start + y * width..][..len].copy_from_slice(from);
            }
        }
    }
}

per_cpu! {
    /// The pixels of each tile, which begins at one of `starts`, to `[POINTS, PANEL]`.
    fn gather(plane: &[f32], row_pitch: usize, starts: &[usize], pixels: &mut [f32]) {
        let (pixels, _) = pixels.as_chunks_mut::<PANEL>();
        let pixels: &mut [[f32; PANEL]; POINTS] = pixels.try_into().expect("as many as points");
        for (column, start) in starts.iter().enumerate().take(PANEL) {
            for y in 0..READ {
                let line = &plane[start + y * row_pitch..][..READ];
                for x in 0..READ {
                    pixels[y * READ + x][column] = line[x];
                }
            }
        }
    }
}

per_cpu! {
    /// `Bᵀ d B` of one channel of a panel of tiles, from `[POINTS, PANEL]` into `[POINTS, channels,
    /// PANEL]`.
    fn transform_pixels(
        pixels: &[f32],
        columns: usize,
        channel: usize,
        channels: usize,
        points: &mut [f32],
    ) {
        let (pixels, _) = pixels.as_chunks::<LANES>();
        let (points, _) = points.as_chunks_mut::<LANES>();
        let halves = PANEL / LANES;
        for half in 0..columns.div_ceil(LANES) {
            let mut half_done = [[0f32; LANES]; POINTS];
            for x in 0..READ {
                let column = std::array::from_fn(|y| pixels[(y * READ + x) * halves + half]);
                let column = times_b(column);
                for y in 0..READ {
                    half_done[y * READ + x] = column[y];
                }
            }
            for y in 0..READ {
                let line = times_b(std::array::from_fn(|x| half_done[y * READ + x]));
                for x in 0..READ {
                    points[((y * READ + x) * channels + channel) * halves + half] = line[x];
                }
            }
        }
    }
}

per_cpu! {
    /// `Aᵀ m A` of filter number `filter` of `[POINTS, FILTERS, PANEL]`, and its bias, as lines of
    /// the tiles side by side: `[TILE, PANEL, TILE]`.
    fn transform_products(
        products: &[f32],
        columns: usize,
        filter: usize,
        bias: Option<f32>,
        lines: &mut [f32],
    ) {
        let (products, _) = products.as_chunks::<LANES>();
        let halves = PANEL / LANES;
        for half in 0..columns.div_ceil(LANES) {
            let mut half_done = [[0f32; LANES]; TILE * READ];
            for x in 0..READ {
                let of = |y: usize| products[((y * READ + x) * FILTERS + filter) * halves + half];
                let column = times_a(std::array::from_fn(of));
                for y in 0..TILE {
                    half_done[y * READ + x] = column[y];
                }
            }
            for y in 0..TILE {
                let mut line = times_a(std::array::from_fn(|x| half_done[y * READ + x]));
                if let Some(bias) = bias {
                    line.as_flattened_mut().iter_mut().for_each(|value| *value += bias);
                }
                let start = (y * PANEL + half * LANES) * TILE;
                let (out, _) = lines[start..][..LANES * TILE].as_chunks_mut::<TILE>();
                for (lane, out) in out.iter_mut().enumerate() {
                    for x in 0..TILE {
                        out[x] = line[x][lane];
                    }
                }
            }
        }
    }
}

/// One column of `Bᵀ d`.
#[inline(always)]
fn times_b(d: [Lanes; READ]) -> [Lanes; READ] {
    let mut result = [[0f32; LANES]; READ];
    for i in 0..LANES {
        let (p, q) = ((-4f32).mul_add(d[2][i], d[4][i]), (-4f32).mul_add(d[1][i], d[3][i]));
        let (r, s) = (d[4][i] - d[2][i], d[3][i] - d[1][i]);
        result[0][i] = 4f32.mul_add(d[0][i], (-5f32).mul_add(d[2][i], d[4][i]));
        result[1][i] = p + q;
        result[2][i] = p - q;
        result[3][i] = 2f32.mul_add(s, r);
        result[4][i] = (-2f32).mul_add(s, r);
        result[5][i] = 4f32.mul_add(d[1][i], (-5f32).mul_add(d[3][i], d[5][i]));
    }
    result
}

/// One column of `Aᵀ m`.
#[inline(always)]
fn times_a(m: [Lanes; READ]) -> [Lanes; TILE] {
    let mut result = [[0f32; LANES]; TILE];
    for i in 0..LANES {
        let (a, b) = (m[1][i] + m[2][i], m[1][i] - m[2][i]);
        let (c, d) = (m[3][i] + m[4][i], m[3][i] - m[4][i]);
        result[0][i] = m[0][i] + a + c;
        result[1][i] = 2f32.mul_add(d, b);
        result[2][i] = 4f32.mul_add(c, a);
        result[3][i] = 8f32.mul_add(d, b) + m[5][i];
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::conv::{Weights, convolve};
    use super::*;
    use crate::float::function::Function;
    use crate::float::testing::{at_every_level, noise};
    use proptest::prelude::*;

    /// The definition in f64, and the sum of the magnitudes of what is added.
    fn exact(conv: &Convolution, weights: &[f32], input: &[f32], plane: usize) -> Vec<(f64, f64)> {
        let Convolution { filters, channels, window, size, out_size, .. } = *conv;
        let (image, filter) = (plane / filters, plane % filters);
        let pixel = |channel: usize, y: usize, x: usize| {
            let inside = |axis: usize, at: usize| {
                at.checked_sub(window.pads_begin[axis]).filter(|&at| at < size[axis])
            };
            let (y, x) = (inside(0, y)?, inside(1, x)?);
            Some(input[((image * channels + channel) * size[0] + y) * size[1] + x])
        };
        let mut results = Vec::new();
        for (y, x) in (0..out_size[0]).flat_map(|y| (0..out_size[1]).map(move |x| (y, x))) {
            let bias = conv.bias.get(filter).map_or(0.0, |&bias| f64::from(bias));
            let (mut sum, mut magnitude) = (bias, bias.abs());
            for (channel, tap) in (0..channels).flat_map(|c| (0..9).map(move |t| (c, t))) {
                let weight = f64::from(weights[(filter * channels + channel) * 9 + tap]);
                let value = pixel(channel, y + tap / 3, x + tap % 3).map_or(0.0, f64::from);
                sum += weight * value;
                magnitude += (weight * value).abs();
            }
            let sum = match conv.function {
                Some(_) => sum.max(0.0),
                None => sum,
            };
            results.push((sum, magnitude));
        }
        results
    }

    /// A tile's pixels all have a part in the rounding of each of its results.
    fn assert_near(got: &[f32], exact: &[(f64, f64)]) {
        let largest = exact.iter().fold(0f64, |largest, (_, magnitude)| largest.max(*magnitude));
        for (&got, (sum, _)) in got.iter().zip(exact) {
            assert!((f64::from(got) - sum).abs() <= 4e-6 * largest, "{got}, not {sum}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn tiles_are_windows_but_for_rounding(
            (channels, filters) in (LEAST..LEAST + 5, LEAST..LEAST + 20),
            (size, before, behind) in (
                prop::array::uniform2(1usize..22),
                prop::array::uniform2(0usize..4),
                prop::array::uniform2(0usize..4),
            ),
            (images, cut) in (1usize..4, any::<usize>()),
            (has_bias, relu) in any::<(bool, bool)>(),
        ) {
            let window =
                Window { kernel: [3; 2], stride: [1; 2], pads_begin: before, dilation: [1; 2] };
            let size = [0, 1].map(|axis| size[axis].max(3));
            let out_size = [0, 1].map(|axis| size[axis] + before[axis] + behind[axis] - 2);
            let shape = [filters, channels, 3, 3];
            let plain = noise(shape.iter().product(), 8);
            let weights = Weights::new(plain.clone(), shape, 1, window);
            let bias = noise(if has_bias { filters } else { 0 }, 9);
            let function = relu.then_some(Function::Relu);
            let conv = Convolution {
                weights: &weights, bias: &bias, filters, channels, groups: 1, window, size, out_size,
                function,
            };
            let input = noise(images * channels * size[0] * size[1], 7);
            let planes = images * filters;
            let plane_len = out_size[0] * out_size[1];
            let cut = cut % (planes + 1);
            let got = at_every_level(|cpu| {
                let mut out = vec![7.0; planes * plane_len];
                let mut scratch = vec![f32::NAN; 5000];
                let (left, right) = out.split_at_mut(cut * plane_len);
                convolve(cpu, &conv, &input, 0..cut, left, &mut scratch);
                convolve(cpu, &conv, &input, cut..planes, right, &mut scratch);
                out
            });
            let mut whole = vec![0.0; got.len()];
            convolve(Cpu::SCALAR, &conv, &input, 0..planes, &mut whole, &mut Vec::new());
            prop_assert_eq!(&got, &whole);
            for (plane, got) in got.chunks(plane_len).enumerate() {
                assert_near(got, &exact(&conv, &plain, &input, plane));
            }
        }
    }

    #[test]
    fn large_images_are_cut_into_rows_of_tiles() {
        let window =
            Window { kernel: [3; 2], stride: [1; 2], pads_begin: [1; 2], dilation: [1; 2] };
        let (channels, filters, size) = (16, 16, [90, 130]);
        let plain = noise(filters * channels * 9, 1);
        let weights = Weights::new(plain.clone(), [filters, channels, 3, 3], 1, window);
        let conv = Convolution {
            weights: &weights,
            bias: &[],
            filters,
            channels,
            groups: 1,
            window,
            size,
            out_size: size,
            function: None,
        };
        let input = noise(channels * size[0] * size[1], 2);
        let mut out = vec![0.0; filters * size[0] * size[1]];
        convolve(
            Cpu::available().pop().unwrap(),
            &conv,
            &input,
            0..filters,
            &mut out,
            &mut Vec::new(),
        );
        assert_near(&out[..size[0] * size[1]], &exact(&conv, &plain, &input, 0));
    }

    #[test]
    fn only_what_gains_is_transformed() {
        let window =
            Window { kernel: [3; 2], stride: [1; 2], pads_begin: [1; 2], dilation: [1; 2] };
        let made = |shape: [usize; 4], groups, window| {
            Transformed::new(&vec![1.0; shape.iter().product()], shape, groups, window).is_some()
        };
        assert!(made([16, 16, 3, 3], 1, window));
        assert!(!made([16, 8, 3, 3], 1, window));
        assert!(!made([8, 16, 3, 3], 1, window));
        assert!(!made([32, 16, 3, 3], 2, window));
        assert!(!made([16, 16, 3, 3], 1, Window { stride: [2, 1], ..window }));
        assert!(!made([16, 16, 3, 3], 1, Window { dilation: [1, 2], ..window }));
        let tall = Window { kernel: [5, 3], ..window };
        assert!(!made([16, 16, 5, 3], 1, tall));
    }
}
