use fewbits_engine::Tensor;

use super::class::Class;
use super::error::same_length;
use super::{Metric, MetricError, prediction};
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
    pub fn push(&mut self, outputs: &[Tensor], labels: &Labels) -> Result<(), MetricError> {
        let scores =
            prediction::score_output(outputs).or_else(|| prediction::number_output(outputs));
        let scores = scores.ok_or_else(|| MetricError::Outputs {
            metric: METRIC,
            needed: "float scores for each row",
            outputs: prediction::described(outputs),
        })?;
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

    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    pub fn finish(self) -> Result<f64, MetricError> {
        let all_once = vec![1; self.rows()];
        // Each class occurs and does not fill all rows, so the area is defined.
        self.ranked()?.area(&all_once).ok_or(MetricError::NotFinite { metric: METRIC })
    }

    /// The rows in the order of their scores.
    ///
    /// # Errors
    /// As the metric's.
    pub fn ranked(self) -> Result<Ranked, MetricError> {
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
            return Ok(Ranked(vec![OneClass::new(&self.scores, &positive)]));
        }
        // Columns stand for class numbers, or for the sorted names where all of them occur.
        let below = |class: &Class| match class {
            Class::Number(n) => usize::try_from(*n).ok().filter(|&n| n < self.columns),
            Class::Text(_) => None,
        };
        let numbered = classes.iter().all(|class| below(class).is_some());
        let all_occur = classes.len() == self.columns;
        let mut ranked = Vec::with_capacity(classes.len());
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
            ranked.push(OneClass::new(&scores, &positive));
        }
        Ok(Ranked(ranked))
    }
}

/// The rows in the order of their scores, once for each class that is told from the rest.
pub(super) struct Ranked(Vec<OneClass>);

struct OneClass(Vec<Rank>);

struct Rank {
    row: u32,
    positive: bool,
    /// Whether its score is that of the place before.
    tied: bool,
}

impl Ranked {
    /// The metric where each row counts as often as it was drawn; `None` if all rows of a class, or
    /// all others, were not.
    pub fn area(&self, times_drawn: &[u32]) -> Option<f64> {
        let areas = self.0.iter().map(|class| class.area(times_drawn));
        let sum: Option<f64> = areas.sum();
        sum.map(|sum| sum / self.0.len() as f64)
    }
}

impl OneClass {
    fn new(scores: &[f64], positive: &[bool]) -> OneClass {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut places: Vec<Rank> = Vec::with_capacity(order.len());
        let mut before = f64::NAN;
        for row in order {
            // `==` and not total_cmp: −0 and 0 are a tie.
            let tied = scores[row] == before;
            before = scores[row];
            places.push(Rank { row: row as u32, positive: positive[row], tied });
        }
        OneClass(places)
    }

    /// The probability that a positive row scores above a negative one, ties counted half: the
    /// Mann–Whitney statistic, of which each positive row adds the negative ones below it.
    fn area(&self, times_drawn: &[u32]) -> Option<f64> {
        let (mut positives, mut negatives, mut statistic) = (0.0, 0.0, 0.0);
        for equals in self.0.chunk_by(|_, next| next.tied) {
            let (mut equal_positives, mut equal_negatives) = (0.0, 0.0);
            for place in equals {
                let times = f64::from(times_drawn[place.row as usize]);
                if place.positive { equal_positives += times } else { equal_negatives += times }
            }
            statistic += equal_positives * (negatives + equal_negatives / 2.0);
            positives += equal_positives;
            negatives += equal_negatives;
        }
        (positives > 0.0 && negatives > 0.0).then(|| statistic / (positives * negatives))
    }
}
