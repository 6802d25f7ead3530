use std::collections::BTreeMap;

use fewbits_engine::{Tensor, Values};

use super::auc::AucScores;
use super::class::{Class, ClassCounts, comparable, count, count_scores, f1};
use super::error::same_length;
use super::prediction::{self, Predictions, predictions};
use super::regression::{self, Columns};
use super::{Metric, MetricError};
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
            State::Auc(auc) => auc.push(outputs, labels),
            State::Columns(columns) => {
                let (values, per_row) = regression::values(metric, outputs, labels)?;
                columns.push(&values, labels.values(), per_row);
                Ok(())
            }
            State::Perplexity { nats, tokens } => for_each_token(outputs, labels, |_, of_token| {
                *nats += of_token;
                *tokens += 1;
            }),
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
                    Metric::F1 => f1(&counts.into_values().collect::<Vec<_>>()),
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

/// Calls `visit` with the place and the negative log-likelihood, in nats, of every label that is not
/// padding.
pub(super) fn for_each_token(
    outputs: &[Tensor],
    labels: &Labels,
    mut visit: impl FnMut(usize, f64),
) -> Result<(), MetricError> {
    let metric = Metric::Perplexity;
    let refuse = || MetricError::Outputs {
        metric,
        needed: "float logits for each token",
        outputs: prediction::described(outputs),
    };
    let LabelValues::Class(ids) = labels.values() else {
        let needed = "integer token ids as labels".to_string();
        return Err(MetricError::Labels { metric, needed });
    };
    let logits = prediction::score_output(outputs).ok_or_else(refuse)?;
    let vocabulary = logits.shape().last().copied().unwrap_or(1).max(1);
    same_length(logits.len() / vocabulary, labels)?;
    let mut token = vec![0.0; vocabulary];
    for (at, &id) in ids.iter().enumerate().filter(|(_, id)| **id >= 0) {
        let position = usize::try_from(id).ok().filter(|&i| i < vocabulary);
        let position = position.ok_or_else(|| MetricError::Labels {
            metric,
            needed: format!("token ids below the model's {vocabulary} scores, not {id}"),
        })?;
        let of_token = at * vocabulary..(at + 1) * vocabulary;
        match logits.values() {
            Values::F32(v) => {
                token.iter_mut().zip(&v[of_token]).for_each(|(t, &x)| *t = f64::from(x))
            }
            Values::F64(v) => token.copy_from_slice(&v[of_token]),
            _ => return Err(refuse()),
        }
        visit(at, negative_log_likelihood(&token, position));
    }
    Ok(())
}

/// Computes −log softmax(logits) at a position.
fn negative_log_likelihood(logits: &[f64], position: usize) -> f64 {
    log_sum_exp(logits) - logits[position]
}

/// The logarithm of what softmax divides by, with the largest logit taken out first so that no
/// exponential overflows.
pub(crate) fn log_sum_exp(logits: &[f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    largest + sum.ln()
}
