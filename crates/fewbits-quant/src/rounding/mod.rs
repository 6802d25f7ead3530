//! From floats and parameters to integers, one method a file.

pub mod adaround;
pub mod gptq;
mod grid;
pub mod hqq;
mod ldl;
pub mod nearest;
pub mod nearest_float;
pub mod sign;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Hessian, Limits, Matrix, PackedInts, QTensor, QuantError, Result};
use grid::{Grid, GridRows};

/// How the floats of a weight become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// Each to the nearest.
    #[default]
    Nearest,
    /// One after the other, each making up for the errors of those before.
    Gptq,
    /// Each to the nearest, with scales and zero points that let outliers be.
    Hqq,
    /// Each up or down, which is learned.
    AdaRound,
}

impl Rounding {
    /// All of them, the plainest first.
    pub const ALL: [Rounding; 4] =
        [Rounding::Nearest, Rounding::Gptq, Rounding::Hqq, Rounding::AdaRound];

    /// Names the method.
    pub fn name(self) -> &'static str {
        match self {
            Rounding::Nearest => "nearest",
            Rounding::Gptq => "gptq",
            Rounding::Hqq => "hqq",
            Rounding::AdaRound => "adaround",
        }
    }

    /// Whether the method looks at the inputs that the weight is multiplied by.
    pub fn needs_inputs(self) -> bool {
        match self {
            Rounding::Nearest | Rounding::Hqq => false,
            Rounding::Gptq | Rounding::AdaRound => true,
        }
    }
}

impl FromStr for Rounding {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Rounding, String> {
        match text {
            "nearest" => Ok(Rounding::Nearest),
            "gptq" => Ok(Rounding::Gptq),
            "hqq" => Ok(Rounding::Hqq),
            "adaround" => Ok(Rounding::AdaRound),
            _ => Err(format!("'{text}': the ways to round are nearest, gptq, hqq and adaround")),
        }
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of the inputs that a weight is multiplied by.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// How the weight is read.
    pub matrix: Matrix,
    /// The Hessian of each group of a convolution, whose rows read different inputs; one for a
    /// product. Each has as many columns as the matrix.
    pub hessians: &'a [Hessian],
}

impl Inputs<'_> {
    /// # Errors
    /// If these are not the inputs of a matrix of so many elements.
    pub(crate) fn check(&self, elements: usize) -> Result<()> {
        let (rows, columns) = (self.matrix.rows(), self.matrix.columns());
        let fits = !self.hessians.is_empty()
            && rows.is_multiple_of(self.hessians.len())
            && self.hessians.iter().all(|h| h.columns() == columns)
            && rows * columns == elements;
        match fits {
            true => Ok(()),
            false => {
                let given = self.hessians.iter().map(Hessian::columns).sum();
                Err(QuantError::Inputs { rows, columns, given })
            }
        }
    }
}

/// Other integers for the parameters of `plain`: those that `codes` finds for rows that read the
/// same inputs.
pub(crate) fn round_rows(
    values: &[f32],
    plain: QTensor,
    Inputs { matrix, hessians }: Inputs,
    limits: &Limits,
    codes: impl Fn(&[f32], GridRows, &Hessian) -> Vec<i16>,
) -> QTensor {
    let (rows, grid) = (matrix.to_rows(values), Grid::new(&plain, matrix, limits));
    let per_group = values.len() / hessians.len();
    let groups = rows.chunks(per_group).zip(grid.chunks(per_group)).zip(hessians);
    let found = groups.flat_map(|((rows, grid), hessian)| codes(rows, grid, hessian)).collect();
    let (width, encoding) = (plain.codes().width(), plain.codes().encoding());
    let found = PackedInts::pack(&matrix.from_rows(found), width, encoding);
    plain.with_codes(found)
}

#[cfg(test)]
pub(crate) mod tests;
