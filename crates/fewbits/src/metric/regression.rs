use super::Metric;
use crate::data::LabelValues;

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
        let label = |i: usize| match labels {
            LabelValues::Class(v) => v[i] as f64,
            LabelValues::Number(v) => v[i],
            LabelValues::Text(_) => f64::NAN,
        };
        for (i, &value) in values.iter().enumerate() {
            self.0[i % per_row].push(value, label(i));
        }
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
    fn push(&mut self, value: f64, label: f64) {
        self.count += 1.0;
        // Welford's update: exact where the plain sum of squares would cancel.
        let before = label - self.mean;
        self.mean += before / self.count;
        self.spread += before * (label - self.mean);
        self.absolute_errors += (value - label).abs();
        self.squared_errors += (value - label) * (value - label);
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
