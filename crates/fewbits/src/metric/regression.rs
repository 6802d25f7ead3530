use fewbits_engine::Tensor;

use super::error::same_length;
use super::{Metric, MetricError, prediction};
use crate::data::{LabelValues, Labels};

/// What a regression answered, and how many values it gives a row; refuses labels that are text.
pub(super) fn values(
    metric: Metric,
    outputs: &[Tensor],
    labels: &Labels,
) -> Result<(Vec<f64>, usize), MetricError> {
    let refuse = || MetricError::Outputs {
        metric,
        needed: "one float output",
        outputs: prediction::described(outputs),
    };
    let (LabelValues::Class(_) | LabelValues::Number(_)) = labels.values() else {
        let needed = "numbers as labels, not text".to_string();
        return Err(MetricError::Labels { metric, needed });
    };
    let mut floats = outputs.iter().filter(|o| prediction::is_float(o));
    let output = match (floats.next(), floats.next()) {
        (Some(only), None) => only,
        _ => prediction::number_output(outputs).ok_or_else(refuse)?,
    };
    let values = output.to_f64().ok_or_else(refuse)?;
    same_length(values.len(), labels)?;
    let per_row = values.len().checked_div(labels.rows()).unwrap_or(1).max(1);
    Ok((values, per_row))
}

/// The number that a label is; NaN for text, which [`values`] refuses.
pub(super) fn number(labels: &LabelValues, i: usize) -> f64 {
    match labels {
        LabelValues::Class(v) => v[i] as f64,
        LabelValues::Number(v) => v[i],
        LabelValues::Text(_) => f64::NAN,
    }
}

/// Running sums for R², MAE and RMSE, for each column of the output.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns(Vec<Column>);

#[derive(Clone, Copy, Debug, Default)]
struct Column {
    count: f64,
    /// The labels' mean so far.
    mean: f64,
    /// The sum of the labels' squared distances from their mean.
    spread: f64,
    absolute_errors: f64,
    squared_errors: f64,
}

impl Columns {
    /// Takes rows of `per_row` values and as many labels, of which there must be no text.
    pub fn push(&mut self, values: &[f64], labels: &LabelValues, per_row: usize) {
        self.0.resize(self.0.len().max(per_row), Column::default());
        for (i, &value) in values.iter().enumerate() {
            self.0[i % per_row].push(value, number(labels, i), 1.0);
        }
    }

    /// The metric of `values` and their `labels`, `per_row` of each for a row that counts
    /// `times_drawn` times; `None` without rows.
    pub fn of_drawn(
        metric: Metric,
        values: &[f64],
        labels: &[f64],
        per_row: usize,
        times_drawn: &[u32],
    ) -> Option<f64> {
        let mut columns = Columns(vec![Column::default(); per_row]);
        let rows = values.chunks_exact(per_row).zip(labels.chunks_exact(per_row)).zip(times_drawn);
        for ((values, labels), &times) in rows.filter(|(_, times)| **times > 0) {
            for ((column, &value), &label) in columns.0.iter_mut().zip(values).zip(labels) {
                column.push(value, label, f64::from(times));
            }
        }
        columns.finish(metric)
    }

    /// The metric, the mean over the columns; `None` without rows.
    pub fn finish(&self, metric: Metric) -> Option<f64> {
        let each = self.0.iter().map(|c| match metric {
            Metric::Mae => c.absolute_errors / c.count,
            Metric::Rmse => (c.squared_errors / c.count).sqrt(),
            _ => c.r2(),
        });
        (!self.0.is_empty()).then(|| each.sum::<f64>() / self.0.len() as f64)
    }
}

impl Column {
    fn push(&mut self, value: f64, label: f64, times: f64) {
        self.count += times;
        // Welford's update: exact where the plain sum of squares would cancel.
        let before = label - self.mean;
        self.mean += times * before / self.count;
        self.spread += times * before * (label - self.mean);
        self.absolute_errors += times * (value - label).abs();
        self.squared_errors += times * (value - label) * (value - label);
    }

    /// 1 − residual/total; of constant labels 1 if all are met and 0 if not, as scikit-learn has it.
    fn r2(&self) -> f64 {
        match (self.squared_errors == 0.0, self.spread == 0.0) {
            (true, _) => 1.0,
            (false, true) if self.squared_errors.is_finite() => 0.0,
            _ => 1.0 - self.squared_errors / self.spread,
        }
    }
}
