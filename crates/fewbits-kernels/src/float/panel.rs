//! The inner loops of products: a panel of columns, packed, times blocks of rows.

use super::strided::Strided;
use crate::cpu::per_cpu;
use crate::{Cpu, Level};

/// Columns of a panel: two vectors of AVX-512. The packed right side of a product is cut into
/// panels, each with its k rows one behind the other, and the last filled up with zeros.
pub const PANEL: usize = 2 * HALF;
const HALF: usize = 16;
type Half = [f32; HALF];

per_cpu! {
    /// Packs up to [`PANEL`] columns of `k` rows.
    pub fn pack_panel(k: usize, columns: usize, b: Strided, panel: &mut [f32]) {
        let (panel, _) = panel.as_chunks_mut::<PANEL>();
        if b.col == 1 {
            for (p, packed) in panel.iter_mut().enumerate().take(k) {
                let row = &b.values[b.start + p * b.row..];
                match row.first_chunk() {
                    Some(row) if columns == PANEL => *packed = *row,
                    _ => {
                        packed[..columns].copy_from_slice(&row[..columns]);
                        packed[columns..].fill(0.0);
                    }
                }
            }
            return;
        }
        for j in 0..PANEL {
            if j >= columns {
                panel[..k].iter_mut().for_each(|packed| packed[j] = 0.0);
            } else if b.row == 1 {
                let column = &b.values[b.start + j * b.col..][..k];
                panel.iter_mut().zip(column).for_each(|(packed, &value)| packed[j] = value);
            } else {
                for (p, packed) in panel.iter_mut().enumerate().take(k) {
                    packed[j] = b.values[b.start + p * b.row + j * b.col];
                }
            }
        }
    }
}

/// `m` rows times one panel, to `out` from `out_start` on. The rows of `a` lie side by side.
#[allow(clippy::too_many_arguments)]
pub fn times_panel(
    cpu: Cpu,
    m: usize,
    k: usize,
    columns: usize,
    a: Strided,
    panel: &[f32],
    out: &mut [f32],
    out_start: usize,
    out_row_pitch: usize,
) {
    let (halves, _) = panel.as_chunks::<HALF>();
    let (panel, _) = halves.as_chunks::<2>();
    let factors = Factors { a, panel: &panel[..k], columns };
    match cpu.level() {
        Level::Scalar | Level::Avx2 => narrow(cpu, factors, m, out, out_start, out_row_pitch),
        Level::Avx512Vnni | Level::Amx => wide(cpu, factors, m, out, out_start, out_row_pitch),
    }
}

/// What is multiplied for one panel.
#[derive(Clone, Copy)]
struct Factors<'a> {
    a: Strided<'a>,
    /// As many rows as `a` has columns.
    panel: &'a [[Half; 2]],
    columns: usize,
}

per_cpu! {
    /// For 16 vector registers, of which 12 hold sums.
    fn narrow(factors: Factors, m: usize, out: &mut [f32], start: usize, pitch: usize) {
        for half in 0..factors.columns.div_ceil(HALF) {
            all_rows::<6, 1>(factors, half, m, out, start, pitch);
        }
    }
}

per_cpu! {
    /// For 32 vector registers of 16 values, of which 16 hold sums.
    fn wide(factors: Factors, m: usize, out: &mut [f32], start: usize, pitch: usize) {
        if factors.columns > HALF {
            all_rows::<8, 2>(factors, 0, m, out, start, pitch);
        } else {
            all_rows::<8, 1>(factors, 0, m, out, start, pitch);
        }
    }
}

/// Multiplies in blocks of `ROWS` rows, and what is left in smaller ones, with `HALVES` halves of
/// the panel from `half` on.
#[inline(always)]
fn all_rows<const ROWS: usize, const HALVES: usize>(
    factors: Factors,
    half: usize,
    m: usize,
    out: &mut [f32],
    start: usize,
    pitch: usize,
) {
    let mut i = 0;
    while i + ROWS <= m {
        block::<ROWS, HALVES>(factors, half, i, out, start, pitch);
        i += ROWS;
    }
    if i + 4 <= m {
        block::<4, HALVES>(factors, half, i, out, start, pitch);
        i += 4;
    }
    if i + 2 <= m {
        block::<2, HALVES>(factors, half, i, out, start, pitch);
        i += 2;
    }
    if i < m {
        block::<1, HALVES>(factors, half, i, out, start, pitch);
    }
}

/// The rows from `i` on, written to `out`.
#[inline(always)]
fn block<const ROWS: usize, const HALVES: usize>(
    factors: Factors,
    half: usize,
    i: usize,
    out: &mut [f32],
    start: usize,
    pitch: usize,
) {
    let mut sums = [[[0f32; HALF]; HALVES]; ROWS];
    block_sums(factors, half, i, &mut sums);
    let first = half * HALF;
    let len = (HALVES * HALF).min(factors.columns - first);
    for (r, sums) in sums.iter().enumerate() {
        let out = &mut out[start + (i + r) * pitch + first..][..len];
        // A copy of constant length is no call.
        if len == HALVES * HALF {
            out[..HALVES * HALF].copy_from_slice(sums.as_flattened());
        } else {
            out.copy_from_slice(&sums.as_flattened()[..len]);
        }
    }
}

/// The sums stay in registers: all lengths but k are constants, and nothing takes a part of them by
/// a variable, which is why they are copied to `result` rather than returned in place.
#[inline(always)]
fn block_sums<const ROWS: usize, const HALVES: usize>(
    factors: Factors,
    half: usize,
    i: usize,
    result: &mut [[Half; HALVES]; ROWS],
) {
    let Factors { a, panel, .. } = factors;
    let mut rows = [&a.values[..0]; ROWS];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &a.values[a.start + (i + r) * a.row..][..panel.len()];
    }
    let mut sums = [[[0f32; HALF]; HALVES]; ROWS];
    for (p, b) in panel.iter().enumerate() {
        for r in 0..ROWS {
            let a = rows[r][p];
            for h in 0..HALVES {
                sums[r][h] = add_product(sums[r][h], a, &b[half + h]);
            }
        }
    }
    for r in 0..ROWS {
        for h in 0..HALVES {
            result[r][h] = sums[r][h];
        }
    }
}

#[inline(always)]
fn add_product(mut sums: Half, a: f32, b: &Half) -> Half {
    for j in 0..HALF {
        sums[j] = a.mul_add(b[j], sums[j]);
    }
    sums
}
