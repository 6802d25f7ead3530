//! GPTQ: weights are rounded one column after the other, and those that are left make up for the
//! errors made so far.
//!
//! Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers" (arXiv:2210.17323), section 3.3 and algorithm 1. The paper spreads each error over
//! all columns to the right (eq. 2) by the Cholesky factor of H⁻¹. Chee et al. 2023, "QuIP: 2-Bit
//! Quantization of Large Language Models With Guarantees" (arXiv:2307.13304), and Chen et al. 2025,
//! "The Geometry of LLM Quantization" (arXiv:2507.18553), show that this is the same as looking
//! back: with `H = M D Mᵀ`, `M` unit upper triangular,
//!
//! ```text
//! q[k] = round(w[k] + Σ over j < k of (w[j] - q[j]) M[j][k])
//! ```
//!
//! since `d H dᵀ = Σ over k of D[k] (Σ over j ≤ k of d[j] M[j][k])²`, of which each column makes its
//! own term as small as its grid lets it. That needs no inverse, and no copy of the weights.
//!
//! Scales are those of the weights as they were: so columns can be taken in any order, whatever
//! shares a scale ("static groups" of the paper's code). A weight beside which another of its pair
//! ([`crate::pairs`]) is rounded already has the integers that this one leaves. Two orders are tried, as they lie and by
//! decreasing power of their input ("act-order"), and of every row the best is kept, that of plain
//! rounding included.

use fewbits_kernels::float::{Dims, Strided, StridedMut, matmul};
use rayon::prelude::*;

use super::grid::{Best, GridRows};
use super::ldl::upper_factor;
use crate::Hessian;
use crate::observer::cpu;

/// Columns whose errors reach the next ones at once (section 3.3, step 2: B = 128).
const BLOCK: usize = 128;

/// Rows rounded by one thread.
const ROWS: usize = 64;

/// The integers of `weights`, rows of the matrix whose inputs `hessian` knows.
pub(crate) fn codes(weights: &[f32], grid: GridRows, hessian: &Hessian) -> Vec<i16> {
    let mut best = Best::plain(weights, grid, hessian);
    let as_they_lie: Vec<usize> = (0..hessian.columns()).collect();
    for order in [by_power(hessian), as_they_lie] {
        if let Some(factor) = upper_factor(hessian, &order) {
            best.offer(in_order(weights, grid, &order, &factor));
        }
    }
    best.codes()
}

/// The columns, those with the largest inputs first.
fn by_power(hessian: &Hessian) -> Vec<usize> {
    let powers: Vec<f32> = hessian.diagonal().collect();
    let mut order: Vec<usize> = (0..powers.len()).collect();
    order.sort_by(|&a, &b| powers[b].total_cmp(&powers[a]));
    order
}

/// Rounds column after column in `order`, for which `factor` is M.
fn in_order(weights: &[f32], grid: GridRows, order: &[usize], factor: &[f32]) -> Vec<i16> {
    let columns = order.len();
    let mut codes = vec![0i16; weights.len()];
    let parts = codes.par_chunks_mut(ROWS * columns).zip(weights.par_chunks(ROWS * columns));
    parts.enumerate().for_each(|(part, (codes, weights))| {
        let grid = grid.skip_rows(part * ROWS, columns);
        let rows = weights.len() / columns;
        let mut errors = vec![0f32; weights.len()];
        let (mut owed, mut scratch) = (vec![0f32; rows * BLOCK], Vec::new());
        for first in (0..columns).step_by(BLOCK) {
            let width = BLOCK.min(columns - first);
            // What the columns before the block leave to be made up for.
            matmul(
                cpu(),
                Dims { m: rows, k: first, n: width },
                Strided::rows(&errors, columns),
                Strided::rows(factor, columns).from(0, first),
                StridedMut::rows(&mut owed, BLOCK),
                &mut scratch,
            );
            for (row, owed) in owed.chunks_exact_mut(BLOCK).enumerate() {
                for k in first..first + width {
                    let i = row * columns + order[k];
                    let bounds = grid.bounds(order[k], &codes[row * columns..]);
                    let (code, value) = grid.nearest(i, weights[i] + owed[k - first], bounds);
                    let error = weights[i] - value;
                    (codes[i], errors[row * columns + k]) = (code, error);
                    let next = &factor[k * columns..][k + 1..first + width];
                    let owed = &mut owed[k + 1 - first..];
                    owed.iter_mut().zip(next).for_each(|(owed, m)| *owed += error * m);
                }
            }
        }
    });
    codes
}
