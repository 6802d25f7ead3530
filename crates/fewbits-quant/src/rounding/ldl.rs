//! The factors of a damped Hessian.

use rayon::prelude::*;

use crate::Hessian;

/// The damping tried first, and by how much more it is tried next, as shares of the mean of the
/// diagonal (Frantar et al. 2022, section 3.3, step 3: "we always choose 1 % of the average").
const DAMPING: f64 = 0.01;
const MORE_DAMPING: f64 = 10.0;
const TRIES: usize = 12;

/// Rows that are eliminated together, and of these how many by one thread.
const BLOCK: usize = 64;
const TOGETHER: usize = 8;

/// The strict upper triangle of the unit triangular `M` of `H + λI = M D Mᵀ`, whole rows, zeros
/// below; columns and rows of H in `order`. λ is as small as it can be. `None` if there is none:
/// only for an H that is no sum of squares.
///
/// Inputs that were always zero are given the mean of the diagonal: they have nothing to do with
/// any other, and their weights are rounded as they are.
pub fn upper_factor(hessian: &Hessian, order: &[usize]) -> Option<Vec<f32>> {
    let n = order.len();
    let (sums, diagonal) = (hessian.sums(), hessian.diagonal().map(f64::from));
    let live = diagonal.clone().filter(|&x| x > 0.0).count();
    let mean = match live {
        0 => 1.0,
        _ => diagonal.sum::<f64>() / live as f64,
    };
    let damped = |damping: f64| {
        // Last column first: the lower factor of this is the upper one of what is asked for.
        let row = |i: usize| {
            let from = &sums[order[n - 1 - i] * n..][..n];
            let mut row: Vec<f64> = (0..=i).map(|j| f64::from(from[order[n - 1 - j]])).collect();
            row[i] = if row[i] > 0.0 { row[i] } else { mean } + damping * mean;
            row
        };
        (0..n).map(row).collect::<Vec<Vec<f64>>>()
    };
    let dampings = std::iter::successors(Some(DAMPING), |damping| Some(damping * MORE_DAMPING));
    let lower = dampings.take(TRIES).find_map(|damping| cholesky(damped(damping)))?;
    let mut upper = vec![0f32; n * n];
    for (i, row) in lower.iter().enumerate() {
        for j in 0..i {
            upper[(n - 1 - i) * n + n - 1 - j] = (row[j] / lower[j][j]) as f32;
        }
    }
    Some(upper)
}

/// The Cholesky factor `L` of the symmetric matrix `A = L Lᵀ` with these rows, each up to the
/// diagonal; `None` if it is not positive definite.
fn cholesky(mut rows: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for first in (0..rows.len()).step_by(BLOCK) {
        let (above, rest) = rows.split_at_mut(first);
        let height = BLOCK.min(rest.len());
        let block = &mut rest[..height];
        block.par_chunks_mut(TOGETHER).for_each(|rows| {
            for (j, other) in above.iter().enumerate() {
                rows.iter_mut().for_each(|row| eliminate(row, j, other));
            }
        });
        for i in 0..block.len() {
            let (before, row) = block.split_at_mut(i);
            for (j, other) in (first..).zip(&*before) {
                eliminate(&mut row[0], j, other);
            }
            let (left, pivot) = row[0].split_at_mut(first + i);
            let rest = pivot[0] - dot(left, left);
            if !(rest > 0.0 && rest.is_finite()) {
                return None;
            }
            pivot[0] = rest.sqrt();
        }
    }
    Some(rows)
}

/// `L[i][j] = (A[i][j] - Σ over k < j of L[i][k] L[j][k]) / L[j][j]`.
fn eliminate(row: &mut [f64], j: usize, other: &[f64]) {
    row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
}

/// In eight lanes: a single sum is one long dependency.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0f64; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HessianObserver;

    #[test]
    fn the_lower_factor_gives_the_matrix_back() {
        let n = 2 * BLOCK + 3;
        let entry = |i: usize, j: usize| ((i * 7 + j * 13) % 11) as f64 - 5.0;
        let value = |i: usize, j: usize| {
            (0..n).map(|k| entry(i, k) * entry(j, k)).sum::<f64>() + f64::from(u8::from(i == j))
        };
        let rows = (0..n).map(|i| (0..=i).map(|j| value(i, j)).collect()).collect();
        let lower = cholesky(rows).unwrap();
        for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            let product = dot(&lower[i][..=j], &lower[j]);
            assert!((product - value(i, j)).abs() < 1e-9 * n as f64, "{i}, {j}");
        }
        assert_eq!(cholesky(vec![vec![1.0], vec![2.0, 1.0]]), None);
        assert_eq!(cholesky(vec![vec![f64::NAN]]), None);
    }

    #[test]
    fn the_upper_factor_says_how_to_make_up_for_an_error() {
        // Two inputs: what an error of the first costs the second can make up for by their
        // product over the second's square.
        let mut observer = HessianObserver::new(3);
        observer.observe(&[1.0, 2.0, 0.0, 3.0, 1.0, 0.0]).unwrap();
        let hessian = observer.finish().unwrap();
        let damped = 5.0 + 0.01 * (10.0 + 5.0) / 2.0;
        let upper = upper_factor(&hessian, &[0, 1, 2]).unwrap();
        assert_eq!(upper, [0.0, (5.0 / damped) as f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let turned = upper_factor(&hessian, &[2, 1, 0]).unwrap();
        assert_eq!(turned[..5], [0.0; 5]);
        assert_eq!(turned[5], (5.0 / (damped + 5.0)) as f32);
    }
}
