use std::collections::{BTreeMap, BTreeSet};

use fewbits_runtime::{Tensor, Values};

use super::auc::AucScores;
use super::prediction::{self, Predictions, predictions};
use super::regression::Columns;
use super::{Metric, MetricError, NO_CLASS};
use crate::data::{LabelValues, Labels};

/// A metric fed batch by batch.
#[derive(Clone, Debug)]
pub struct Accumulator {
    metric: Metric,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Accuracy and F1.
    Classes {
        counts: BTreeMap<Class, ClassCounts>,
        rows: u64,
        /// Single scores wait for the last batch, which may show them not to be probabilities.
        scores: Vec<(f64, Class)>,
    },
    Auc(AucScores),
    /// R², MAE and RMSE.
    Columns(Columns),
    Perplexity {
        /// The sum of the tokens' negative log-likelihoods, in nats.
        nats: f64,
        tokens: u64,
    },
}

/// A label or a predicted class; numbers compare as numbers however they are held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Number(i64),
    Text(String),
}

#[derive(Clone, Copy, Debug, Default)]
struct ClassCounts {
    labels: u64,
    predicted: u64,
    right: u64,
}

impl Class {
    fn from_text(text: &str) -> Class {
        text.parse().map_or_else(|_| Class::Text(text.to_string()), Class::Number)
    }

    fn from_number(x: f64) -> Class {
        let whole = x.fract() == 0.0 && x.abs() < 2f64.powi(53);
        if whole { Class::Number(x as i64) } else { Class::Text(x.to_string()) }
    }

    /// The classes of all labels.
    pub(super) fn of_labels(labels: &Labels) -> Vec<Class> {
        match labels.values() {
            LabelValues::Class(v) => v.iter().map(|&x| Class::Number(x)).collect(),
            LabelValues::Text(v) => v.iter().map(|x| Class::from_text(x)).collect(),
            LabelValues::Number(v) => v.iter().map(|&x| Class::from_number(x)).collect(),
        }
    }
}

impl Accumulator {
    /// Begins `metric`.
    ///
    /// # Errors
    /// For [`Metric::Agreement`], which compares two models: see [`Agreement`](super::Agreement).
    pub fn new(metric: Metric) -> Result<Accumulator, MetricError> {
        let state = match metric {
            Metric::Accuracy | Metric::F1 => {
                State::Classes { counts: BTreeMap::new(), rows: 0, scores: Vec::new() }
            }
            Metric::Auc => State::Auc(AucScores::default()),
            Metric::R2 | Metric::Mae | Metric::Rmse => State::Columns(Columns::default()),
            Metric::Perplexity => State::Perplexity { nats: 0.0, tokens: 0 },
            Metric::Agreement => return Err(MetricError::TwoModels),
        };
        Ok(Accumulator { metric, state })
    }

    /// Takes a model's outputs and the labels of the same rows. Negative token ids are padding and
    /// do not count towards perplexity.
    ///
    /// # Errors
    /// If the metric cannot be read from such outputs or labels, or their lengths differ.
    pub fn push(&mut self, outputs: &[Tensor], labels: &Labels) -> Result<(), MetricError> {
        let metric = self.metric;
        let refuse = |needed| MetricError::Outputs {
            metric,
            needed,
            outputs: prediction::described(outputs),
        };
        match &mut self.state {
            State::Classes { counts, rows, scores } => {
                let found = predictions(outputs)
                    .ok_or_else(|| refuse("a label output or scores for each row"))?;
                same_length(found.len(), labels)?;
                let classes = Class::of_labels(labels);
                let predicted: Vec<Class> = match found {
                    Predictions::Class(v) => v.into_iter().map(Class::Number).collect(),
                    Predictions::Text(v) => v.iter().map(|x| Class::from_text(x)).collect(),
                    Predictions::Score(v) => {
                        scores.extend(v.into_iter().zip(classes));
                        return Ok(());
                    }
                };
                for (label, predicted) in classes.into_iter().zip(predicted) {
                    *rows += 1;
                    count(counts, label, predicted);
                }
                Ok(())
            }
            State::Auc(auc) => {
                let scores = prediction::score_output(outputs)
                    .or_else(|| prediction::number_output(outputs));
                let scores = scores.ok_or_else(|| refuse("float scores for each row"))?;
                auc.push(scores, labels)
            }
            State::Columns(columns) => {
                let (LabelValues::Class(_) | LabelValues::Number(_)) = labels.values() else {
                    return Err(MetricError::Labels {
                        metric,
                        needed: "numbers as labels, not text".to_string(),
                    });
                };
                let mut floats = outputs.iter().filter(|o| prediction::is_float(o));
                let output = match (floats.next(), floats.next()) {
                    (Some(only), None) => only,
                    _ => prediction::number_output(outputs)
                        .ok_or_else(|| refuse("one float output"))?,
                };
                let values = output.to_f64().ok_or_else(|| refuse("one float output"))?;
                same_length(values.len(), labels)?;
                let per_row = values.len().checked_div(labels.rows()).unwrap_or(1).max(1);
                columns.push(&values, labels.values(), per_row);
                Ok(())
            }
            State::Perplexity { nats, tokens } => {
                let LabelValues::Class(ids) = labels.values() else {
                    let needed = "integer token ids as labels".to_string();
                    return Err(MetricError::Labels { metric, needed });
                };
                let logits = prediction::score_output(outputs)
                    .ok_or_else(|| refuse("float logits for each token"))?;
                let vocabulary = logits.shape().last().copied().unwrap_or(1).max(1);
                same_length(logits.len() / vocabulary, labels)?;
                let mut token = vec![0.0; vocabulary];
                for (at, &id) in ids.iter().enumerate().filter(|(_, id)| **id >= 0) {
                    let position = usize::try_from(id).ok().filter(|&i| i < vocabulary);
                    let position = position.ok_or_else(|| MetricError::Labels {
                        metric,
                        needed: format!(
                            "token ids below the model's {vocabulary} scores, not {id}"
                        ),
                    })?;
                    let of_token = at * vocabulary..(at + 1) * vocabulary;
                    match logits.values() {
                        Values::F32(v) => {
                            token.iter_mut().zip(&v[of_token]).for_each(|(t, &x)| *t = f64::from(x))
                        }
                        Values::F64(v) => token.copy_from_slice(&v[of_token]),
                        _ => return Err(refuse("float logits for each token")),
                    }
                    *nats += negative_log_likelihood(&token, position);
                    *tokens += 1;
                }
                Ok(())
            }
        }
    }

    /// The metric over all rows taken.
    ///
    /// # Errors
    /// If there were none, if the labels are not of as many classes as the metric needs or not
    /// called as the model calls them, or the result is not finite.
    pub fn finish(self) -> Result<f64, MetricError> {
        let metric = self.metric;
        let result = match self.state {
            State::Classes { mut counts, mut rows, scores } => {
                rows += scores.len() as u64;
                count_scores(metric, &mut counts, scores)?;
                if rows == 0 {
                    return Err(MetricError::NoRows { metric });
                }
                comparable(metric, &counts)?;
                match metric {
                    Metric::F1 => f1(&counts),
                    _ => counts.values().map(|c| c.right).sum::<u64>() as f64 / rows as f64,
                }
            }
            State::Auc(auc) => auc.finish()?,
            State::Columns(columns) => {
                columns.finish(metric).ok_or(MetricError::NoRows { metric })?
            }
            State::Perplexity { tokens: 0, .. } => return Err(MetricError::NoRows { metric }),
            State::Perplexity { nats, tokens } => (nats / tokens as f64).exp(),
        };
        if result.is_finite() { Ok(result) } else { Err(MetricError::NotFinite { metric }) }
    }
}

pub(super) fn same_length(predictions: usize, labels: &Labels) -> Result<(), MetricError> {
    let labels = labels.values().len();
    if predictions == labels { Ok(()) } else { Err(MetricError::Length { predictions, labels }) }
}

fn count(counts: &mut BTreeMap<Class, ClassCounts>, label: Class, predicted: Class) {
    let right = u64::from(label == predicted);
    counts.entry(predicted).or_default().predicted += 1;
    let label = counts.entry(label).or_default();
    label.labels += 1;
    label.right += right;
}

/// Counts the classes that single scores mean: the greater of two above 0.5 where all scores are
/// probabilities, above 0 otherwise.
fn count_scores(
    metric: Metric,
    counts: &mut BTreeMap<Class, ClassCounts>,
    scores: Vec<(f64, Class)>,
) -> Result<(), MetricError> {
    let threshold = if scores.iter().all(|(s, _)| (0.0..=1.0).contains(s)) { 0.5 } else { 0.0 };
    let labels: BTreeSet<&Class> = scores.iter().map(|(_, label)| label).collect();
    let (low, high) = match Vec::from_iter(labels).as_slice() {
        &[low, high] => (low.clone(), high.clone()),
        // One class alone does not show the other's name; 0 and 1 are the usual ones.
        [Class::Number(-1)] => (Class::Number(-1), Class::Number(1)),
        [] | [Class::Number(_)] => (Class::Number(0), Class::Number(1)),
        other => {
            let needed = format!(
                "labels of two classes for a model of one score a row, not {}",
                other.len()
            );
            return Err(MetricError::Labels { metric, needed });
        }
    };
    for (score, label) in scores {
        let predicted = match score {
            score if score.is_nan() => Class::Number(NO_CLASS),
            score if score > threshold => high.clone(),
            _ => low.clone(),
        };
        count(counts, label, predicted);
    }
    Ok(())
}

/// Refuses labels that are names where the model predicts numbers, and the reverse: every row
/// would count as wrong, whatever the model does.
fn comparable(metric: Metric, counts: &BTreeMap<Class, ClassCounts>) -> Result<(), MetricError> {
    let kinds = |rows: fn(&ClassCounts) -> u64| {
        let of =
            counts.iter().filter(|(class, c)| **class != Class::Number(NO_CLASS) && rows(c) > 0);
        let (numbers, names): (Vec<_>, Vec<_>) =
            of.partition(|(class, _)| matches!(class, Class::Number(_)));
        (!numbers.is_empty(), !names.is_empty())
    };
    let needed = match (kinds(|c| c.labels), kinds(|c| c.predicted)) {
        ((false, true), (true, false)) => "labels that are class numbers, as the model predicts",
        ((true, false), (false, true)) => "labels that are class names, as the model predicts",
        _ => return Ok(()),
    };
    Err(MetricError::Labels { metric, needed: needed.to_string() })
}

/// F1 of the greater of two classes, or the mean over any other number of classes.
fn f1(counts: &BTreeMap<Class, ClassCounts>) -> f64 {
    let each: Vec<f64> = counts
        .values()
        .map(|c| {
            // 2PR/(P+R) with P = right/predicted and R = right/labels; the sum is never 0.
            2.0 * c.right as f64 / (c.labels + c.predicted) as f64
        })
        .collect();
    match each.as_slice() {
        [_, greater] => *greater,
        _ => each.iter().sum::<f64>() / each.len() as f64,
    }
}

/// −log softmax(logits)[position], with the largest logit taken out first so that no exponential
/// overflows.
fn negative_log_likelihood(logits: &[f64], position: usize) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    largest + sum.ln() - logits[position]
}
