//! What happens to the sums of a product before they are stored.

use crate::Cpu;
use crate::bytes::{QuantizeTo, quantize, real};
use crate::cpu::per_cpu;
use crate::float::{Function, apply};
use crate::gemm::Walk;
use crate::gemm::shared::Shared;

/// Columns of a tile of sums.
pub(crate) const TILE_COLUMNS: usize = 64;
/// Most rows of a tile of sums.
pub(crate) const TILE_ROWS: usize = 32;

/// A tile of sums, `[TILE_ROWS, TILE_COLUMNS]`.
#[repr(align(64))]
pub(crate) struct Tile<T>(pub [T; TILE_ROWS * TILE_COLUMNS]);

/// From sums to bytes: `clamp(round((sum + bias) * scale) + zero_point)`, ties to even.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// For each column, in units of the sums; the zero point of the activations is in here.
    pub bias: &'a [i32],
    /// For each column: the activations' scale times the weights' over the output's.
    pub scale: &'a [f32],
    /// The bytes that come out; its scale counts only where something is added.
    pub to: QuantizeTo,
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
    pub walk: Walk,
    /// The other zero point.
    pub other_zero_point: u8,
    /// The other scale.
    pub other_scale: f32,
    /// How the sum becomes bytes.
    pub to: QuantizeTo,
}

/// From sums to floats: `function((sum + bias) * scale + offset) + other`.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// For each column, in units of the sums.
    pub bias: &'a [i32],
    /// For each column.
    pub scale: &'a [f32],
    /// For each column, added behind the scale.
    pub offset: Option<&'a [f32]>,
    /// What follows.
    pub function: Option<Function>,
    /// Floats that are added last, and where their rows lie.
    pub add: Option<(&'a [f32], Walk)>,
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
        let rounding = to.rounding();
        for (row, &offset) in offsets.iter().enumerate() {
            let sums = &sums.0[row * TILE_COLUMNS..][..columns];
            // SAFETY: `multiply` checked that all rows lie in `out` and do not overlap, and no two
            // threads have the same row.
            let out = unsafe { out.row(offset + first, columns) };
            match &requantize.add {
                None => {
                    for i in 0..columns {
                        let x = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                        out[i] = rounding.byte(x);
                    }
                }
                Some(add) => {
                    let other = &add.other[others[row] + first..][..columns];
                    let sum_rounding = add.to.rounding();
                    for i in 0..columns {
                        let x = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                        let a = real(rounding.byte(x), to.scale, to.zero_point);
                        let b = real(other[i], add.other_scale, add.other_zero_point);
                        out[i] = sum_rounding.byte((a + b) / add.to.scale);
                    }
                }
            }
        }
    }
}

per_cpu! {
    /// Turns the first `rows` rows of `columns` sums of a tile into floats.
    fn dequantize_tile(
        sums: &Tile<i32>,
        columns: usize,
        first: usize,
        dequantize: &Dequantize,
        rows: usize,
        floats: &mut Tile<f32>,
    ) {
        let bias = &dequantize.bias[first..first + columns];
        let scale = &dequantize.scale[first..first + columns];
        for row in 0..rows {
            let sums = &sums.0[row * TILE_COLUMNS..][..columns];
            let floats = &mut floats.0[row * TILE_COLUMNS..][..columns];
            match dequantize.offset {
                None => {
                    for i in 0..columns {
                        floats[i] = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                    }
                }
                Some(offset) => {
                    let offset = &offset[first..first + columns];
                    for i in 0..columns {
                        floats[i] = sums[i].wrapping_add(bias[i]) as f32 * scale[i] + offset[i];
                    }
                }
            }
        }
    }
}

per_cpu! {
    /// Adds rows of `others`.
    fn add_rows(columns: usize, others: &[&[f32]], floats: &mut Tile<f32>) {
        for (row, other) in others.iter().enumerate() {
            let floats = &mut floats.0[row * TILE_COLUMNS..][..columns];
            for (x, &other) in floats.iter_mut().zip(&other[..columns]) {
                *x += other;
            }
        }
    }
}

/// Where the floats of a tile go.
#[derive(Clone, Copy)]
pub(crate) enum FloatSink<'a> {
    Floats(Shared<'a, f32>),
    Bytes(Shared<'a, u8>, QuantizeTo),
}

/// Writes rows of `columns` floats, or their bytes, at `offsets` of `out`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn floats_of_tile(
    cpu: Cpu,
    sums: &Tile<i32>,
    columns: usize,
    first: usize,
    dequantize: &Dequantize,
    offsets: &[usize],
    others: &[usize],
    floats: &mut Tile<f32>,
    sink: FloatSink,
) {
    let rows = offsets.len();
    dequantize_tile(cpu, sums, columns, first, dequantize, rows, floats);
    if let Some(function) = dequantize.function {
        // With the columns behind the last, which do not count.
        apply(cpu, function, &mut floats.0[..rows * TILE_COLUMNS]);
    }
    if let Some((other, _)) = dequantize.add {
        let mut slices = [&other[..0]; TILE_ROWS];
        for (slice, &at) in slices.iter_mut().zip(others) {
            *slice = &other[at + first..][..columns];
        }
        add_rows(cpu, columns, &slices[..rows], floats);
    }
    for (row, &offset) in offsets.iter().enumerate() {
        let floats = &floats.0[row * TILE_COLUMNS..][..columns];
        match sink {
            FloatSink::Floats(out) => {
                // SAFETY: as in `requantize_tile`.
                let out = unsafe { out.row(offset + first, columns) };
                out.copy_from_slice(floats);
            }
            FloatSink::Bytes(out, to) => {
                // SAFETY: as above.
                let out = unsafe { out.row(offset + first, columns) };
                quantize(cpu, floats, to, out);
            }
        }
    }
}
