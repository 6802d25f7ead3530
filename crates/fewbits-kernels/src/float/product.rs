//! Products of matrices.
//!
//! Every element of a product is one chain of fused multiply-adds along k, from 0 and in order: so
//! its bits depend neither on the CPU nor on how rows and columns are cut into blocks.

use super::panel::{PANEL, pack_panel, times_panel};
use super::strided::{Dims, Strided, StridedMut, at_least};
use crate::Cpu;

/// Computes `out[i][j]` = Σ over k of `a[i][k] * b[k][j]`, for `m` times `n` elements.
///
/// `scratch` grows as needed, and may be used again for anything.
///
/// # Panics
/// If a side or the output is too short.
pub fn matmul(
    cpu: Cpu,
    dims: Dims,
    a: Strided,
    b: Strided,
    mut out: StridedMut,
    scratch: &mut Vec<f32>,
) {
    let Dims { m, k, n } = dims;
    let scratch = at_least(scratch, a.copied_len(m, k) + k * PANEL);
    let (copy, panel) = scratch.split_at_mut(a.copied_len(m, k));
    let a = a.straightened(m, k, copy);
    // Panel by panel, so that it is still in the cache when it is used.
    for first in (0..n).step_by(PANEL) {
        let columns = PANEL.min(n - first);
        pack_panel(cpu, k, columns, b.from(0, first), panel);
        times_panel(cpu, Dims { n: columns, ..dims }, a, panel, out.from(0, first));
    }
}

/// Counts the floats of what [`pack`] makes of `k` rows of `n`.
pub fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Packs the right side of a product, `k` rows of `n`, for [`matmul_packed`]: `packed` is
/// [`packed_len`] long. Worth it for what is multiplied more than once, such as weights.
///
/// # Panics
/// If `packed` has another length, or `b` is too short.
pub fn pack(cpu: Cpu, k: usize, n: usize, b: Strided, packed: &mut [f32]) {
    assert_eq!(packed.len(), packed_len(k, n), "packed columns of another size");
    for first in (0..n).step_by(PANEL) {
        let panel = &mut packed[first * k..][..k * PANEL];
        pack_panel(cpu, k, PANEL.min(n - first), b.from(0, first), panel);
    }
}

/// Computes [`matmul`] of a right side that [`pack`] has packed.
///
/// # Panics
/// If the packed side has another length, or the left one or the output is too short.
pub fn matmul_packed(
    cpu: Cpu,
    dims: Dims,
    a: Strided,
    packed: &[f32],
    out: StridedMut,
    scratch: &mut Vec<f32>,
) {
    let a = a.straightened(dims.m, dims.k, at_least(scratch, a.copied_len(dims.m, dims.k)));
    times_packed(cpu, dims, a, packed, out);
}

/// [`matmul_packed`] of a left side whose rows lie side by side.
pub(super) fn times_packed(cpu: Cpu, dims: Dims, a: Strided, packed: &[f32], mut out: StridedMut) {
    let Dims { k, n, .. } = dims;
    assert_eq!(packed.len(), packed_len(k, n), "packed columns of another size");
    for first in (0..n).step_by(PANEL) {
        let panel = &packed[first * k..][..k * PANEL];
        let columns = PANEL.min(n - first);
        times_panel(cpu, Dims { n: columns, ..dims }, a, panel, out.from(0, first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{at_every_level, noise, same_bits};
    use proptest::prelude::*;

    /// The definition, element by element.
    fn chains(Dims { m, k, n }: Dims, a: Strided, b: Strided) -> Vec<f32> {
        let at = |x: Strided, i: usize, j: usize| x.values[x.start + i * x.row + j * x.col];
        let mut out = Vec::new();
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            out.push((0..k).fold(0.0, |sum, p| at(a, i, p).mul_add(at(b, p, j), sum)));
        }
        out
    }

    /// Checks both ways to multiply, into the middle of a larger matrix.
    fn check(dims: Dims, a: Strided, b: Strided) {
        let Dims { m, k, n } = dims;
        let wanted = chains(dims, a, b);
        let (start, pitch) = (3, n + 2);
        let packs = [false, true];
        for packs in packs {
            let got = at_every_level(|cpu| {
                let mut out = vec![7.0; start + m * pitch];
                let scratch = &mut Vec::new();
                let to = StridedMut { values: &mut out, start, row: pitch };
                if packs {
                    let mut packed = vec![f32::NAN; packed_len(k, n)];
                    pack(cpu, k, n, b, &mut packed);
                    matmul_packed(cpu, dims, a, &packed, to, scratch);
                } else {
                    matmul(cpu, dims, a, b, to, scratch);
                }
                out
            });
            let (before, rows) = got.split_at(start);
            assert!(before.iter().all(|&x| x == 7.0));
            for (got, wanted) in rows.chunks(pitch).zip(wanted.chunks(n)) {
                assert!(same_bits(&got[..n], wanted));
                assert_eq!(got[n..], [7.0; 2], "written behind the row");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn products_are_chains_at_every_level(
            (m, k, n) in (0usize..20, 0usize..40, 1usize..70),
            (a_turned, b_turned) in any::<(bool, bool)>(),
            gap in 0usize..3,
        ) {
            let values = noise(100_000, 1);
            let turn = |rows: usize, width: usize, turned: bool| {
                let outer = if turned { rows } else { width };
                let whole = Strided { values: &values, start: gap, row: outer + gap, col: 1 };
                if turned { whole.transposed() } else { whole }
            };
            check(Dims { m, k, n }, turn(m, k, a_turned), turn(k, n, b_turned));
        }
    }

    #[test]
    fn no_stride_needs_to_be_one() {
        let values = noise(5000, 2);
        let a = Strided { values: &values, start: 1, row: 50, col: 2 };
        let b = Strided { values: &values, start: 9, row: 3, col: 60 };
        check(Dims { m: 7, k: 20, n: 35 }, a, b);
    }

    #[test]
    fn products_are_near_the_truth() {
        let (m, k, n) = (17, 129, 33);
        let (a, b) = (noise(m * k, 3), noise(k * n, 4));
        let mut out = vec![0.0; m * n];
        let (a_rows, b_rows) = (Strided::rows(&a, k), Strided::rows(&b, n));
        let to = StridedMut::rows(&mut out, n);
        matmul(Cpu::chosen().unwrap(), Dims { m, k, n }, a_rows, b_rows, to, &mut Vec::new());
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let terms = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j]));
            assert!((f64::from(out[i * n + j]) - terms.sum::<f64>()).abs() < 3e-5);
        }
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn an_output_too_short_is_refused() {
        let a = Strided::rows(&[1.0; 4], 2);
        let mut out = [0.0; 3];
        let to = StridedMut::rows(&mut out, 2);
        matmul(Cpu::SCALAR, Dims { m: 2, k: 2, n: 2 }, a, a, to, &mut Vec::new());
    }
}
