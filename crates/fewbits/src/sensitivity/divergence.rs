//! How far the outputs of a changed model are from those of the model itself.

use fewbits_engine::{Tensor, Values};

use crate::Result;
use crate::evaluate::OutputError;
use crate::metric::{log_sum_exp, score_output};
use crate::padding::Tokens;

/// Probabilities below this count as this: their logarithms would be infinite.
const LEAST_PROBABILITY: f64 = 1e-12;

/// Adds up the distance over batches.
///
/// For class scores it is the Kullback-Leibler divergence of the changed model's distribution from
/// the model's own, in nats a row (a token, for sequences): the loss that the change adds if the
/// model's probabilities are right, and to second order additive over small independent changes.
/// For other floats it is the power of the difference over that of the outputs.
#[derive(Default)]
pub struct Divergence {
    nats: f64,
    rows: u64,
    error: OutputError,
}

impl Divergence {
    /// Adds the outputs for the same rows; of other floats than scores those of `tokens` only.
    ///
    /// # Errors
    /// If they are of different lengths.
    pub fn push(
        &mut self,
        expected: &[Tensor],
        given: &[Tensor],
        tokens: Option<&Tokens>,
    ) -> Result<()> {
        match tokens {
            Some(tokens) => self.error.push(&tokens.only(expected), &tokens.only(given))?,
            None => self.error.push(expected, given)?,
        }
        let (Some(expected), Some(given)) = (score_output(expected), score_output(given)) else {
            return Ok(());
        };
        let classes = expected.shape().last().copied().unwrap_or(1).max(1);
        let form = Form::of(expected, classes);
        let (Some(expected), Some(given)) = (floats(expected), floats(given)) else {
            return Ok(());
        };
        for (p, q) in expected.chunks_exact(classes).zip(given.chunks_exact(classes)) {
            let nats = relative_entropy(&form.logarithms(p), &form.logarithms(q));
            // What is not a number is as wrong as can be.
            self.nats += if nats.is_finite() { nats } else { -LEAST_PROBABILITY.ln() };
            self.rows += 1;
        }
        Ok(())
    }

    /// The distance per row, at least 0.
    pub fn finish(&self) -> f64 {
        match self.rows {
            0 => self.error.relative().unwrap_or(0.0),
            rows => (self.nats / rows as f64).max(0.0),
        }
    }

    /// The power of the difference over that of the float outputs; none where they are zero.
    pub fn relative_error(&self) -> Option<f64> {
        self.error.relative()
    }
}

/// What scores are.
#[derive(Clone, Copy)]
enum Form {
    Probabilities,
    Logits,
}

impl Form {
    fn of(scores: &Tensor, classes: usize) -> Form {
        let Some(values) = floats(scores) else { return Form::Logits };
        let sums_to_one = |row: &[f64]| (row.iter().sum::<f64>() - 1.0).abs() < 1e-3;
        let all = values.iter().all(|p| (0.0..=1.0).contains(p))
            && values.chunks_exact(classes).all(sums_to_one);
        if all { Form::Probabilities } else { Form::Logits }
    }

    /// The logarithms of the probabilities of one row.
    fn logarithms(self, row: &[f64]) -> Vec<f64> {
        match self {
            Form::Probabilities => row.iter().map(|p| p.max(LEAST_PROBABILITY).ln()).collect(),
            Form::Logits => {
                let normalizer = log_sum_exp(row);
                row.iter().map(|x| x - normalizer).collect()
            }
        }
    }
}

/// The sum of p (ln p - ln q); Kullback and Leibler 1951, "On Information and Sufficiency", eq. 2.4.
fn relative_entropy(log_p: &[f64], log_q: &[f64]) -> f64 {
    log_p.iter().zip(log_q).map(|(p, q)| p.exp() * (p - q)).filter(|x| !x.is_nan()).sum()
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.values() {
        Values::F32(_) | Values::F64(_) => tensor.to_f64(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(expected: [f32; 2], given: [f32; 2]) -> f64 {
        let row = |values: [f32; 2]| [Tensor::new(vec![1, 2], values.to_vec()).unwrap()];
        let mut divergence = Divergence::default();
        divergence.push(&row(expected), &row(given), None).unwrap();
        divergence.finish()
    }

    #[test]
    fn scores_differ_by_relative_entropy() {
        assert_eq!(between([0.5, 0.5], [0.5, 0.5]), 0.0);
        let expected = 0.25 * (0.25f64 / 0.5).ln() + 0.75 * (0.75f64 / 0.5).ln();
        assert!((between([0.25, 0.75], [0.5, 0.5]) - expected).abs() < 1e-9);
        // Logits: adding to both changes nothing.
        assert!(between([3.0, 7.0], [1.0, 5.0]).abs() < 1e-9);
        let expected = 1.0f64.exp() / (1.0 + 1.0f64.exp());
        let expected =
            (1.0 - expected) * ((1.0 - expected) / 0.5).ln() + expected * (expected / 0.5).ln();
        assert!((between([4.0, 5.0], [2.0, 2.0]) - expected).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_a_number_is_far_away() {
        assert!(between([4.0, 5.0], [f32::NAN, f32::NAN]) >= 0.0);
        assert!(between([0.25, 0.75], [f32::NAN, 1.0]) > 0.1);
    }

    #[test]
    fn other_outputs_differ_by_their_power() {
        let column = |values: [f32; 2]| [Tensor::new(vec![2, 1], values.to_vec()).unwrap()];
        let mut divergence = Divergence::default();
        divergence.push(&column([3.0, 4.0]), &column([3.0, 3.0]), None).unwrap();
        assert_eq!(divergence.finish(), 1.0 / 25.0);
        assert_eq!(divergence.relative_error(), Some(1.0 / 25.0));
    }
}
