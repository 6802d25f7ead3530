//! The transforms of section 4.3, of a vector of channels or filters at a time.

use std::ops::Range;

use super::{POINTS, READ, TILE};
use crate::Cpu;
use crate::cpu::per_cpu;
use crate::float::images::slide::LANES;
use crate::float::panel::PANEL;
use crate::transpose::transpose;

/// Weights of a window.
const TAPS: usize = 9;

type Lanes = [f32; LANES];
/// The results of a tile, pixel by pixel, of as many filters as a vector has lanes.
pub type Results = [Lanes; TILE * TILE];

/// What of each tap is in each point of `G g Gᵀ`.
fn parts_of_taps() -> [[f64; TAPS]; POINTS] {
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
        std::array::from_fn(|tap| row[tap / 3] * column[tap % 3])
    })
}

/// `G g Gᵀ`, rounded once, of a panel of filters: their weights, `[filters, channels, TAPS]`, to
/// `[POINTS, channels, PANEL]`.
pub fn transform_taps(cpu: Cpu, weights: &[f32], channels: usize, points: &mut [f32]) {
    let parts = parts_of_taps();
    let mut taps = [[0f64; PANEL]; TAPS];
    for channel in 0..channels {
        for (lane, filter) in weights.chunks_exact(channels * TAPS).enumerate() {
            for (taps, &weight) in taps.iter_mut().zip(&filter[channel * TAPS..][..TAPS]) {
                taps[lane] = f64::from(weight);
            }
        }
        join_taps(cpu, &parts, &taps, &mut points[channel * PANEL..], channels * PANEL);
    }
}

per_cpu! {
    /// The points of one channel, which lie a pitch from each other.
    fn join_taps(
        parts: &[[f64; TAPS]; POINTS],
        taps: &[[f64; PANEL]; TAPS],
        points: &mut [f32],
        pitch: usize,
    ) {
        for (point, parts) in parts.iter().enumerate() {
            let mut sums = [0f64; PANEL];
            for (taps, part) in taps.iter().zip(parts) {
                for i in 0..PANEL {
                    sums[i] += part * taps[i];
                }
            }
            let point = &mut points[point * pitch..][..PANEL];
            for i in 0..PANEL {
                point[i] = sums[i] as f32;
            }
        }
    }
}

per_cpu! {
    /// `Bᵀ d B` of all channels of some tiles, which begin at `starts` of `copies`, to `points`,
    /// `[POINTS, tiles, channels]`: a pitch from one point to the next.
    pub fn transform_pixels(
        copies: &[f32],
        row_pitch: usize,
        channels: usize,
        starts: &[usize],
        points: &mut [f32],
        pitch: usize,
    ) {
        let mut half_done = [[0f32; LANES]; POINTS];
        for (tile, start) in starts.iter().enumerate() {
            for block in (0..channels).step_by(LANES) {
                for x in 0..READ {
                    let mut column = [[0f32; LANES]; READ];
                    for (y, lanes) in column.iter_mut().enumerate() {
                        let from = start + y * row_pitch + x * channels + block;
                        lanes.copy_from_slice(&copies[from..][..LANES]);
                    }
                    let column = times_b(column);
                    for y in 0..READ {
                        half_done[y * READ + x] = column[y];
                    }
                }
                for y in 0..READ {
                    let mut line = [[0f32; LANES]; READ];
                    for x in 0..READ {
                        line[x] = half_done[y * READ + x];
                    }
                    let line = times_b(line);
                    for (x, lanes) in line.iter().enumerate() {
                        let to = (y * READ + x) * pitch + tile * channels + block;
                        points[to..][..LANES].copy_from_slice(lanes);
                    }
                }
            }
        }
    }
}

per_cpu! {
    /// `Aᵀ m A` of a vector of filters of some tiles, and their biases. The tiles' products begin a
    /// panel apart in `products`, one point a pitch behind the other.
    pub fn transform_products(
        products: &[f32],
        pitch: usize,
        bias: Option<&Lanes>,
        results: &mut [Results],
    ) {
        let mut half_done = [[0f32; LANES]; TILE * READ];
        for (tile, results) in results.iter_mut().enumerate() {
            for x in 0..READ {
                let mut column = [[0f32; LANES]; READ];
                for (y, lanes) in column.iter_mut().enumerate() {
                    let from = (y * READ + x) * pitch + tile * PANEL;
                    lanes.copy_from_slice(&products[from..][..LANES]);
                }
                let column = times_a(column);
                for y in 0..TILE {
                    half_done[y * READ + x] = column[y];
                }
            }
            for y in 0..TILE {
                let mut line = [[0f32; LANES]; READ];
                for x in 0..READ {
                    line[x] = half_done[y * READ + x];
                }
                let line = times_a(line);
                for x in 0..TILE {
                    results[y * TILE + x] = match bias {
                        Some(bias) => sum(line[x], bias),
                        None => line[x],
                    };
                }
            }
        }
    }
}

per_cpu! {
    /// Writes `size` rows and columns of a tile of some filters, one plane behind the other.
    /// `pitches` are those from a plane and from a row to the next.
    pub fn write(
        results: &Results,
        lanes: Range<usize>,
        size: [usize; 2],
        pitches: [usize; 2],
        out: &mut [f32],
    ) {
        let by_filter = transpose(results);
        for (plane, pixels) in by_filter[lanes].iter().enumerate() {
            let (lines, _) = pixels.as_chunks::<TILE>();
            for (y, line) in lines.iter().enumerate().take(size[0]) {
                let out = &mut out[plane * pitches[0] + y * pitches[1]..][..size[1]];
                // A copy of constant length is no call.
                match out.first_chunk_mut() {
                    Some(out) => *out = *line,
                    None => out.iter_mut().zip(line).for_each(|(out, &value)| *out = value),
                }
            }
        }
    }
}

#[inline(always)]
fn sum(mut a: Lanes, b: &Lanes) -> Lanes {
    for i in 0..LANES {
        a[i] += b[i];
    }
    a
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
