//! What happens to the sums of a product before they are stored.

use super::grid::RowStrides;
use super::shared::Shared;
use crate::Cpu;
use crate::arch::{TILE_COLUMNS, TILE_ROWS, Tile};
use crate::bytes::{QuantizeTo, Requantize, Rounding, quantize, real};
use crate::cpu::per_cpu;
use crate::float::{Function, apply};

/// A vector of AVX-512, of which up to four become bytes together.
const VECTOR: usize = 16;
const TWO: usize = 2 * VECTOR;
const FOUR: usize = 4 * VECTOR;

/// A residual connection: `round((q - z) * s + (other - z') * s') / scale) + zero_point`, where q is
/// what [`Requantize`] alone gives.
#[derive(Clone, Copy, Debug)]
pub struct AddBytes<'a> {
    /// The other bytes.
    pub other: &'a [u8],
    /// Where the rows of `other` lie.
    pub rows: RowStrides,
    /// The other zero point.
    pub other_zero_point: u8,
    /// The other scale.
    pub other_scale: f32,
    /// How the sum becomes bytes.
    pub to: QuantizeTo,
}

/// Floats to add, as many as come out.
#[derive(Clone, Copy, Debug)]
pub struct AddFloats<'a> {
    /// The floats.
    pub other: &'a [f32],
    /// Where the rows of `other` lie.
    pub rows: RowStrides,
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
    /// Floats that are added last.
    pub add: Option<AddFloats<'a>>,
}

/// Where sums of a tile go, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Placement<'a> {
    /// The first column, among those of the product.
    pub first: usize,
    /// How many columns count.
    pub columns: usize,
    /// Where the rows start in the output.
    pub offsets: &'a [usize],
    /// Where those start that are added, if any are.
    pub others: &'a [usize],
}

per_cpu! {
    /// Writes the bytes of a tile.
    pub(crate) fn requantize_tile(
        sums: &Tile<i32>,
        placement: Placement,
        requantize: &Requantize,
        add: Option<&AddBytes>,
        out: Shared<u8>,
    ) {
        let mut column = 0;
        while column < placement.columns {
            let at = Columns { sums, column, placement, requantize, add };
            // Inlined for each: of constant length all of it is vector code without calls.
            column += match placement.columns - column {
                FOUR.. => at.requantize::<4>(FOUR, out),
                TWO.. => at.requantize::<2>(TWO, out),
                VECTOR.. => at.requantize::<1>(VECTOR, out),
                len => at.requantize::<1>(len, out),
            };
        }
    }
}

/// Columns of a tile from one on.
struct Columns<'a> {
    sums: &'a Tile<i32>,
    /// In the tile.
    column: usize,
    placement: Placement<'a>,
    requantize: &'a Requantize<'a>,
    add: Option<&'a AddBytes<'a>>,
}

impl Columns<'_> {
    /// Writes `len` bytes of each row, `N` vectors or fewer bytes, and returns how many. Biases and
    /// scales stay in registers.
    #[inline(always)]
    fn requantize<const N: usize>(&self, len: usize, out: Shared<u8>) -> usize {
        let Requantize { bias, scale, to } = *self.requantize;
        let Placement { offsets, others, .. } = self.placement;
        let first = self.first();
        let bias = filled_up::<i32, N>(&bias[first..][..len]);
        let scale = filled_up::<f32, N>(&scale[first..][..len]);
        let rounding = to.rounding();
        match self.add {
            None => {
                for (row, &offset) in offsets.iter().enumerate() {
                    let sums = self.sums::<N>(row);
                    let mut bytes = [[0u8; VECTOR]; N];
                    each::<N>(|v| bytes[v] = rounded(&sums[v], &bias[v], &scale[v], rounding));
                    self.write(bytes.as_flattened(), len, offset, out);
                }
            }
            Some(add) => {
                let sum_rounding = add.to.rounding();
                for (row, &offset) in offsets.iter().enumerate() {
                    let sums = self.sums::<N>(row);
                    let other = filled_up::<u8, N>(&add.other[others[row] + first..][..len]);
                    let mut bytes = [[0u8; VECTOR]; N];
                    each::<N>(|v| {
                        let own = rounded(&sums[v], &bias[v], &scale[v], rounding);
                        bytes[v] = added(&own, &other[v], to, add, sum_rounding);
                    });
                    self.write(bytes.as_flattened(), len, offset, out);
                }
            }
        }
        len
    }

    /// The first column among those of the product.
    #[inline(always)]
    fn first(&self) -> usize {
        self.placement.first + self.column
    }

    #[inline(always)]
    fn sums<const N: usize>(&self, row: usize) -> &[[i32; VECTOR]; N] {
        let (vectors, _) = self.sums.0[row * TILE_COLUMNS + self.column..].as_chunks();
        vectors.first_chunk().expect("columns of a tile are whole vectors")
    }

    #[inline(always)]
    fn write(&self, bytes: &[u8], len: usize, offset: usize, out: Shared<u8>) {
        // SAFETY: `Sink::new` saw that no two rows of the output overlap, and the threads of `multiply`
        // share either the rows or, of all rows, the columns: no two of them have the same columns of a
        // row. This thread holds no other row, since each is written and let go of.
        let out = unsafe { out.row(offset + self.first(), len) };
        out.copy_from_slice(&bytes[..len]);
    }
}

/// Calls `work` with `0..N`, of at most 4. A loop here would become vectors across the vectors, which
/// gathers and scatters make slow.
#[inline(always)]
fn each<const N: usize>(mut work: impl FnMut(usize)) {
    const { assert!(N >= 1 && N <= 4) };
    work(0);
    if N > 1 {
        work(1);
    }
    if N > 2 {
        work(2);
    }
    if N > 3 {
        work(3);
    }
}

#[inline(always)]
fn rounded(
    sums: &[i32; VECTOR],
    bias: &[i32; VECTOR],
    scale: &[f32; VECTOR],
    rounding: Rounding,
) -> [u8; VECTOR] {
    let mut bytes = [0; VECTOR];
    for i in 0..VECTOR {
        bytes[i] = rounding.byte(sums[i].wrapping_add(bias[i]) as f32 * scale[i]);
    }
    bytes
}

#[inline(always)]
fn added(
    own: &[u8; VECTOR],
    other: &[u8; VECTOR],
    to: QuantizeTo,
    add: &AddBytes,
    rounding: Rounding,
) -> [u8; VECTOR] {
    let mut bytes = [0; VECTOR];
    for i in 0..VECTOR {
        let own = real(own[i], to.scale, to.zero_point);
        let other = real(other[i], add.other_scale, add.other_zero_point);
        bytes[i] = rounding.byte((own + other) / add.to.scale);
    }
    bytes
}

/// Vectors of values, those that are not there zero.
#[inline(always)]
fn filled_up<T: Copy + Default, const N: usize>(values: &[T]) -> [[T; VECTOR]; N] {
    let mut filled = [[T::default(); VECTOR]; N];
    match values.as_chunks().0.first_chunk() {
        Some(values) => filled = *values,
        None => filled.as_flattened_mut()[..values.len()].copy_from_slice(values),
    }
    filled
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

/// Writes the sums of a tile as they are.
pub(crate) fn sums_of_tile(sums: &Tile<i32>, placement: Placement, out: Shared<i32>) {
    let Placement { first, columns, offsets, .. } = placement;
    for (row, &offset) in offsets.iter().enumerate() {
        // SAFETY: as in `Columns::write`.
        let out = unsafe { out.row(offset + first, columns) };
        out.copy_from_slice(&sums.0[row * TILE_COLUMNS..][..columns]);
    }
}

/// Where the floats of a tile go.
#[derive(Clone, Copy)]
pub(crate) enum FloatSink<'a> {
    Floats(Shared<'a, f32>),
    Bytes(Shared<'a, u8>, QuantizeTo),
}

/// Writes the floats of a tile, or their bytes; `floats` is for those that are under way.
pub(crate) fn floats_of_tile(
    cpu: Cpu,
    sums: &Tile<i32>,
    placement: Placement,
    dequantize: &Dequantize,
    floats: &mut Tile<f32>,
    sink: FloatSink,
) {
    let Placement { first, columns, offsets, others } = placement;
    let rows = offsets.len();
    dequantize_tile(cpu, sums, columns, first, dequantize, rows, floats);
    if let Some(function) = dequantize.function {
        // With the columns behind the last, which do not count.
        apply(cpu, function, &mut floats.0[..rows * TILE_COLUMNS]);
    }
    if let Some(add) = dequantize.add {
        let mut slices = [&add.other[..0]; TILE_ROWS];
        for (slice, &at) in slices.iter_mut().zip(others) {
            *slice = &add.other[at + first..][..columns];
        }
        add_rows(cpu, columns, &slices[..rows], floats);
    }
    for (row, &offset) in offsets.iter().enumerate() {
        let floats = &floats.0[row * TILE_COLUMNS..][..columns];
        match sink {
            FloatSink::Floats(out) => {
                // SAFETY: as in `Columns::write`.
                let out = unsafe { out.row(offset + first, columns) };
                out.copy_from_slice(floats);
            }
            FloatSink::Bytes(out, to) => {
                // SAFETY: as in `Columns::write`.
                let out = unsafe { out.row(offset + first, columns) };
                quantize(cpu, floats, to, out);
            }
        }
    }
}
