use super::Metric;
use crate::data::Labels;
use crate::hint::Setting;

/// Why a metric cannot be computed. Every message says what to do.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// A name that is no metric.
    #[error(
        "'{name}' is not a metric; choose one of accuracy, f1, auc, r2, mae, rmse, perplexity, agreement"
    )]
    Unknown {
        /// The name given.
        name: String,
    },
    /// No output from which the metric can be read.
    #[error(
        "{metric} needs {needed}, but the model's outputs are {outputs}; choose another {}",
        Setting::Metric
    )]
    Outputs {
        /// The metric.
        metric: Metric,
        /// What it reads.
        needed: &'static str,
        /// The types and shapes that are there.
        outputs: String,
    },
    /// Labels of a kind that the metric cannot use.
    #[error("{metric} needs {needed}; choose another {} or {}", Setting::Metric, Setting::Label)]
    Labels {
        /// The metric.
        metric: Metric,
        /// What it needs.
        needed: String,
    },
    /// More or fewer predictions than labels.
    #[error(
        "the model gives {predictions} predictions for {labels} labels; check that the labels belong to these rows"
    )]
    Length {
        /// Predictions of one batch.
        predictions: usize,
        /// Labels of the same batch.
        labels: usize,
    },
    /// No rows were given.
    #[error("{metric} of no rows is not defined; give at least one row with a label")]
    NoRows {
        /// The metric.
        metric: Metric,
    },
    /// The result is not a number.
    #[error("{metric} is not finite: the model's outputs hold NaN or overflow on this data")]
    NotFinite {
        /// The metric.
        metric: Metric,
    },
    /// Agreement compares two models, never a model with labels.
    #[error(
        "agreement compares two models' predictions, not labels; choose another {} here",
        Setting::Metric
    )]
    TwoModels,
    /// Two models whose predictions are of different kinds.
    #[error("one model predicts {a} and the other {b}; compare models of the same task")]
    Kinds {
        /// What the first predicts.
        a: &'static str,
        /// What the second predicts.
        b: &'static str,
    },
}

/// Checks that there is a prediction for every label.
pub(super) fn same_length(predictions: usize, labels: &Labels) -> Result<(), MetricError> {
    let labels = labels.values().len();
    if predictions == labels { Ok(()) } else { Err(MetricError::Length { predictions, labels }) }
}
