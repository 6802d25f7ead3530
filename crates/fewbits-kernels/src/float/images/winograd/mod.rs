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

mod copies;
mod transform;

use self::copies::{Copies, Planes};
use self::transform::{transform_pixels, transform_products, transform_taps, write};
use super::convolution::{Convolution, Part};
use super::slide::LANES;
use crate::Cpu;
use crate::bytes::Window;
use crate::float::function::apply;
use crate::float::panel::{PANEL, times_panel};
use crate::float::strided::{Dims, Strided, StridedMut, at_least};

/// Results along each axis of a tile.
const TILE: usize = 4;
/// Pixels along each axis that a tile reads.
const READ: usize = TILE + 2;
/// Elements of a tile between the transforms.
const POINTS: usize = READ * READ;
/// TileGrid that are transformed together: weights are read once for all of them.
const TOGETHER: usize = 32;
/// Fewer channels or filters would be transformed for longer than they are multiplied.
const LEAST: usize = 16;

/// The weights `G g Gᵀ` of every filter and channel: `[panels of filters, POINTS, channels, PANEL]`,
/// the last panel filled up with zeros.
#[derive(Clone, Debug)]
pub struct Transformed {
    values: Vec<f32>,
    channels: usize,
}

impl Transformed {
    /// Transforms weights of `[filters, channels, rows, columns]`, where this form is faster.
    pub fn new(
        cpu: Cpu,
        weights: &[f32],
        shape: [usize; 4],
        groups: usize,
        window: Window,
    ) -> Option<Self> {
        let [filters, channels, rows, columns] = shape;
        let fits =
            [rows, columns] == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1];
        if !fits || groups != 1 || filters.min(channels) < LEAST {
            return None;
        }
        assert_eq!(weights.len(), filters * channels * 9, "weights of another size");
        let panel_len = POINTS * channels * PANEL;
        let mut values = vec![0f32; filters.div_ceil(PANEL) * panel_len];
        let panels = weights.chunks(PANEL * channels * 9);
        for (weights, points) in panels.zip(values.chunks_exact_mut(panel_len)) {
            transform_taps(cpu, weights, channels, points);
        }
        Some(Transformed { values, channels })
    }

    /// Those of a panel of filters for one point.
    fn of(&self, panel: usize, point: usize) -> &[f32] {
        let len = self.channels * PANEL;
        &self.values[(panel * POINTS + point) * len..][..len]
    }
}

/// How tiles lie in an image.
#[derive(Clone, Copy)]
pub(super) struct TileGrid {
    /// Rows of tiles, and tiles in a row.
    pub count: [usize; 2],
    channels: usize,
}

impl TileGrid {
    pub fn new(conv: &Convolution) -> TileGrid {
        let count = conv.out_size.map(|len| len.div_ceil(TILE));
        TileGrid { count, channels: conv.channels.next_multiple_of(LANES) }
    }

    /// How many images have as many tiles as are transformed together.
    pub fn images_together(&self) -> usize {
        let tiles = self.count[0] * self.count[1];
        // TOGETHER is a power of two: what it shares with the number of tiles is its last set bit.
        let shared = 1 << tiles.trailing_zeros().min(TOGETHER.trailing_zeros());
        TOGETHER / shared
    }

    /// Floats of the copy of one image for some rows of tiles.
    pub fn copy_len(&self, rows: usize) -> usize {
        self.copies(rows).image_pitch()
    }

    fn copies(&self, rows: usize) -> Copies {
        let [rows, columns] = [rows, self.count[1]].map(|tiles| tiles * TILE + 2);
        Copies { rows, columns, channels: self.channels }
    }
}

/// Some filters of some rows of tiles.
pub(super) fn rows(
    cpu: Cpu,
    conv: &Convolution,
    weights: &Transformed,
    tiles: TileGrid,
    part: Part,
    out: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let Part { input, images, filters, rows } = part;
    let copies = tiles.copies(rows.len());
    let all = images.len() * rows.len() * tiles.count[1];
    let most = TOGETHER.min(all);
    // A vector between the points: else all of them would share a set of the first cache.
    let [points_pitch, products_pitch] = [tiles.channels, PANEL].map(|len| most * len + LANES);
    let copies_len = images.len() * copies.image_pitch();
    let [points_len, products_len] = [points_pitch, products_pitch].map(|pitch| POINTS * pitch);
    let results_len = most * TILE * TILE * LANES;
    let scratch = at_least(scratch, copies_len + points_len + products_len + results_len);
    let (copied, scratch) = scratch.split_at_mut(copies_len);
    let (points, scratch) = scratch.split_at_mut(points_len);
    let (products, results) = scratch.split_at_mut(products_len);
    let results = results.as_chunks_mut().0.as_chunks_mut().0;
    let Convolution { channels, size, window, .. } = *conv;
    let planes = Planes { input, channels, size, pads: window.pads_begin };
    copies.fill(cpu, planes, images, rows.start * TILE, copied);
    let mut places = Vec::with_capacity(most);
    let mut starts = Vec::with_capacity(most);
    for first in (0..all).step_by(TOGETHER) {
        places.clear();
        places.extend(
            (first..all.min(first + TOGETHER)).map(|tile| TilePlace::of(tile, tiles, rows.len())),
        );
        starts.clear();
        starts.extend(places.iter().map(|place| place.start(&copies)));
        let row_pitch = copies.row_pitch();
        transform_pixels(cpu, copied, row_pitch, tiles.channels, &starts, points, points_pitch);
        for panel in filters.start / PANEL..filters.end.div_ceil(PANEL) {
            let of_panel = panel * PANEL..conv.filters.min((panel + 1) * PANEL);
            for point in 0..POINTS {
                let a = Strided::rows(&points[point * points_pitch..], tiles.channels);
                let (b, to) = (weights.of(panel, point), point * products_pitch);
                let dims = Dims { m: places.len(), k: channels, n: of_panel.len() };
                let to = StridedMut { values: products, start: to, row: PANEL };
                times_panel(cpu, dims, a, b, to);
            }
            for block in of_panel.step_by(LANES) {
                let own = filters.start.max(block)..filters.end.min(block + LANES);
                if own.is_empty() {
                    continue;
                }
                let (first_plane, lanes) =
                    (own.start - filters.start, own.start - block..own.end - block);
                let bias = bias_of(conv, block);
                let from = &products[block % PANEL..];
                let results = &mut results[..places.len()];
                transform_products(cpu, from, products_pitch, bias.as_ref(), results);
                if let Some(function) = conv.function {
                    apply(cpu, function, results.as_flattened_mut().as_flattened_mut());
                }
                for (place, results) in places.iter().zip(results) {
                    let plane = place.image * filters.len() + first_plane;
                    let corner = [rows.start + place.row, place.column].map(|tile| tile * TILE);
                    let size = [0, 1].map(|axis| TILE.min(conv.out_size[axis] - corner[axis]));
                    let at = plane * conv.out_plane() + corner[0] * conv.out_size[1] + corner[1];
                    let pitches = [conv.out_plane(), conv.out_size[1]];
                    write(cpu, results, lanes.clone(), size, pitches, &mut out[at..]);
                }
            }
        }
    }
}

/// Where a tile lies.
struct TilePlace {
    image: usize,
    /// Counted from the first row that is computed.
    row: usize,
    column: usize,
}

impl TilePlace {
    /// Tile number `tile`, counted through images, `rows` rows of tiles and the tiles of each.
    fn of(tile: usize, tiles: TileGrid, rows: usize) -> TilePlace {
        let (row, column) = (tile / tiles.count[1], tile % tiles.count[1]);
        TilePlace { image: row / rows, row: row % rows, column }
    }

    /// Where its first pixel lies.
    fn start(&self, copies: &Copies) -> usize {
        self.image * copies.image_pitch()
            + self.row * TILE * copies.row_pitch()
            + self.column * TILE * copies.channels
    }
}

/// The biases of a vector of filters, if there are any.
fn bias_of(conv: &Convolution, first: usize) -> Option<[f32; LANES]> {
    // Adding 0.0 would turn -0.0 into it.
    let bias = conv.bias.get(first..).filter(|bias| !bias.is_empty())?;
    let mut lanes = [0.0; LANES];
    let len = bias.len().min(LANES);
    lanes[..len].copy_from_slice(&bias[..len]);
    Some(lanes)
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
                Window { pads_begin: before, pads_end: behind, ..Window::of([3; 2]) };
            let size = [0, 1].map(|axis| size[axis].max(3));
            let out_size = [0, 1].map(|axis| size[axis] + before[axis] + behind[axis] - 2);
            let shape = [filters, channels, 3, 3];
            let plain = noise(shape.iter().product(), 8);
            let weights = Weights::new(Cpu::SCALAR, plain.clone(), shape, 1, window);
            let bias = noise(if has_bias { filters } else { 0 }, 9);
            let function = relu.then_some(Function::Relu);
            let conv = Convolution {
                bias: &bias, filters, channels, groups: 1, window, size, out_size,
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
                convolve(cpu, &conv, &weights, &input, 0..cut, left, &mut scratch);
                convolve(cpu, &conv, &weights, &input, cut..planes, right, &mut scratch);
                out
            });
            let mut whole = vec![0.0; got.len()];
            convolve(Cpu::SCALAR, &conv, &weights, &input, 0..planes, &mut whole, &mut Vec::new());
            prop_assert_eq!(&got, &whole);
            for (plane, got) in got.chunks(plane_len).enumerate() {
                assert_near(got, &exact(&conv, &plain, &input, plane));
            }
        }
    }

    #[test]
    fn large_images_are_cut_into_rows_of_tiles() {
        let window = Window { pads_begin: [1; 2], pads_end: [1; 2], ..Window::of([3; 2]) };
        let (channels, filters, size) = (16, 16, [90, 130]);
        let plain = noise(filters * channels * 9, 1);
        let weights =
            Weights::new(Cpu::SCALAR, plain.clone(), [filters, channels, 3, 3], 1, window);
        let conv = Convolution {
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
            &weights,
            &input,
            0..filters,
            &mut out,
            &mut Vec::new(),
        );
        assert_near(&out[..size[0] * size[1]], &exact(&conv, &plain, &input, 0));
    }

    #[test]
    fn weights_are_the_same_at_every_level() {
        let window = Window::of([3; 2]);
        let shape = [PANEL + 5, LEAST + 1, 3, 3];
        let plain = noise(shape.iter().product(), 4);
        let made =
            at_every_level(|cpu| Transformed::new(cpu, &plain, shape, 1, window).unwrap().values);
        // The point in the middle of filter 33 and channel 2, by the definition.
        let taps = plain[(33 * shape[1] + 2) * 9..][..9].iter().map(|&tap| f64::from(tap));
        let wanted: f64 = taps.enumerate().map(|(i, t)| [t, -t][i / 3 % 2] / 36.0).sum();
        let got = made[((POINTS + 2 * READ + 1) * shape[1] + 2) * PANEL + 1];
        assert!((f64::from(got) - wanted).abs() < 1e-7, "{got}, not {wanted}");
    }

    #[test]
    fn only_what_gains_is_transformed() {
        let window = Window { pads_begin: [1; 2], pads_end: [1; 2], ..Window::of([3; 2]) };
        let made = |shape: [usize; 4], groups, window| {
            Transformed::new(Cpu::SCALAR, &vec![1.0; shape.iter().product()], shape, groups, window)
                .is_some()
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
