use fewbits_runtime::Tensor;

use super::accumulator::{Class, same_length};
use super::{Metric, MetricError};
use crate::data::Labels;

/// The scores and labels from which AUC is ranked at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct AucScores {
    /// One score a row for two classes, one for each class for more; row-major.
    scores: Vec<f64>,
    /// The columns of the model's output.
    columns: usize,
    labels: Vec<Class>,
}

const METRIC: Metric = Metric::Auc;

impl AucScores {
    pub fn push(&mut self, scores: &Tensor, labels: &Labels) -> Result<(), MetricError> {
        let columns = match scores.shape() {
            [_] => 1,
            shape => shape.last().copied().unwrap_or(1).max(1),
        };
        same_length(scores.len() / columns, labels)?;
        if !self.labels.is_empty() && self.columns != columns {
            return Err(MetricError::Length { predictions: columns, labels: self.columns });
        }
        self.columns = columns;
        let values = scores.to_f64().unwrap_or_default();
        match columns {
            // Of two classes, the second's score orders the rows.
            2 => self.scores.extend(values.chunks_exact(2).map(|row| row[1])),
            _ => self.scores.extend(values),
        }
        self.labels.extend(Class::of_labels(labels));
        Ok(())
    }

    pub fn finish(self) -> Result<f64, MetricError> {
        if self.labels.is_empty() {
            return Err(MetricError::NoRows { metric: METRIC });
        }
        if self.scores.iter().any(|s| s.is_nan()) {
            return Err(MetricError::NotFinite { metric: METRIC });
        }
        let mut classes = self.labels.clone();
        classes.sort();
        classes.dedup();
        let refuse = |needed: String| Err(MetricError::Labels { metric: METRIC, needed });
        if classes.len() < 2 {
            return refuse("labels of at least two classes".to_string());
        }
        if self.columns <= 2 {
            let [_, positive] = classes.as_slice() else {
                return refuse(format!(
                    "labels of two classes for this model, not {}",
                    classes.len()
                ));
            };
            let positive: Vec<bool> = self.labels.iter().map(|l| l == positive).collect();
            return Ok(area(&self.scores, &positive));
        }
        // Columns stand for class numbers, or for the sorted names where all of them occur.
        let below = |class: &Class| match class {
            Class::Number(n) => usize::try_from(*n).ok().filter(|&n| n < self.columns),
            Class::Text(_) => None,
        };
        let numbered = classes.iter().all(|class| below(class).is_some());
        let all_occur = classes.len() == self.columns;
        let mut sum = 0.0;
        for (rank, class) in classes.iter().enumerate() {
            let column = if numbered { below(class) } else { all_occur.then_some(rank) };
            let Some(column) = column else {
                return refuse(format!(
                    "labels that are class numbers below {}, or as many class names as the model has scores",
                    self.columns
                ));
            };
            let scores: Vec<f64> =
                self.scores.iter().skip(column).step_by(self.columns).copied().collect();
            let positive: Vec<bool> = self.labels.iter().map(|l| l == class).collect();
            sum += area(&scores, &positive);
        }
        Ok(sum / classes.len() as f64)
    }
}

/// The probability that a positive row scores above a negative one, ties counted half: the
/// Mann–Whitney statistic over mean ranks. There must be rows of both kinds.
fn area(scores: &[f64], positive: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut rank_sum = 0.0;
    let mut below = 0;
    // `==` and not total_cmp: −0 and 0 are a tie.
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let mean_rank = below as f64 + (tied.len() + 1) as f64 / 2.0;
        rank_sum += mean_rank * tied.iter().filter(|&&i| positive[i]).count() as f64;
        below += tied.len();
    }
    let positives = positive.iter().filter(|&&p| p).count() as f64;
    let negatives = positive.len() as f64 - positives;
    (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}
