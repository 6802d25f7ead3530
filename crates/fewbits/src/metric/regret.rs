use fewbits_engine::Tensor;

use super::{Metric, MetricError, prediction};

/// How far the probabilities of a row may be from adding up to 1.
const SUM_TOLERANCE: f64 = 1e-3;

/// What accuracy would be lost if the first model's probabilities were right: the mean over rows of
/// p(ŷa) − p(ŷb), with p the first model's probabilities and ŷ the class that a model scores
/// highest. Fed batch by batch.
///
/// It needs no labels, is never negative, and varies far less than a count of errors: rows on which
/// the answer changes count by how sure the first model was, instead of as wrong or right. That the
/// probabilities are right is an assumption: a model that is too sure of itself makes it too large.
///
/// Scores that are not probabilities (of which some row is not in 0..=1 or does not add up to 1) are
/// made such by softmax, single ones by the logistic function.
#[derive(Clone, Debug)]
pub struct ExpectedRegret {
    metric: Metric,
    rows: u64,
    /// The sum over rows, the scores taken as probabilities.
    as_probabilities: f64,
    /// The sum over rows, the scores taken as logits.
    as_logits: f64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Probabilities,
    Logits,
    /// A batch held no scores.
    None,
}

impl ExpectedRegret {
    /// Begins. The metric tells classifiers from other models; a single score a row is that of a
    /// classifier where it is accuracy, F1 or AUC.
    pub fn new(metric: Metric) -> ExpectedRegret {
        let classifier =
            matches!(metric, Metric::Accuracy | Metric::F1 | Metric::Auc | Metric::Agreement);
        let kind = if classifier { Kind::Probabilities } else { Kind::None };
        ExpectedRegret { metric, rows: 0, as_probabilities: 0.0, as_logits: 0.0, kind }
    }

    /// Takes the outputs of both models for the same rows.
    ///
    /// # Errors
    /// If the models do not give as many scores.
    pub fn push(&mut self, a: &[Tensor], b: &[Tensor]) -> Result<(), MetricError> {
        if self.kind == Kind::None {
            return Ok(());
        }
        let single = |outputs: &[Tensor]| match self.metric {
            Metric::Agreement => None,
            _ => prediction::number_output(outputs).and_then(Tensor::to_f64),
        };
        let several = |outputs: &[Tensor]| {
            let scores = prediction::score_output(outputs)?;
            Some((scores.shape().last().copied()?, scores.to_f64()?))
        };
        let (classes, a, b) = match (several(a), several(b)) {
            (Some((classes, a)), Some((of_b, b))) if classes == of_b => (classes, a, b),
            (None, None) => match (single(a), single(b)) {
                (Some(a), Some(b)) => (1, a, b),
                _ => (0, Vec::new(), Vec::new()),
            },
            _ => (0, Vec::new(), Vec::new()),
        };
        if a.len() != b.len() {
            return Err(MetricError::Length { predictions: b.len(), labels: a.len() });
        }
        match classes {
            0 => self.kind = Kind::None,
            1 => self.push_single(&a, &b),
            _ => self.push_several(&a, &b, classes),
        }
        Ok(())
    }

    fn push_several(&mut self, a: &[f64], b: &[f64], classes: usize) {
        for (a, b) in a.chunks_exact(classes).zip(b.chunks_exact(classes)) {
            self.rows += 1;
            let Some(best) = largest(a).filter(|&best| a[best].is_finite()) else { continue };
            let in_range = a.iter().all(|p| (0.0..=1.0).contains(p));
            if !in_range || (a.iter().sum::<f64>() - 1.0).abs() > SUM_TOLERANCE {
                self.kind = Kind::Logits;
            }
            // Of a second model that gives no number the first's whole probability is lost.
            let chosen = largest(b);
            self.as_probabilities += a[best] - chosen.map_or(0.0, |class| a[class]);
            let sum: f64 = a.iter().filter(|x| !x.is_nan()).map(|x| (x - a[best]).exp()).sum();
            let kept = chosen.map_or(0.0, |class| (a[class] - a[best]).exp());
            self.as_logits += (1.0 - kept) / sum;
        }
    }

    fn push_single(&mut self, a: &[f64], b: &[f64]) {
        for (&a, &b) in a.iter().zip(b) {
            self.rows += 1;
            if a.is_nan() {
                continue;
            }
            if !(0.0..=1.0).contains(&a) {
                self.kind = Kind::Logits;
            }
            // |p − (1 − p)| where the answers differ.
            if (a > 0.5) != (b > 0.5) || b.is_nan() {
                self.as_probabilities += (2.0 * a - 1.0).abs();
            }
            if (a > 0.0) != (b > 0.0) || b.is_nan() {
                self.as_logits += (2.0 / (1.0 + (-a).exp()) - 1.0).abs();
            }
        }
    }

    /// The mean over all rows taken; `None` where there were none, or no scores.
    pub fn finish(self) -> Option<f64> {
        let sum = match self.kind {
            Kind::Probabilities => self.as_probabilities,
            Kind::Logits => self.as_logits,
            Kind::None => return None,
        };
        (self.rows > 0).then(|| sum / self.rows as f64)
    }
}

/// The position of the largest number, the first of equals; `None` if all are NaN.
fn largest(scores: &[f64]) -> Option<usize> {
    let numbers = scores.iter().enumerate().filter(|(_, x)| !x.is_nan());
    numbers.fold(None, |best, (i, x)| match best {
        Some(at) if *x <= scores[at] => Some(at),
        _ => Some(i),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(shape: &[usize], values: &[f32]) -> [Tensor; 1] {
        [Tensor::new(shape.to_vec(), values.to_vec()).unwrap()]
    }

    fn regret(metric: Metric, a: &[Tensor], b: &[Tensor]) -> Option<f64> {
        let mut regret = ExpectedRegret::new(metric);
        for row in 0..a[0].rows() {
            let cut = |all: &[Tensor]| all.iter().map(|t| t.slice_rows(row..row + 1)).collect();
            let (a, b): (Vec<Tensor>, Vec<Tensor>) = (cut(a), cut(b));
            regret.push(&a, &b).unwrap();
        }
        regret.finish()
    }

    #[track_caller]
    fn near(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < 1e-6, "{found:?}, not {expected}");
    }

    #[test]
    fn a_changed_answer_costs_what_the_first_model_thought_of_it() {
        let a = scores(&[2, 3], &[0.5, 0.3, 0.2, 0.1, 0.8, 0.1]);
        let b = scores(&[2, 3], &[0.3, 0.4, 0.3, 0.3, 0.4, 0.3]);
        near(regret(Metric::Accuracy, &a, &b), (0.5 - 0.3) / 2.0);
        near(regret(Metric::Agreement, &a, &a), 0.0);
        // The same as logits, of another offset in each row.
        let logits = |t: &[Tensor; 1]| {
            let values = t[0].to_f64().unwrap();
            let values: Vec<f32> = values.iter().map(|p| p.ln() as f32 + 7.0).collect();
            scores(&[2, 3], &values)
        };
        near(regret(Metric::Accuracy, &logits(&a), &logits(&b)), (0.5 - 0.3) / 2.0);
    }

    #[test]
    fn single_scores_are_those_of_two_classes() {
        let (a, b) = (scores(&[4], &[0.9, 0.6, 0.2, 0.4]), scores(&[4], &[0.7, 0.4, 0.1, 0.6]));
        near(regret(Metric::Accuracy, &a, &b), (0.2 + 0.2) / 4.0);
        let (a, b) = (scores(&[2, 1], &[3.0, 1.0]), scores(&[2, 1], &[2.0, -1.0]));
        near(regret(Metric::F1, &a, &b), (2.0 / (1.0 + (-1f64).exp()) - 1.0) / 2.0);
    }

    #[test]
    fn numbers_that_are_no_scores_have_none() {
        let values = scores(&[2], &[0.5, 3.0]);
        assert_eq!(regret(Metric::R2, &values, &values), None);
        assert_eq!(regret(Metric::Agreement, &values, &values), None);
        let label = [Tensor::new(vec![2], vec![0i64, 1]).unwrap()];
        assert_eq!(regret(Metric::Accuracy, &label, &label), None);
        assert_eq!(ExpectedRegret::new(Metric::Accuracy).finish(), None);
    }

    #[test]
    fn no_number_loses_all_and_is_never_negative() {
        let a = scores(&[2, 2], &[0.75, 0.25, f32::NAN, f32::NAN]);
        let b = scores(&[2, 2], &[f32::NAN, f32::NAN, 0.5, 0.5]);
        near(regret(Metric::Accuracy, &a, &b), 0.75 / 2.0);
        let infinite = scores(&[1, 2], &[f32::INFINITY, 0.0]);
        near(regret(Metric::Accuracy, &infinite, &infinite), 0.0);
    }
}
