//! A weight as the product that reads it sees it.

use crate::{QuantError, Result};

/// A weight seen as a matrix with a row for each output and a column for each input, however it
/// lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    RowByRow,
    ColumnByColumn,
}

impl Matrix {
    /// The matrix of a weight of `shape` whose outputs are on `output_axis`: axis 0 of
    /// `[out, in, ..]` (a `Gemm` with `transB`; a `Conv`, whose columns are then channel and taps
    /// in the order of im2col), or axis 1 of `[in, out]` (a `MatMul`).
    ///
    /// # Errors
    /// If outputs lie on another axis.
    pub fn new(shape: &[usize], output_axis: usize) -> Result<Matrix> {
        match (shape, output_axis) {
            (&[rows, ref rest @ ..], 0) => {
                Ok(Matrix { rows, columns: rest.iter().product(), order: Order::RowByRow })
            }
            (&[columns, rows], 1) => Ok(Matrix { rows, columns, order: Order::ColumnByColumn }),
            _ => Err(QuantError::NoMatrix { shape: shape.to_vec(), output_axis }),
        }
    }

    /// The axis of the weight that its outputs are on.
    pub(crate) fn output_axis(self) -> usize {
        match self.order {
            Order::RowByRow => 0,
            Order::ColumnByColumn => 1,
        }
    }

    /// Outputs.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Inputs that each output reads.
    pub fn columns(self) -> usize {
        self.columns
    }

    /// The elements of a weight, row by row.
    pub fn to_rows<T: Copy>(self, weight: &[T]) -> Vec<T> {
        match self.order {
            Order::RowByRow => weight.to_vec(),
            Order::ColumnByColumn => transposed(weight, self.rows),
        }
    }

    /// Puts elements that [`Matrix::to_rows`] gave back where they lie in the weight.
    pub fn from_rows<T: Copy>(self, rows: Vec<T>) -> Vec<T> {
        match self.order {
            Order::RowByRow => rows,
            Order::ColumnByColumn => transposed(&rows, self.columns),
        }
    }
}

/// The transpose of a matrix whose rows have `width` elements.
fn transposed<T: Copy>(values: &[T], width: usize) -> Vec<T> {
    (0..width).flat_map(|i| values.iter().skip(i).step_by(width).copied()).collect()
}

/// How much the error of each weight counts.
///
/// The error of an output is `Σ (w - q) x` over its inputs. Were those independent, its mean square
/// would be `Σ (w - q)^2 E[x^2]`: each column counts by the mean square of its input, the diagonal
/// of the Hessian (Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient
/// Inference", weigh errors by what they do to the output in the same way).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Importance<'a> {
    /// All alike.
    #[default]
    Equal,
    /// By its column.
    OfColumns {
        /// How the weight is read.
        matrix: Matrix,
        /// The mean square of the input of each column, or any multiple of it. Rows of a
        /// convolution in groups read different inputs: the columns of one group behind those of
        /// another.
        mean_squares: &'a [f32],
    },
}

impl Importance<'_> {
    /// The importance of every element, as they lie in memory.
    ///
    /// # Errors
    /// If there are not as many as columns (times groups), or one is negative or not finite.
    pub(crate) fn of_elements(self, elements: usize) -> Result<Vec<f32>> {
        let Importance::OfColumns { matrix, mean_squares } = self else {
            return Ok(vec![1.0; elements]);
        };
        let (rows, columns) = (matrix.rows, matrix.columns);
        let groups = mean_squares.len() / columns.max(1);
        let fits = groups * columns == mean_squares.len()
            && groups > 0
            && rows.is_multiple_of(groups)
            && rows * columns == elements;
        if !fits {
            return Err(QuantError::Inputs { rows, columns, given: mean_squares.len() });
        }
        if let Some(column) = mean_squares.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            return Err(QuantError::Input { column, value: mean_squares[column] });
        }
        let rows = (0..rows).flat_map(|row| {
            let group = row / (rows / groups);
            mean_squares[group * columns..][..columns].iter().copied()
        });
        Ok(matrix.from_rows(rows.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_outputs_in_every_arrangement() {
        let gemm = Matrix::new(&[2, 3], 0).unwrap();
        assert_eq!((gemm.rows(), gemm.columns()), (2, 3));
        assert_eq!(gemm.to_rows(&[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        let matmul = Matrix::new(&[3, 2], 1).unwrap();
        assert_eq!((matmul.rows(), matmul.columns()), (2, 3));
        assert_eq!(matmul.to_rows(&[1, 4, 2, 5, 3, 6]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(matmul.from_rows(vec![1, 2, 3, 4, 5, 6]), [1, 4, 2, 5, 3, 6]);
        let conv = Matrix::new(&[4, 2, 3, 3], 0).unwrap();
        assert_eq!((conv.rows(), conv.columns()), (4, 18));
        assert!(Matrix::new(&[4, 2, 3], 1).is_err());
        assert!(Matrix::new(&[], 0).is_err());
    }

    #[test]
    fn importance_follows_columns_and_groups() {
        let of = |shape: &[usize], axis, mean_squares: &[f32]| {
            let matrix = Matrix::new(shape, axis).unwrap();
            Importance::OfColumns { matrix, mean_squares }.of_elements(shape.iter().product())
        };
        assert_eq!(of(&[3, 2], 1, &[1.0, 2.0, 3.0]).unwrap(), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(of(&[2, 2], 0, &[1.0, 2.0, 3.0, 4.0]).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert!(matches!(of(&[3, 2], 1, &[1.0; 2]), Err(QuantError::Inputs { given: 2, .. })));
        assert!(matches!(of(&[3, 2], 0, &[1.0; 4]), Err(QuantError::Inputs { given: 4, .. })));
        assert!(matches!(
            of(&[1, 2], 0, &[1.0, f32::NAN]),
            Err(QuantError::Input { column: 1, .. })
        ));
        assert_eq!(Importance::Equal.of_elements(2).unwrap(), [1.0, 1.0]);
    }
}
