//! What happens to the sums of a product before they are stored.

use crate::Cpu;
use crate::bytes::{QuantizeTo, quantize, real};
use crate::cpu::per_cpu;
use crate::float::{Function, apply};
use crate::gemm::Walk;
use crate::gemm::shared::Shared;

/// Columns of a tile of sums.
pub(crate) const TILE_COLUMNS: usize = 64;
/// Columns that become bytes together: a vector of AVX-512.
const VECTOR: usize = 16;
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
        for column in (0..columns).step_by(VECTOR) {
            let vector = Vector { sums, column, requantize, first: first + column, others };
            // Inlined twice: of constant length all of it is vector code without calls.
            match columns - column {
                VECTOR.. => vector.requantize(VECTOR, offsets, out),
                len => vector.requantize(len, offsets, out),
            }
        }
    }
}

/// Some columns of a tile, a vector or fewer.
struct Vector<'a> {
    sums: &'a Tile<i32>,
    /// In the tile.
    column: usize,
    requantize: &'a Requantize<'a>,
    /// The same column in all of them.
    first: usize,
    others: &'a [usize],
}

impl Vector<'_> {
    /// Writes `len` bytes of each row. Biases and scales stay in registers.
    #[inline(always)]
    fn requantize(&self, len: usize, offsets: &[usize], out: Shared<u8>) {
        let Vector { requantize: &Requantize { bias, scale, to, ref add }, first, .. } = *self;
        let bias = filled_up(&bias[first..][..len]);
        let scale = filled_up(&scale[first..][..len]);
        let rounding = to.rounding();
        match add {
            None => {
                for (row, &offset) in offsets.iter().enumerate() {
                    let sums = self.sums(row);
                    let mut bytes = [0u8; VECTOR];
                    for i in 0..VECTOR {
                        let x = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                        bytes[i] = rounding.byte(x);
                    }
                    self.write(&bytes, len, offset, out);
                }
            }
            Some(add) => {
                let sum_rounding = add.to.rounding();
                for (row, &offset) in offsets.iter().enumerate() {
                    let sums = self.sums(row);
                    let other = filled_up(&add.other[self.others[row] + first..][..len]);
                    let mut bytes = [0u8; VECTOR];
                    for i in 0..VECTOR {
                        let x = sums[i].wrapping_add(bias[i]) as f32 * scale[i];
                        let a = real(rounding.byte(x), to.scale, to.zero_point);
                        let b = real(other[i], add.other_scale, add.other_zero_point);
                        bytes[i] = sum_rounding.byte((a + b) / add.to.scale);
                    }
                    self.write(&bytes, len, offset, out);
                }
            }
        }
    }

    #[inline(always)]
    fn sums(&self, row: usize) -> &[i32; VECTOR] {
        let sums = &self.sums.0[row * TILE_COLUMNS + self.column..];
        sums.first_chunk().expect("columns of a tile are whole vectors")
    }

    #[inline(always)]
    fn write(&self, bytes: &[u8; VECTOR], len: usize, offset: usize, out: Shared<u8>) {
        // SAFETY: `multiply` checked that all rows lie in `out` and do not overlap, and no two
        // threads have the same row.
        let out = unsafe { out.row(offset + self.first, len) };
        out.copy_from_slice(&bytes[..len]);
    }
}

/// A vector of values, those that are not there zero.
#[inline(always)]
fn filled_up<T: Copy + Default>(values: &[T]) -> [T; VECTOR] {
    match values.first_chunk() {
        Some(values) => *values,
        None => {
            let mut filled = [T::default(); VECTOR];
            filled[..values.len()].copy_from_slice(values);
            filled
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
