//! Matrices inside of slices.

use serde::{Deserialize, Serialize};

/// The sizes of a product of matrices, `[m, k]` times `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dims {
    /// Rows of the left side, and of the product.
    pub m: usize,
    /// Columns of the left side, and rows of the right one.
    pub k: usize,
    /// Columns of the right side, and of the product.
    pub n: usize,
}

/// A matrix inside of a slice: element (i, j) is `values[start + i * row + j * col]`.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// What holds the elements.
    pub values: &'a [f32],
    /// Where the first one is.
    pub start: usize,
    /// The distance from a row to the next.
    pub row: usize,
    /// The distance from a column to the next.
    pub col: usize,
}

impl<'a> Strided<'a> {
    /// Takes rows of `width`, one behind the other.
    pub fn rows(values: &'a [f32], width: usize) -> Strided<'a> {
        Strided { values, start: 0, row: width, col: 1 }
    }

    /// Returns the same elements with rows and columns exchanged.
    pub fn transposed(self) -> Strided<'a> {
        Strided { row: self.col, col: self.row, ..self }
    }

    /// Returns the part from row `row` and column `col` on.
    pub fn from(self, row: usize, col: usize) -> Strided<'a> {
        Strided { start: self.start + row * self.row + col * self.col, ..self }
    }

    /// The same `m` rows of `k` elements with the elements of a row side by side, copied to
    /// `copy` unless they are already.
    pub(super) fn straightened<'b>(self, m: usize, k: usize, copy: &'b mut [f32]) -> Strided<'b>
    where
        'a: 'b,
    {
        if self.col == 1 {
            return self;
        }
        for i in 0..m {
            for j in 0..k {
                copy[i * k + j] = self.values[self.start + i * self.row + j * self.col];
            }
        }
        Strided::rows(copy, k)
    }

    /// How much [`Strided::straightened`] copies.
    pub(super) fn copied_len(self, m: usize, k: usize) -> usize {
        if self.col == 1 { 0 } else { m * k }
    }
}

/// A matrix inside of a slice, to be written: element (i, j) is `values[start + i * row + j]`. The elements
/// of a row lie side by side, since kernels write whole vectors.
#[derive(Debug)]
pub struct StridedMut<'a> {
    /// What holds the elements.
    pub values: &'a mut [f32],
    /// Where the first one is.
    pub start: usize,
    /// The distance from a row to the next.
    pub row: usize,
}

impl<'a> StridedMut<'a> {
    /// Takes rows of `width`, one behind the other.
    pub fn rows(values: &'a mut [f32], width: usize) -> StridedMut<'a> {
        StridedMut { values, start: 0, row: width }
    }

    /// Returns the part from row `row` and column `col` on, for as long as it is borrowed.
    pub fn from(&mut self, row: usize, col: usize) -> StridedMut<'_> {
        StridedMut { start: self.start + row * self.row + col, row: self.row, values: self.values }
    }
}

/// `scratch` with a length of at least `len`, of unspecified content.
pub(super) fn at_least(scratch: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    &mut scratch[..len]
}
