//! How good a model's answers are, and how far two models agree.
//!
//! A [`Accumulator`] takes a model's outputs batch by batch beside the labels and keeps only what
//! the metric needs: counts and sums; for AUC, and for classifiers of one score, that score of
//! every row. A [`PairedDrop`] beside it says how sure the difference of two models is.

mod accumulator;
mod agreement;
mod auc;
mod class;
mod error;
mod paired;
mod prediction;
mod regression;
mod regret;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use fewbits_engine::Tensor;
use serde::{Deserialize, Serialize};

pub use accumulator::Accumulator;
pub(crate) use accumulator::log_sum_exp;
pub use agreement::{Agreement, QUANTITY_TOLERANCE};
pub use error::MetricError;
pub use paired::PairedDrop;
pub(crate) use prediction::score_output;
pub use prediction::{NO_CLASS, Predictions, predictions};
pub use regret::ExpectedRegret;

use crate::data::{LabelValues, Labels};

/// A measure of a model on data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The fraction of rows whose class is right.
    Accuracy,
    /// The harmonic mean of precision and recall: of the greater class where labels and
    /// predictions together hold two; otherwise the mean over all classes (macro).
    F1,
    /// The area under the ROC curve, ties counted half; of several classes, the mean over each
    /// one against the rest (macro).
    Auc,
    /// The coefficient of determination; of several columns, their mean.
    R2,
    /// The mean absolute error.
    Mae,
    /// The root of the mean squared error; of several columns, the mean of their roots.
    Rmse,
    /// The exponential of the mean negative log-likelihood of the labels, in nats.
    Perplexity,
    /// The fraction of rows on which two models predict the same: see [`Agreement`].
    Agreement,
}

/// Drops below this are those of floating point, not of the models.
pub(crate) const DROP_TOLERANCE: f64 = 1e-9;

const NAMES: [(Metric, &str); 8] = [
    (Metric::Accuracy, "accuracy"),
    (Metric::F1, "f1"),
    (Metric::Auc, "auc"),
    (Metric::R2, "r2"),
    (Metric::Mae, "mae"),
    (Metric::Rmse, "rmse"),
    (Metric::Perplexity, "perplexity"),
    (Metric::Agreement, "agreement"),
];

impl Metric {
    /// The usual metric for such labels and a model of such outputs (of any batch):
    ///
    /// - perplexity for integer labels of rank 2 and float outputs of rank 3;
    /// - accuracy for class names, for integers, and for whole floats where the model has a
    ///   label output, or scores of several classes for one label a row;
    /// - R² for other floats, and for more than two integers where the model gives one float.
    pub fn default_for(labels: &Labels, outputs: &[Tensor]) -> Metric {
        let gives_label = prediction::label_output(outputs).is_some();
        let gives_scores = prediction::score_output(outputs);
        match labels.values() {
            LabelValues::Text(_) => Metric::Accuracy,
            LabelValues::Class(_)
                if labels.shape().len() == 2
                    && gives_scores.is_some_and(|s| s.shape().len() == 3) =>
            {
                Metric::Perplexity
            }
            LabelValues::Class(v) => {
                let one_float = !gives_label && gives_scores.is_none();
                let several = v.iter().collect::<HashSet<_>>().len() > 2;
                if one_float && several { Metric::R2 } else { Metric::Accuracy }
            }
            LabelValues::Number(v) => {
                let whole = v.iter().all(|x| x.fract() == 0.0);
                let one_of_classes = labels.shape().len() == 1 && gives_scores.is_some();
                if whole && (gives_label || one_of_classes) { Metric::Accuracy } else { Metric::R2 }
            }
        }
    }

    /// Whether more is better.
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Metric::Mae | Metric::Rmse | Metric::Perplexity)
    }

    /// How much worse `after` is than `before`; negative if it is better.
    pub fn drop(self, before: f64, after: f64) -> f64 {
        if self.higher_is_better() { before - after } else { after - before }
    }

    /// What is worse than `before` by `drop`.
    pub fn after_drop(self, before: f64, drop: f64) -> f64 {
        if self.higher_is_better() { before - drop } else { before + drop }
    }

    /// Whether a drop is within what is allowed; one that is not a number is not.
    pub fn allows(max_drop: f64, drop: f64) -> bool {
        drop <= max_drop + DROP_TOLERANCE
    }

    /// The name, as on the command line and in JSON.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(metric, _)| *metric == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Metric {
    type Err = MetricError;

    fn from_str(name: &str) -> Result<Metric, MetricError> {
        let found = NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name));
        found
            .map(|(metric, _)| *metric)
            .ok_or_else(|| MetricError::Unknown { name: name.to_string() })
    }
}

#[cfg(test)]
mod tests;
