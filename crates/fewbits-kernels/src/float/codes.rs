//! Products of floats with weights that stay integers in memory.
//!
//! A weight is `(q - zero_point) * scale`, as ONNX's `DequantizeLinear` defines it to the bit, made
//! in registers where it is multiplied: 4-bit integers take an eighth of the memory of floats, and
//! of the time to read it. The results are those of [`super::product`] on the unpacked floats.

use std::ops::Range;

use super::panel::{self, HALF, Half, PANEL, add_product, all_rows, rows_of};
use super::strided::{Strided, StridedMut, at_least};
use crate::cpu::per_cpu;
use crate::{Cpu, Level};

/// The right side of a product, `k` rows of `n` columns, packed.
///
/// In memory: panels of [`PANEL`] columns, the last filled up with zeros; in a panel, rows. A row of
/// bytes has a byte a column. A row of 4 bits has a byte for every column of the first half, and
/// those of the second half in the upper bits.
pub struct PackedCodes {
    k: usize,
    n: usize,
    /// Rows that share scales.
    group: usize,
    bits: Bits,
    codes: Vec<u8>,
    /// For every panel, for every group.
    params: Vec<Params>,
}

/// What a code takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    Four,
    Eight,
}

/// The scales and zero points of one group of rows of a panel.
#[derive(Clone, Copy)]
struct Params {
    scale: [Half; 2],
    zero_point: [[i8; HALF]; 2],
}

/// The integers of a right side, element by element.
pub struct Codes<'a> {
    /// Element (row, column) is `values[row * row_pitch + column * column_pitch]`. Packed in 4 bits if
    /// they and the zero points all lie in -8..8 or in 0..16, and in bytes otherwise.
    pub values: &'a [i16],
    /// The distance from a row to the next.
    pub row_pitch: usize,
    /// The distance from a column to the next.
    pub column_pitch: usize,
    /// Rows that share scales; the last group may have fewer.
    pub group: usize,
    /// For each group of rows and column; `[groups, n]`.
    pub scale: &'a [f32],
    /// As the scales, or none at all.
    pub zero_point: &'a [i16],
}

impl PackedCodes {
    /// Packs `k` rows of `n` columns. `None` if the codes do not fit in bytes.
    ///
    /// # Panics
    /// If slices are too short for the shape, or the group has no rows.
    pub fn new(k: usize, n: usize, from: &Codes) -> Option<PackedCodes> {
        let groups = k.div_ceil(from.group);
        assert_eq!(from.scale.len(), groups * n, "scales of another number");
        let all = from.values.iter().chain(from.zero_point);
        let (low, high) = all.fold((0, 0), |(low, high), &v| (v.min(low), v.max(high)));
        let fits = |least: i16, count: i16| {
            low >= least && i32::from(high) < i32::from(least) + i32::from(count)
        };
        // What is taken off every code and every zero point, so that codes are signed.
        let (bits, offset) = match () {
            () if fits(-8, 16) => (Bits::Four, 0),
            () if fits(0, 16) => (Bits::Four, 8),
            () if fits(-128, 256) => (Bits::Eight, 0),
            () if fits(0, 256) => (Bits::Eight, 128),
            () => return None,
        };
        let panels = n.div_ceil(PANEL);
        let row_bytes = bits.row_bytes();
        let mut packed = PackedCodes {
            k,
            n,
            group: from.group,
            bits,
            codes: vec![0; panels * k * row_bytes],
            params: Vec::with_capacity(panels * groups),
        };
        for panel in 0..panels {
            let columns = panel * PANEL..n.min((panel + 1) * PANEL);
            for group in 0..groups {
                packed.params.push(Params::of(from, group * n, columns.clone(), offset));
            }
            let rows = &mut packed.codes[panel * k * row_bytes..][..k * row_bytes];
            for (row, bytes) in rows.chunks_exact_mut(row_bytes).enumerate() {
                for (j, column) in columns.clone().enumerate() {
                    let code = from.values[row * from.row_pitch + column * from.column_pitch];
                    bits.set(bytes, j, (code - offset) as i8);
                }
            }
        }
        Some(packed)
    }

    /// Returns the number of rows: what the columns of the left side must be.
    pub fn rows(&self) -> usize {
        self.k
    }

    /// Returns the number of columns of the product.
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Counts the bytes that they take.
    pub fn len_bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.params.as_slice())
    }

    fn panel<R: CodeRow>(&self, panel: usize, columns: usize) -> CodePanel<'_, R> {
        let groups = self.k.div_ceil(self.group);
        CodePanel {
            group: self.group,
            columns,
            rows: &R::rows(&self.codes)[panel * self.k..][..self.k],
            params: &self.params[panel * groups..][..groups],
        }
    }
}

impl Bits {
    fn row_bytes(self) -> usize {
        match self {
            Bits::Four => HALF,
            Bits::Eight => PANEL,
        }
    }

    /// Writes a code where a zero is.
    fn set(self, row: &mut [u8], column: usize, code: i8) {
        match self {
            Bits::Four => row[column % HALF] |= (code as u8 & 15) << (column / HALF * 4),
            Bits::Eight => row[column] = code as u8,
        }
    }
}

impl Params {
    fn of(from: &Codes, start: usize, columns: Range<usize>, offset: i16) -> Params {
        let mut params = Params { scale: [[0.0; HALF]; 2], zero_point: [[0; HALF]; 2] };
        for (j, column) in columns.enumerate() {
            params.scale[j / HALF][j % HALF] = from.scale[start + column];
            let zero_point = from.zero_point.get(start + column).copied().unwrap_or(0);
            params.zero_point[j / HALF][j % HALF] = (zero_point - offset) as i8;
        }
        params
    }
}

/// How the codes of a row are read.
trait CodeRow: Copy {
    /// As they lie in memory.
    type Bytes: Copy;

    fn rows(codes: &[u8]) -> &[Self::Bytes];

    /// The integers of half `half`.
    fn ints(row: &Self::Bytes, half: usize) -> [i32; HALF];
}

/// 4 bits.
#[derive(Clone, Copy)]
struct Four;

impl CodeRow for Four {
    type Bytes = [u8; HALF];

    #[inline(always)]
    fn rows(codes: &[u8]) -> &[[u8; HALF]] {
        codes.as_chunks().0
    }

    #[inline(always)]
    fn ints(row: &[u8; HALF], half: usize) -> [i32; HALF] {
        let mut ints = [0; HALF];
        for j in 0..HALF {
            // The sign is the highest bit of four.
            ints[j] = if half == 0 {
                i32::from(row[j]) << 28 >> 28
            } else {
                i32::from(row[j] as i8) >> 4
            };
        }
        ints
    }
}

/// 8 bits.
#[derive(Clone, Copy)]
struct Eight;

impl CodeRow for Eight {
    type Bytes = [[u8; HALF]; 2];

    #[inline(always)]
    fn rows(codes: &[u8]) -> &[[[u8; HALF]; 2]] {
        codes.as_chunks().0.as_chunks().0
    }

    #[inline(always)]
    fn ints(row: &[[u8; HALF]; 2], half: usize) -> [i32; HALF] {
        let mut ints = [0; HALF];
        for j in 0..HALF {
            ints[j] = i32::from(row[half][j] as i8);
        }
        ints
    }
}

/// One panel.
#[derive(Clone, Copy)]
struct CodePanel<'a, R: CodeRow> {
    rows: &'a [R::Bytes],
    group: usize,
    columns: usize,
    params: &'a [Params],
}

impl<R: CodeRow> panel::Panel for CodePanel<'_, R> {
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
        for (g, (codes, params)) in self.rows.chunks(self.group).zip(self.params).enumerate() {
            let (scale, zero_point) = (params.scale, params.zero_point);
            for (p, row) in codes.iter().enumerate() {
                let mut b = [[0f32; HALF]; HALVES];
                for h in 0..HALVES {
                    let ints = R::ints(row, half + h);
                    for j in 0..HALF {
                        let int = ints[j] - i32::from(zero_point[half + h][j]);
                        b[h][j] = int as f32 * scale[half + h][j];
                    }
                }
                for r in 0..ROWS {
                    let a = rows[r][g * self.group + p];
                    for h in 0..HALVES {
                        sums[r][h] = add_product(sums[r][h], a, &b[h]);
                    }
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

/// Computes `out[i][j]` = Σ over k of `a[i][k] * b[k][j]` for `m` rows and some columns, of which the first is a
/// multiple of [`PANEL`] and lies in the first column of `out`. As [`super::matmul_packed`].
///
/// `scratch` grows as needed, and may be used again for anything.
///
/// # Panics
/// If the columns are others than those, or `a` or the output is too short.
pub fn matmul_codes(
    cpu: Cpu,
    m: usize,
    columns: Range<usize>,
    a: Strided,
    b: &PackedCodes,
    mut out: StridedMut,
    scratch: &mut Vec<f32>,
) {
    assert!(columns.start.is_multiple_of(PANEL) && columns.end <= b.n, "columns {columns:?}");
    let a = a.straightened(m, b.k, at_least(scratch, a.copied_len(m, b.k)));
    let times = match (b.bits, cpu.level()) {
        (Bits::Four, Level::Scalar | Level::Neon | Level::Avx2) => narrow_4,
        (Bits::Four, Level::Avx512Vnni | Level::Amx) => wide_4,
        (Bits::Eight, Level::Scalar | Level::Neon | Level::Avx2) => narrow_8,
        (Bits::Eight, Level::Avx512Vnni | Level::Amx) => wide_8,
    };
    for first in columns.clone().step_by(PANEL) {
        let of_panel = first..columns.end.min(first + PANEL);
        times(cpu, b, of_panel, m, a, &mut out.from(0, first - columns.start));
    }
}

/// `m` rows times the columns of a panel, for vector registers of this number and size and codes of this width.
macro_rules! times {
    ($($(#[$meta:meta])* $name:ident: $row:ty, $rows:literal, $halves:literal;)*) => { $(
        per_cpu! {
            $(#[$meta])*
            fn $name(
                b: &PackedCodes, columns: Range<usize>, m: usize, a: Strided, out: &mut StridedMut,
            ) {
                let panel = b.panel::<$row>(columns.start / PANEL, columns.len());
                if columns.len() > HALF && $halves == 2 {
                    return all_rows::<_, $rows, 2>(a, panel, 0, m, out);
                }
                for half in 0..columns.len().div_ceil(HALF) {
                    all_rows::<_, $rows, 1>(a, panel, half, m, out);
                }
            }
        }
    )* };
}

times! {
    /// 16 registers of 8 values, of which 8 hold sums and 4 parameters, or NEON's 32 of 4.
    narrow_4: Four, 4, 1;
    /// As `narrow_4`.
    narrow_8: Eight, 4, 1;
    /// 32 registers of 16 values, of which 16 hold sums and 4 parameters.
    wide_4: Four, 8, 2;
    /// As `wide_4`.
    wide_8: Eight, 8, 2;
}

#[cfg(test)]
mod tests {
    use super::super::product::{matmul_packed, pack, packed_len};
    use super::super::strided::Dims;
    use super::super::testing::{at_every_level, noise, same_bits};
    use super::*;
    use proptest::prelude::*;

    /// Weights of `k` rows of `n` columns in groups, with codes from `low` on.
    struct Case {
        k: usize,
        n: usize,
        group: usize,
        values: Vec<i16>,
        scale: Vec<f32>,
        zero_point: Vec<i16>,
    }

    impl Case {
        fn new(
            k: usize,
            n: usize,
            group: usize,
            low: i16,
            count: i16,
            has_zero_points: bool,
        ) -> Case {
            let groups = k.div_ceil(group);
            let value = |i: usize| low + ((i * 37 + i / 5 * 11) % count as usize) as i16;
            let zero_point = |i: usize| low + ((i * 7) % count as usize) as i16;
            let zero_points = if has_zero_points { groups * n } else { 0 };
            Case {
                k,
                n,
                group,
                values: (0..k * n).map(value).collect(),
                scale: noise(groups * n, 5).iter().map(|s| s.abs() * 0.1).collect(),
                zero_point: (0..zero_points).map(zero_point).collect(),
            }
        }

        fn packed(&self) -> Option<PackedCodes> {
            PackedCodes::new(
                self.k,
                self.n,
                &Codes {
                    values: &self.values,
                    row_pitch: self.n,
                    column_pitch: 1,
                    group: self.group,
                    scale: &self.scale,
                    zero_point: &self.zero_point,
                },
            )
        }

        /// The definition of `DequantizeLinear`.
        fn floats(&self) -> Vec<f32> {
            let float = |(i, &q): (usize, &i16)| {
                let param = i / self.n / self.group * self.n + i % self.n;
                let zero_point = self.zero_point.get(param).copied().unwrap_or(0);
                f32::from(q - zero_point) * self.scale[param]
            };
            self.values.iter().enumerate().map(float).collect()
        }

        /// Compares with the product of the floats, into the middle of a larger matrix.
        fn check(&self, m: usize) {
            let (start, pitch) = (2, self.n + 3);
            // Leaves out a panel, if there are two.
            let first = if self.n > PANEL { PANEL } else { 0 };
            let a = noise(m * self.k, 6);
            let a = Strided::rows(&a, self.k);
            let packed = self.packed().expect("codes of 8 bits");
            let got = at_every_level(|cpu| {
                let mut out = vec![7.0; start + m * pitch];
                let to = StridedMut { values: &mut out, start: start + first, row: pitch };
                matmul_codes(cpu, m, first..self.n, a, &packed, to, &mut Vec::new());
                out
            });
            let floats = self.floats();
            let mut right = vec![0.0; packed_len(self.k, self.n)];
            pack(Cpu::SCALAR, self.k, self.n, Strided::rows(&floats, self.n), &mut right);
            let mut wanted = vec![7.0; start + m * pitch];
            let to = StridedMut { values: &mut wanted, start, row: pitch };
            let dims = Dims { m, k: self.k, n: self.n };
            matmul_packed(Cpu::SCALAR, dims, a, &right, to, &mut Vec::new());
            for i in 0..m {
                wanted[start + i * pitch..][..first].fill(7.0);
            }
            assert!(same_bits(&got, &wanted));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn products_are_those_of_the_floats(
            (m, k, n) in (0usize..9, 0usize..40, 1usize..70),
            group in 1usize..20,
            (low, count) in prop_oneof![
                Just((-8, 16)), Just((0, 16)), Just((-128, 256)), Just((0, 256)), Just((-1, 2)), Just((3, 9)),
            ],
            has_zero_points: bool,
        ) {
            Case::new(k, n, group, low, count, has_zero_points).check(m);
        }
    }

    #[test]
    fn four_bits_take_half_a_byte() {
        let bytes = |count| Case::new(64, 96, 64, 0, count, true).packed().unwrap().codes.len();
        assert_eq!((bytes(16), bytes(17)), (64 * 96 / 2, 64 * 96));
    }

    #[test]
    fn wider_codes_are_refused() {
        assert!(Case::new(40, 40, 3, -1, 257, false).packed().is_none());
        assert!(Case::new(40, 40, 3, 0, 257, false).packed().is_none());
    }
}
