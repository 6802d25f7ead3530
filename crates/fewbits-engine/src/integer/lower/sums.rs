//! What is added to the sums of a product of bytes, and what they are worth.

use crate::integer::lower::Bytes;
use crate::integer::net::IntWeights;
use crate::integer::refusal::Refusal;

/// What is added to the sums of a product.
pub(super) enum Bias {
    None,
    /// In units of the sums.
    Ints(Vec<i32>),
    Floats(Vec<f32>),
}

/// What the sums of a product must be corrected by, and what they are worth.
pub(super) struct Sums {
    /// Takes off what the zero point of the activations added.
    pub correction: Vec<i32>,
    pub scale: Vec<f32>,
    pub bias: Bias,
}

impl Sums {
    pub(super) fn new(weights: &IntWeights, bias: Bias, input: Bytes) -> Sums {
        let depth = weights.ints.len() / weights.scale.len().max(1);
        let zero_point = i32::from(input.ty.scale.zero_point);
        let sum = |column: &[i16]| column.iter().map(|&w| i32::from(w)).sum::<i32>();
        let correction =
            weights.ints.chunks_exact(depth.max(1)).map(|c| -zero_point * sum(c)).collect();
        let scale = weights.scale.iter().map(|s| input.ty.scale.scale * s).collect();
        Sums { correction, scale, bias }
    }

    /// Correction and bias in units of the sums. A float bias is rounded to them: they are finer
    /// than the bytes that come out by a factor of about a hundred.
    pub(super) fn ints(&self) -> Result<Vec<i32>, Refusal> {
        match &self.bias {
            Bias::None => Ok(self.correction.clone()),
            Bias::Ints(bias) => Ok(added(&self.correction, bias)),
            Bias::Floats(floats) => {
                let ints = floats.iter().zip(&self.scale).map(|(b, s)| {
                    let int = (b / s).round_ties_even();
                    (int.abs() < 1e9).then_some(int as i32)
                });
                let ints = ints.collect::<Option<Vec<i32>>>();
                let why = "its bias is too large beside its weights for sums of 32 bits";
                Ok(added(&self.correction, &ints.ok_or(Refusal::of_node(why))?))
            }
        }
    }
}

/// Adds two rows of integers.
pub(super) fn added(a: &[i32], b: &[i32]) -> Vec<i32> {
    a.iter().zip(b).map(|(&a, &b)| a.wrapping_add(b)).collect()
}
