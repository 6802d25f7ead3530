//! What happens to the sums of a product before they are stored.

use crate::cpu::per_cpu;
use crate::gemm::shared::Shared;

/// Columns of a tile of sums.
pub(crate) const TILE_COLUMNS: usize = 64;
/// Most rows of a tile of sums.
pub(crate) const TILE_ROWS: usize = 32;

/// A tile of sums, `[TILE_ROWS, TILE_COLUMNS]`.
#[repr(align(64))]
pub(crate) struct Tile<T>(pub [T; TILE_ROWS * TILE_COLUMNS]);

/// The quantized output: what a byte means, and which bytes may come out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteRange {
    /// The byte of zero.
    pub zero_point: u8,
    /// The least byte: 0, or the zero point behind a Relu.
    pub low: u8,
    /// The greatest byte.
    pub high: u8,
}

/// From sums to bytes: `clamp(round((sum + bias) * scale) + zero_point)`, ties to even.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// For each column, in units of the sums; the zero point of the activations is in here.
    pub bias: &'a [i32],
    /// For each column: the activations' scale times the weights' over the output's.
    pub scale: &'a [f32],
    /// The bytes that come out.
    pub to: ByteRange,
    /// Bytes to add, and what becomes of the sum.
    pub add: Option<AddBytes<'a>>,
}

/// A residual connection: `round((q - z) * s + (other - z') * s') / scale) + zero_point`, where q is
/// what [`Requantize`] alone gives.
#[derive(Clone, Copy, Debug)]
pub struct AddBytes<'a> {
    /// The other bytes.
    pub other: &'a [u8],
    /// Where the rows of `other` lie.
    pub walk: crate::gemm::Walk,
    /// The other zero point.
    pub other_zero_point: u8,
    /// The other scale.
    pub other_scale: f32,
    /// The scale of what [`Requantize`] alone gives.
    pub scale: f32,
    /// The scale of the sum.
    pub to_scale: f32,
    /// The bytes that come out.
    pub to: ByteRange,
}

/// From sums to floats: `(sum + bias) * scale`.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// For each column, in units of the sums.
    pub bias: &'a [i32],
    /// For each column.
    pub scale: &'a [f32],
}

/// A float between 0 and 255 as a byte.
#[inline(always)]
fn byte(value: f32) -> u8 {
    // SAFETY: every caller has clamped the value to 0..=255, and a NaN cannot come from finite
    // scales; min and max below turn one into a bound all the same.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

/// Clamps, and turns a NaN into `low`.
#[inline(always)]
fn clamped(value: f32, low: f32, high: f32) -> f32 {
    let value = if value > low { value } else { low };
    if value < high { value } else { high }
}

per_cpu! {
    /// Writes `rows` rows of `columns` bytes of a tile at `offsets` of `out`.
    pub(crate) fn requantize_tile(
        sums: &Tile<i32>,
        columns: usize,
        first: usize,
        requantize: &Requantize,
        offsets: &[usize],
        others: &[usize],
        out: Shared<u8>,
    ) {
        let bias = &requantize.bias[first..first + columns];
        let scale = &requantize.scale[first..first + columns];
        let to = requantize.to;
        let (zero, low, high) = (f32::from(to.zero_point), f32::from(to.low), f32::from(to.high));
        for (row, &offset) in offsets.iter().enumerate() {
            let sums = &sums.0[row * TILE_COLUMNS..][..columns];
            // SAFETY: `multiply` checked that all rows lie in `out` and do not overlap, and no two
            // threads have the same row.
            let out = unsafe { out.row(offset + first, columns) };
            match &requantize.add {
                None => {
                    for i in 0..columns {
                        let x = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                        out[i] = byte(clamped(x.round_ties_even() + zero, low, high));
                    }
                }
                Some(add) => {
                    let other = &add.other[others[row] + first..][..columns];
                    let other_zero = i32::from(add.other_zero_point);
                    let to_zero = f32::from(add.to.zero_point);
                    let (to_low, to_high) = (f32::from(add.to.low), f32::from(add.to.high));
                    for i in 0..columns {
                        let x = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                        let q = clamped(x.round_ties_even() + zero, low, high);
                        let a = (q - zero) * add.scale;
                        let b = (i32::from(other[i]) - other_zero) as f32 * add.other_scale;
                        let sum = ((a + b) / add.to_scale).round_ties_even() + to_zero;
                        out[i] = byte(clamped(sum, to_low, to_high));
                    }
                }
            }
        }
    }
}

per_cpu! {
    /// Writes `rows` rows of `columns` floats of a tile at `offsets` of `out`.
    pub(crate) fn dequantize_tile(
        sums: &Tile<i32>,
        columns: usize,
        first: usize,
        dequantize: &Dequantize,
        offsets: &[usize],
        out: Shared<f32>,
    ) {
        let bias = &dequantize.bias[first..first + columns];
        let scale = &dequantize.scale[first..first + columns];
        for (row, &offset) in offsets.iter().enumerate() {
            let sums = &sums.0[row * TILE_COLUMNS..][..columns];
            // SAFETY: as in `requantize_tile`.
            let out = unsafe { out.row(offset + first, columns) };
            for i in 0..columns {
                out[i] = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
            }
        }
    }
}
