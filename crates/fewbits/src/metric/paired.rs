use std::collections::BTreeMap;

use fewbits_engine::Tensor;

use super::accumulator::for_each_token;
use super::auc::AucScores;
use super::class::{Class, ClassCounts, TwoClasses, f1};
use super::error::same_length;
use super::prediction::{self, Predictions, predictions};
use super::regression::{self, Columns};
use super::{Agreement, Metric, MetricError};
use crate::data::Labels;
use crate::interval::mean::{Moments, RowNats, of_perplexity};
use crate::interval::{DropInterval, bootstrap};

/// How sure the drop from one model to another is, fed batch by batch with what both answered; keeps
/// a few numbers of every row. The methods are those of [`interval`](crate::interval).
#[derive(Clone, Debug)]
pub struct PairedDrop {
    metric: Metric,
    rows: PairedRows,
}

#[derive(Clone, Debug)]
enum PairedRows {
    /// Accuracy and F1.
    Classes(ClassRows),
    Auc(AucScores, AucScores),
    /// R² and RMSE.
    Columns {
        labels: Vec<f64>,
        a: Vec<f64>,
        b: Vec<f64>,
        per_row: usize,
    },
    /// MAE: how much more the second errs on a row.
    Errors(Moments),
    Nats(Vec<RowNats>),
    Agreement(Agreement),
}

impl PairedDrop {
    /// Begins with the metric whose drop is meant.
    pub fn new(metric: Metric) -> PairedDrop {
        let rows = match metric {
            Metric::Accuracy | Metric::F1 => PairedRows::Classes(ClassRows::default()),
            Metric::Auc => PairedRows::Auc(AucScores::default(), AucScores::default()),
            Metric::R2 | Metric::Rmse => {
                PairedRows::Columns { labels: Vec::new(), a: Vec::new(), b: Vec::new(), per_row: 1 }
            }
            Metric::Mae => PairedRows::Errors(Moments::default()),
            Metric::Perplexity => PairedRows::Nats(Vec::new()),
            Metric::Agreement => PairedRows::Agreement(Agreement::default()),
        };
        PairedDrop { metric, rows }
    }

    /// Takes the outputs of both models and the labels of the same rows; agreement needs no labels.
    ///
    /// # Errors
    /// As those of [`Accumulator::push`](super::Accumulator::push).
    pub fn push(
        &mut self,
        a: &[Tensor],
        b: &[Tensor],
        labels: Option<&Labels>,
    ) -> Result<(), MetricError> {
        let metric = self.metric;
        if let PairedRows::Agreement(agreement) = &mut self.rows {
            return agreement.push(a, b);
        }
        let labels = labels.ok_or_else(|| MetricError::Labels {
            metric,
            needed: "labels in the data".to_string(),
        })?;
        match &mut self.rows {
            PairedRows::Agreement(_) => Ok(()),
            PairedRows::Classes(rows) => rows.push(metric, a, b, labels),
            PairedRows::Auc(of_a, of_b) => {
                of_a.push(a, labels)?;
                of_b.push(b, labels)
            }
            PairedRows::Columns { labels: of_labels, a: of_a, b: of_b, per_row } => {
                let (a, columns) = regression::values(metric, a, labels)?;
                let (b, _) = regression::values(metric, b, labels)?;
                let numbers = (0..a.len()).map(|i| regression::number(labels.values(), i));
                *per_row = columns;
                of_labels.extend(numbers);
                of_a.extend(a);
                of_b.extend(b);
                Ok(())
            }
            PairedRows::Errors(errors) => {
                let (a, columns) = regression::values(metric, a, labels)?;
                let (b, _) = regression::values(metric, b, labels)?;
                for start in (0..a.len()).step_by(columns) {
                    let more = (start..start + columns).map(|i| {
                        let label = regression::number(labels.values(), i);
                        (b[i] - label).abs() - (a[i] - label).abs()
                    });
                    errors.push(more.sum::<f64>() / columns as f64);
                }
                Ok(())
            }
            PairedRows::Nats(rows) => {
                let per_row = labels.values().len().checked_div(labels.rows()).unwrap_or(1).max(1);
                let mut batch = vec![RowNats { tokens: 0.0, a: 0.0, b: 0.0 }; labels.rows()];
                for_each_token(a, labels, |at, nats| {
                    batch[at / per_row].tokens += 1.0;
                    batch[at / per_row].a += nats;
                })?;
                for_each_token(b, labels, |at, nats| batch[at / per_row].b += nats)?;
                rows.extend(batch.into_iter().filter(|row| row.tokens > 0.0));
                Ok(())
            }
        }
    }

    /// The interval; `None` where the rows are too few for one, or outputs are not finite.
    ///
    /// # Errors
    /// As those of [`Accumulator::finish`](super::Accumulator::finish).
    pub fn finish(self) -> Result<Option<DropInterval>, MetricError> {
        let metric = self.metric;
        match self.rows {
            PairedRows::Classes(rows) => rows.finish(metric),
            PairedRows::Auc(a, b) => {
                let rows = a.rows();
                let (a, b) = (a.ranked()?, b.ranked()?);
                let drop = |drawn: &[u32]| Some(metric.drop(a.area(drawn)?, b.area(drawn)?));
                Ok(bootstrapped(rows, drop))
            }
            PairedRows::Columns { labels, a, b, per_row } => {
                let of = |values: &[f64], drawn: &[u32]| {
                    Columns::of_drawn(metric, values, &labels, per_row, drawn)
                };
                let drop = |drawn: &[u32]| Some(metric.drop(of(&a, drawn)?, of(&b, drawn)?));
                Ok(bootstrapped(labels.len() / per_row, drop))
            }
            PairedRows::Errors(errors) => Ok(errors.interval()),
            PairedRows::Nats(rows) => Ok(of_perplexity(&rows)),
            PairedRows::Agreement(agreement) => {
                let (same, rows) = agreement.counts()?;
                Ok(DropInterval::of_differing_answers(rows - same, rows as usize))
            }
        }
    }
}

/// The bootstrap's interval around the drop over all rows.
fn bootstrapped(
    rows: usize,
    drop_of: impl Fn(&[u32]) -> Option<f64> + Sync,
) -> Option<DropInterval> {
    let drop = drop_of(&vec![1; rows])?;
    bootstrap::interval(rows, drop, drop_of)
}

/// Labels and predicted classes, each class by a number of its own.
#[derive(Clone, Debug, Default)]
struct ClassRows {
    numbers: BTreeMap<Class, u32>,
    labels: Vec<u32>,
    a: Predicted,
    b: Predicted,
    per_row: usize,
}

#[derive(Clone, Debug, Default)]
struct Predicted {
    classes: Vec<u32>,
    /// Single scores wait for the last batch, which shows what they mean.
    scores: Vec<f64>,
}

impl ClassRows {
    fn push(
        &mut self,
        metric: Metric,
        a: &[Tensor],
        b: &[Tensor],
        labels: &Labels,
    ) -> Result<(), MetricError> {
        let read = |outputs: &[Tensor]| {
            let found = predictions(outputs).ok_or_else(|| MetricError::Outputs {
                metric,
                needed: "a label output or scores for each row",
                outputs: prediction::described(outputs),
            })?;
            same_length(found.len(), labels)?;
            Ok(found)
        };
        let (a, b) = (read(a)?, read(b)?);
        self.per_row = labels.values().len().checked_div(labels.rows()).unwrap_or(1).max(1);
        let labels = Class::of_labels(labels);
        self.labels.extend(labels.into_iter().map(|label| number(&mut self.numbers, label)));
        self.a.push(&mut self.numbers, a);
        self.b.push(&mut self.numbers, b);
        Ok(())
    }

    fn finish(mut self, metric: Metric) -> Result<Option<DropInterval>, MetricError> {
        let a = self.a.finish(metric, &mut self.numbers, &self.labels)?;
        let b = self.b.finish(metric, &mut self.numbers, &self.labels)?;
        let labels = self.labels;
        if metric == Metric::F1 {
            let order: Vec<u32> = self.numbers.into_values().collect();
            let drop = |drawn: &[u32]| {
                Some(
                    metric
                        .drop(f1_of(&order, &labels, &a, drawn), f1_of(&order, &labels, &b, drawn)),
                )
            };
            return Ok(bootstrapped(labels.len(), drop));
        }
        let right = |predicted: &[u32], i: usize| predicted[i] == labels[i];
        let rows = labels.len() / self.per_row.max(1);
        if self.per_row <= 1 {
            let only = |a: &[u32], b: &[u32]| {
                (0..rows).filter(|&i| right(a, i) && !right(b, i)).count() as u64
            };
            return Ok(DropInterval::of_paired_answers(only(&a, &b), only(&b, &a), rows));
        }
        // Several answers of one row depend on each other, so rows are what is sampled.
        let mut lost = Moments::default();
        for row in 0..rows {
            let of_row = row * self.per_row..(row + 1) * self.per_row;
            let more = of_row.map(|i| f64::from(right(&a, i)) - f64::from(right(&b, i)));
            lost.push(more.sum::<f64>() / self.per_row as f64);
        }
        Ok(lost.interval())
    }
}

impl Predicted {
    fn push(&mut self, numbers: &mut BTreeMap<Class, u32>, predictions: Predictions) {
        let mut take = |class: Class| self.classes.push(number(numbers, class));
        match predictions {
            Predictions::Class(v) => v.into_iter().for_each(|x| take(Class::Number(x))),
            Predictions::Text(v) => v.iter().for_each(|x| take(Class::from_text(x))),
            Predictions::Score(v) => self.scores.extend(v),
        }
    }

    /// The class of every row.
    fn finish(
        self,
        metric: Metric,
        numbers: &mut BTreeMap<Class, u32>,
        labels: &[u32],
    ) -> Result<Vec<u32>, MetricError> {
        if self.scores.is_empty() {
            return Ok(self.classes);
        }
        let mut occur = vec![false; numbers.len()];
        labels.iter().for_each(|&label| occur[label as usize] = true);
        let of_labels = numbers.iter().filter(|(_, n)| occur[**n as usize]).map(|(class, _)| class);
        let two = TwoClasses::of(metric, self.scores.iter().copied(), of_labels.collect())?;
        Ok(self.scores.iter().map(|&score| number(numbers, two.class(score))).collect())
    }
}

fn number(numbers: &mut BTreeMap<Class, u32>, class: Class) -> u32 {
    let next = numbers.len() as u32;
    *numbers.entry(class).or_insert(next)
}

/// F1 where each row counts as often as it was drawn. `order` holds the numbers of all classes in
/// the classes' order.
fn f1_of(order: &[u32], labels: &[u32], predicted: &[u32], times_drawn: &[u32]) -> f64 {
    let mut counts = vec![ClassCounts::default(); order.len()];
    for ((&label, &predicted), &times) in labels.iter().zip(predicted).zip(times_drawn) {
        let times = u64::from(times);
        counts[predicted as usize].predicted += times;
        counts[label as usize].labels += times;
        counts[label as usize].right += if label == predicted { times } else { 0 };
    }
    f1(&order.iter().map(|&n| counts[n as usize]).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::Accumulator;
    use super::*;
    use crate::data::LabelValues;
    use crate::interval::bootstrap::SplitMix64;

    /// Rows of each batch that the tests cut data into.
    const BATCH: usize = 7;

    fn interval(
        metric: Metric,
        a: &[Tensor],
        b: &[Tensor],
        labels: Option<&Labels>,
    ) -> Option<DropInterval> {
        let in_batches = |size: usize| {
            let mut paired = PairedDrop::new(metric);
            for start in (0..a[0].rows()).step_by(size) {
                let rows = start..(start + size).min(a[0].rows());
                let cut = |all: &[Tensor]| -> Vec<Tensor> {
                    all.iter().map(|o| o.slice_rows(rows.clone())).collect()
                };
                let labels = labels.map(|labels| labels.slice_rows(rows.clone()));
                paired.push(&cut(a), &cut(b), labels.as_ref()).unwrap();
            }
            paired.finish().unwrap()
        };
        let at_once = in_batches(a[0].rows());
        assert_eq!(at_once, in_batches(BATCH), "{metric}");
        at_once
    }

    fn measured(metric: Metric, outputs: &[Tensor], labels: &Labels) -> f64 {
        let mut accumulator = Accumulator::new(metric).unwrap();
        accumulator.push(outputs, labels).unwrap();
        accumulator.finish().unwrap()
    }

    /// Labels of `classes` classes, and scores that often favour them: of one model, and of another
    /// like it.
    fn classifiers(rows: usize, classes: usize) -> (Labels, [Tensor; 1], [Tensor; 1]) {
        let mut random = SplitMix64::new(11);
        let labels: Vec<i64> = (0..rows).map(|_| random.below(classes) as i64).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for &label in &labels {
            for class in 0..classes {
                let favour = if class as i64 == label { 0.4 } else { 0.0 };
                a.push((favour + random.unit()) as f32);
                b.push(a[a.len() - 1] + (0.4 * random.unit()) as f32);
            }
        }
        let of = |values| [Tensor::new(vec![rows, classes], values).unwrap()];
        (LabelValues::Class(labels).into(), of(a), of(b))
    }

    /// Labels, predictions, and predictions that are worse, `columns` a row.
    fn regressions(rows: usize, columns: usize) -> (Labels, [Tensor; 1], [Tensor; 1]) {
        let mut random = SplitMix64::new(12);
        let count = rows * columns;
        let labels: Vec<f64> = (0..count).map(|_| 10.0 * random.unit()).collect();
        let a: Vec<f64> = labels.iter().map(|x| x + random.unit() - 0.5).collect();
        let b: Vec<f64> = a.iter().map(|x| x + 0.5 * random.unit() - 0.2).collect();
        let of = |values: Vec<f64>| [Tensor::new(vec![rows, columns], values).unwrap()];
        let labels = Labels::new(vec![rows, columns], LabelValues::Number(labels)).unwrap();
        (labels, of(a), of(b))
    }

    #[test]
    fn the_interval_lies_around_the_drop_that_the_metrics_tell() {
        let (two, three) = (classifiers(90, 2), classifiers(90, 3));
        let (one_column, columns) = (regressions(60, 1), regressions(60, 2));
        for (metric, (labels, a, b)) in [
            (Metric::Accuracy, &three),
            (Metric::F1, &two),
            (Metric::F1, &three),
            (Metric::Auc, &two),
            (Metric::Auc, &three),
            (Metric::R2, &one_column),
            (Metric::R2, &columns),
            (Metric::Mae, &columns),
            (Metric::Rmse, &columns),
            (Metric::Perplexity, &three),
        ] {
            let found = interval(metric, a, b, Some(labels)).unwrap();
            let drop = metric.drop(measured(metric, a, labels), measured(metric, b, labels));
            assert!((found.drop - drop).abs() < 1e-9, "{metric}: {found:?}, drop {drop}");
            assert!(found.low < drop && drop < found.high, "{metric}: {found:?}, drop {drop}");
            assert_eq!(found.rows, labels.rows());
            // Models that answer alike do not differ, however good they are.
            let same = interval(metric, a, a, Some(labels)).unwrap();
            assert_eq!(same.drop, 0.0, "{metric}");
            assert!(same.high - same.low < found.high - found.low, "{metric}: {same:?}");
        }
    }

    #[test]
    fn single_scores_mean_classes_and_text_is_compared_as_text() {
        let scores = |values: [f32; 4]| [Tensor::new(vec![4], values.to_vec()).unwrap()];
        let labels: Labels = LabelValues::Class(vec![0, 1, 1, 0]).into();
        // Logits of one model and probabilities of the other: right 4 times and 2 times.
        let (a, b) = (scores([-2.0, 0.3, 4.0, -0.1]), scores([0.1, 0.4, 0.9, 0.6]));
        let found = interval(Metric::Accuracy, &a, &b, Some(&labels)).unwrap();
        assert_eq!(Some(found), DropInterval::of_paired_answers(2, 0, 4));

        let names = |names: [&str; 3]| names.map(str::to_string).to_vec();
        let text = |values| [Tensor::new(vec![3], names(values)).unwrap()];
        let labels: Labels = LabelValues::Text(names(["a", "b", "b"])).into();
        let (a, b) = (text(["a", "b", "a"]), text(["b", "b", "b"]));
        let found = interval(Metric::Accuracy, &a, &b, Some(&labels)).unwrap();
        assert_eq!(Some(found), DropInterval::of_paired_answers(1, 1, 3));
    }

    #[test]
    fn agreement_needs_no_labels_and_others_do() {
        let (_, a, b) = classifiers(90, 3);
        let found = interval(Metric::Agreement, &a, &b, None).unwrap();
        assert!(found.low > 0.0 && found.low < found.drop && found.drop < found.high);
        let refused = PairedDrop::new(Metric::Auc).push(&a, &b, None).unwrap_err();
        assert!(matches!(refused, MetricError::Labels { .. }));
        let (labels, ..) = classifiers(91, 3);
        let lengths = PairedDrop::new(Metric::F1).push(&a, &b, Some(&labels)).unwrap_err();
        assert!(matches!(lengths, MetricError::Length { .. }));
    }

    #[test]
    fn answers_of_one_row_are_not_taken_as_many() {
        // Each row's tokens are all lost or all kept, so that rows and not tokens are counted.
        let labels = Labels::new(vec![8, 50], LabelValues::Class(vec![1; 400])).unwrap();
        let logits = |lost: usize| {
            let of_row = |row: usize| if row < lost { [1.0f32, 0.0] } else { [0.0, 1.0] };
            let values: Vec<f32> = (0..8).flat_map(|row| of_row(row).repeat(50)).collect();
            [Tensor::new(vec![8, 50, 2], values).unwrap()]
        };
        let (a, b) = (logits(0), logits(2));
        let found = interval(Metric::Accuracy, &a, &b, Some(&labels)).unwrap();
        assert!((found.drop - 0.25).abs() < 1e-12 && found.rows == 8, "{found:?}");
        assert!(found.high > 0.6 && found.low < 0.0, "{found:?}");
        let tokens = DropInterval::of_paired_answers(100, 0, 400).unwrap();
        assert!(tokens.high < 0.3);
    }
}
