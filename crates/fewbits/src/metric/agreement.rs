use fewbits_engine::Tensor;

use super::prediction::{self, Predictions, predictions};
use super::{Metric, MetricError};

/// The fraction of rows on which two models predict the same, fed batch by batch.
///
/// Classes agree if they are equal. Single floats agree if both lie on the same side of 0.5
/// where all are probabilities (in 0..=1, of both models); otherwise they are quantities, and
/// agree if they differ by at most [`QUANTITY_TOLERANCE`] of the range of the first model's
/// answers, which is the same for any unit and offset.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    rows: u64,
    same: u64,
    /// Single floats wait for the last batch, which shows their range.
    scores: Vec<(f64, f64)>,
}

/// How far two regressions may differ on a row and still agree: a hundredth of the range.
pub const QUANTITY_TOLERANCE: f64 = 0.01;

impl Agreement {
    /// Takes the outputs of both models for the same rows.
    ///
    /// # Errors
    /// If a model's outputs hold no predictions, or theirs are of different kinds or lengths.
    pub fn push(&mut self, a: &[Tensor], b: &[Tensor]) -> Result<(), MetricError> {
        let read = |outputs: &[Tensor]| {
            predictions(outputs).ok_or_else(|| MetricError::Outputs {
                metric: Metric::Agreement,
                needed: "a label output or scores for each row",
                outputs: prediction::described(outputs),
            })
        };
        let (a, b) = (read(a)?, read(b)?);
        if a.len() != b.len() {
            return Err(MetricError::Length { predictions: b.len(), labels: a.len() });
        }
        self.rows += a.len() as u64;
        match (a, b) {
            (Predictions::Class(a), Predictions::Class(b)) => self.same += equal(&a, &b),
            (Predictions::Text(a), Predictions::Text(b)) => self.same += equal(&a, &b),
            (Predictions::Score(a), Predictions::Score(b)) => {
                self.scores.extend(a.into_iter().zip(b))
            }
            (a, b) => return Err(MetricError::Kinds { a: a.kind(), b: b.kind() }),
        }
        Ok(())
    }

    /// The fraction over all rows taken.
    ///
    /// # Errors
    /// If there were none.
    pub fn finish(self) -> Result<f64, MetricError> {
        let (same, rows) = self.counts()?;
        Ok(same as f64 / rows as f64)
    }

    /// On how many rows they agree, and the number of rows.
    pub(super) fn counts(self) -> Result<(u64, u64), MetricError> {
        if self.rows == 0 {
            return Err(MetricError::NoRows { metric: Metric::Agreement });
        }
        let probabilities =
            self.scores.iter().all(|(a, b)| (0.0..=1.0).contains(a) && (0.0..=1.0).contains(b));
        let of_first = || self.scores.iter().map(|(a, _)| *a);
        let range =
            of_first().fold(f64::NEG_INFINITY, f64::max) - of_first().fold(f64::INFINITY, f64::min);
        let agree = |&&(a, b): &&(f64, f64)| match probabilities {
            true => (a > 0.5) == (b > 0.5),
            // Equal infinities agree too.
            false => a == b || (a - b).abs() <= QUANTITY_TOLERANCE * range,
        };
        let same = self.same + self.scores.iter().filter(agree).count() as u64;
        Ok((same, self.rows))
    }
}

fn equal<T: PartialEq>(a: &[T], b: &[T]) -> u64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as u64
}
