//! From floats and parameters to integers, one method a file.

pub mod adaround;
pub mod awq;
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

use crate::{
    Hessian, Importance, Limits, Matrix, PackedInts, PairLimit, QTensor, QuantError, Result,
    Scheme, WeightRange, quantize_by,
};
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
        f.write_str(match self {
            Rounding::Nearest => "nearest",
            Rounding::Gptq => "gptq",
            Rounding::Hqq => "hqq",
            Rounding::AdaRound => "adaround",
        })
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
    fn check(&self, elements: usize) -> Result<()> {
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

/// Quantizes `values` as [`quantize_by`] does, but rounds them by `rounding` and keeps to `limits`. Errors count by what
/// inputs are given: for [`WeightRange::Mse`] by their mean squares, for methods that need inputs by
/// all of the Hessian.
///
/// No method is worse than [`Rounding::Nearest`] with the same range and inputs: one that needs inputs
/// in [`Hessian::error`], in any row; HQQ in the squared error of the weights that share a scale. HQQ
/// changes parameters, the others integers alone. Fixed point is always rounded to nearest, since the
/// width of its integers follows from the values, and so are small floats, whose steps differ.
///
/// # Errors
/// Those of [`quantize_by`]; if the method needs inputs and there are none; if the inputs are those
/// of another weight.
pub fn quantize_on(
    values: &[f32],
    shape: &[usize],
    scheme: Scheme,
    range: WeightRange,
    rounding: Rounding,
    inputs: Option<Inputs>,
    limits: &Limits,
) -> Result<QTensor> {
    if let (PairLimit::SevenBits, Some(narrow)) = (&limits.pairs, scheme.of_seven_bits()) {
        let limits = Limits { pairs: PairLimit::Free, least_scale: limits.least_scale.clone() };
        let narrow = quantize_on(values, shape, narrow, range, rounding, inputs, &limits)?;
        return Ok(narrow.widened());
    }
    if let Some(inputs) = inputs {
        inputs.check(values.len())?;
    }
    let mean_squares: Vec<f32> =
        inputs.iter().flat_map(|i| i.hessians).flat_map(Hessian::mean_squares).collect();
    let importance = match inputs {
        Some(Inputs { matrix, .. }) => {
            Importance::OfColumns { matrix, mean_squares: &mean_squares }
        }
        None => Importance::Equal,
    };
    let plain = quantize_by(values, shape, scheme, range, importance)?;
    if rounding.needs_inputs() && inputs.is_none() {
        return Err(QuantError::NeedsInputs { rounding });
    }
    let only_nearest =
        matches!(scheme, Scheme::FixedPoint { .. }) || scheme.float_format().is_some();
    if values.is_empty() || only_nearest {
        return Ok(plain);
    }
    let plain = match rounding {
        Rounding::Hqq => hqq::quantize(values, plain),
        Rounding::Nearest | Rounding::Gptq | Rounding::AdaRound => plain,
    };
    let counts = inputs.map(|_| importance.of_elements(values.len())).transpose()?;
    let plain = limits.keep(values, plain, counts.as_deref());
    let rounded = match (rounding, inputs) {
        (Rounding::Gptq, Some(inputs)) => round_rows(values, plain, inputs, limits, gptq::codes),
        (Rounding::AdaRound, Some(inputs)) => {
            round_rows(values, plain, inputs, limits, adaround::codes)
        }
        (Rounding::Nearest | Rounding::Hqq, _) | (_, None) => return Ok(plain),
    };
    Ok(limits.keep_pairs(values, rounded))
}

/// Other integers for the parameters of `plain`: those that `codes` finds for rows that read the
/// same inputs.
fn round_rows(
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
