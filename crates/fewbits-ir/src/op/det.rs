//! Det.

use super::{f32s, refused};
use crate::{Result, Tensor};

/// Computes the determinants of a stack of square matrices, in 64 bits: Gaussian elimination, the largest
/// pivot of each column first.
pub(super) fn det(tensor: &Tensor) -> Result<Tensor> {
    let [stack @ .., rows, columns] = tensor.shape() else {
        return Err(refused("the determinant of no matrix"));
    };
    let size = *rows;
    if size != *columns {
        return Err(refused(format!("the determinant of a matrix of {rows}x{columns}")));
    }
    let count: usize = stack.iter().product();
    let mut values: Vec<f64> = f32s(tensor)?.iter().map(|&x| f64::from(x)).collect();
    let determinants: Vec<f32> = match size {
        // The product of no pivots.
        0 => vec![1.0; count],
        _ => values.chunks_exact_mut(size * size).map(|m| eliminate(m, size) as f32).collect(),
    };
    Tensor::new(stack.to_vec(), determinants)
}

/// Brings a matrix to triangular form; gives the product of its pivots, its sign changed for every exchange.
fn eliminate(matrix: &mut [f64], size: usize) -> f64 {
    let mut product = 1.0;
    for column in 0..size {
        let magnitude = |row: usize, matrix: &[f64]| matrix[row * size + column].abs();
        let pivot = (column..size)
            .max_by(|&a, &b| magnitude(a, matrix).total_cmp(&magnitude(b, matrix)))
            .unwrap_or(column);
        if matrix[pivot * size + column] == 0.0 {
            return 0.0;
        }
        if pivot != column {
            for k in 0..size {
                matrix.swap(pivot * size + k, column * size + k);
            }
            product = -product;
        }
        let head = matrix[column * size + column];
        product *= head;
        for row in column + 1..size {
            let factor = matrix[row * size + column] / head;
            for k in column..size {
                matrix[row * size + k] -= factor * matrix[column * size + k];
            }
        }
    }
    product
}
