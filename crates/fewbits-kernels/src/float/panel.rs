//! The inner loops of products: a panel of columns, packed, times blocks of rows.

use super::strided::{Dims, Strided, StridedMut};
use crate::cpu::per_cpu;
use crate::{Cpu, Level};

/// Columns of a panel: two vectors of AVX-512. The packed right side of a product is cut into
/// panels, each with its k rows one behind the other, and the last filled up with zeros.
pub const PANEL: usize = 2 * HALF;
pub(super) const HALF: usize = 16;
pub(super) type Half = [f32; HALF];

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

/// Rows times the `n` columns of one panel. The elements of a row of `a` lie side by side.
pub fn times_panel(cpu: Cpu, dims: Dims, a: Strided, panel: &[f32], mut out: StridedMut) {
    let Dims { m, k, n: columns } = dims;
    let (halves, _) = panel.as_chunks::<HALF>();
    let (rows, _) = halves.as_chunks::<2>();
    let panel = FloatPanel { rows: &rows[..k], columns };
    match cpu.level() {
        Level::Scalar | Level::Neon | Level::Avx2 => narrow(cpu, a, panel, m, &mut out),
        Level::Avx512Vnni | Level::Amx => wide(cpu, a, panel, m, &mut out),
    }
}

/// The right side of a product: up to [`PANEL`] columns.
pub(super) trait Panel: Copy {
    /// How many columns count.
    fn columns(self) -> usize;

    /// The sums of the rows from `i` on of `a` with the halves from `half` on.
    ///
    /// Sums stay in registers: all lengths but k are constants, and nothing takes a part of them by a
    /// variable, which is why they are copied to `result` rather than returned in place.
    fn sums<const ROWS: usize, const HALVES: usize>(
        self,
        a: Strided,
        half: usize,
        i: usize,
        result: &mut [[Half; HALVES]; ROWS],
    );
}

/// A panel of floats.
#[derive(Clone, Copy)]
struct FloatPanel<'a> {
    /// As many as `a` has columns.
    rows: &'a [[Half; 2]],
    columns: usize,
}

impl Panel for FloatPanel<'_> {
    #[inline(always)]
    fn columns(self) -> usize {
        self.columns
    }

    #[inline(always)]
    fn sums<const ROWS: usize, const HALVES: usize>(
        self,
        a: Strided,
        half: usize,
        i: usize,
        result: &mut [[Half; HALVES]; ROWS],
    ) {
        let rows = rows_of::<ROWS>(a, i, self.rows.len());
        let mut sums = [[[0f32; HALF]; HALVES]; ROWS];
        for (p, b) in self.rows.iter().enumerate() {
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
}

per_cpu! {
    /// For 16 vector registers of 8 values, of which 12 hold sums, or NEON's 32 of 4, of which 24 do.
    fn narrow(a: Strided, panel: FloatPanel, m: usize, out: &mut StridedMut) {
        for half in 0..panel.columns.div_ceil(HALF) {
            all_rows::<_, 6, 1>(a, panel, half, m, out);
        }
    }
}

per_cpu! {
    /// For 32 vector registers of 16 values, of which 16 hold sums.
    fn wide(a: Strided, panel: FloatPanel, m: usize, out: &mut StridedMut) {
        if panel.columns > HALF {
            all_rows::<_, 8, 2>(a, panel, 0, m, out);
        } else {
            all_rows::<_, 8, 1>(a, panel, 0, m, out);
        }
    }
}

/// Multiplies in blocks of `ROWS` rows, and what is left in smaller ones, with `HALVES` halves of
/// the panel from `half` on.
#[inline(always)]
pub(super) fn all_rows<P: Panel, const ROWS: usize, const HALVES: usize>(
    a: Strided,
    panel: P,
    half: usize,
    m: usize,
    out: &mut StridedMut,
) {
    let mut i = 0;
    while i + ROWS <= m {
        block::<P, ROWS, HALVES>(a, panel, half, i, out);
        i += ROWS;
    }
    if i + 4 <= m {
        block::<P, 4, HALVES>(a, panel, half, i, out);
        i += 4;
    }
    if i + 2 <= m {
        block::<P, 2, HALVES>(a, panel, half, i, out);
        i += 2;
    }
    if i < m {
        block::<P, 1, HALVES>(a, panel, half, i, out);
    }
}

/// The rows from `i` on, written to `out`.
#[inline(always)]
fn block<P: Panel, const ROWS: usize, const HALVES: usize>(
    a: Strided,
    panel: P,
    half: usize,
    i: usize,
    out: &mut StridedMut,
) {
    let mut sums = [[[0f32; HALF]; HALVES]; ROWS];
    panel.sums(a, half, i, &mut sums);
    let first = half * HALF;
    let len = (HALVES * HALF).min(panel.columns() - first);
    for (r, sums) in sums.iter().enumerate() {
        let out = &mut out.values[out.start + (i + r) * out.row + first..][..len];
        // A copy of constant length is no call.
        if len == HALVES * HALF {
            out[..HALVES * HALF].copy_from_slice(sums.as_flattened());
        } else {
            out.copy_from_slice(&sums.as_flattened()[..len]);
        }
    }
}

/// `ROWS` rows of `k` elements from row `i` on.
#[inline(always)]
pub(super) fn rows_of<'a, const ROWS: usize>(
    a: Strided<'a>,
    i: usize,
    k: usize,
) -> [&'a [f32]; ROWS] {
    let mut rows = [&a.values[..0]; ROWS];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &a.values[a.start + (i + r) * a.row..][..k];
    }
    rows
}

#[inline(always)]
pub(super) fn add_product(mut sums: Half, a: f32, b: &Half) -> Half {
    for j in 0..HALF {
        sums[j] = a.mul_add(b[j], sums[j]);
    }
    sums
}
