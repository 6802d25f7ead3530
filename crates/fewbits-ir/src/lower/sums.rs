//! What is added to the sums of a product of bytes, and what they are worth.

use crate::lower::Bytes;
use crate::refusal::Refusal;

/// What is added to the sums of a product.
pub(crate) enum Bias {
    None,
    /// In units of the sums.
    Ints(Vec<i32>),
    Floats(Vec<f32>),
}

/// What is added to the sums of a product, and what they are worth.
pub(crate) struct Sums {
    pub scale: Vec<f32>,
    pub bias: Bias,
}

impl Sums {
    /// Those of weights with these scales.
    pub(crate) fn new(weight_scale: &[f32], bias: Bias, input: Bytes) -> Sums {
        let scale = weight_scale.iter().map(|s| input.ty.scale.scale * s).collect();
        Sums { scale, bias }
    }

    /// The bias in units of the sums. A float bias is rounded to them: they are finer
    /// than the bytes that come out by a factor of about a hundred.
    pub(crate) fn ints(&self) -> Result<Vec<i32>, Refusal> {
        match &self.bias {
            Bias::None => Ok(vec![0; self.scale.len()]),
            Bias::Ints(bias) => Ok(bias.clone()),
            Bias::Floats(floats) => {
                let ints = floats.iter().zip(&self.scale).map(|(b, s)| {
                    let int = (b / s).round_ties_even();
                    (int.abs() < 1e9).then_some(int as i32)
                });
                let ints = ints.collect::<Option<Vec<i32>>>();
                let why = "its bias is too large beside its weights for sums of 32 bits";
                ints.ok_or(Refusal::of_node(why))
            }
        }
    }
}
