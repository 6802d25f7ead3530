//! Two saved models on the same data.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fewbits_onnx::Model;
use fewbits_runtime::{RunOptions, Tensor, Values};
use serde::Serialize;

use crate::data::Dataset;
use crate::measure::{Latency, latencies};
use crate::metric::{Accumulator, Agreement, Metric, MetricError};
use crate::padding::Tokens;
use crate::progress::Progress;
use crate::run::{BATCH_ROWS, one_call, run_rows, runner};
use crate::{Error, Result};

/// Differences below this are those of floating point, not of the models.
const DROP_TOLERANCE: f64 = 1e-9;
/// What timing both models may take.
const TIMING: Duration = Duration::from_millis(800);

/// What was measured of two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The task metric.
    pub metric: Metric,
    /// Rows of data.
    pub rows: usize,
    /// The first model, usually the float one.
    pub a: Side,
    /// The second model.
    pub b: Side,
    /// How much worse the second is by the metric; negative if better.
    pub drop: f64,
    /// The fraction of rows on which both predict the same.
    pub agreement: f64,
    /// The largest difference between two float outputs.
    pub max_abs_error: f64,
    /// Signal to quantization noise of the float outputs in decibels; none if they are equal.
    pub sqnr_db: Option<f64>,
    /// All of it in one sentence.
    pub verdict: String,
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// The file.
    pub path: PathBuf,
    /// The task metric.
    pub metric: f64,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The time of one call with one row.
    pub latency_ms: Latency,
    /// The largest resident memory of a process that loads and runs the model; none where it was
    /// not measured.
    pub peak_rss_bytes: Option<u64>,
}

/// Gives the largest resident memory, in bytes, of a process that runs the model at a path.
pub type PeakMemory<'a> = &'a dyn Fn(&Path) -> Option<u64>;

/// How to compare.
#[derive(Default)]
pub struct CompareOptions<'a> {
    /// The metric; the usual one for the labels if not given.
    pub metric: Option<Metric>,
    /// Threads and the like.
    pub run: RunOptions,
    /// Measures the peak memory of a process that runs the model at a path.
    pub peak_memory: Option<PeakMemory<'a>>,
    /// The drop that is allowed; the verdict says whether it is kept.
    pub max_drop: Option<f64>,
}

impl Comparison {
    /// Whether the second model is worse by more than `max_drop`. A metric that is not a number
    /// counts as worse.
    pub fn exceeds(&self, max_drop: f64) -> bool {
        self.drop.is_nan() || self.drop > max_drop + DROP_TOLERANCE
    }
}

/// Runs two models over the same data and compares what they answer, what they weigh and how
/// fast they are.
pub fn compare(
    a: &Model,
    b: &Model,
    data: &Dataset,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<Comparison> {
    let runners = [runner(a, &options.run)?, runner(b, &options.run)?];
    let mut agreement = Agreement::default();
    let mut error = OutputError::default();
    let mut task: Option<TaskMetric> = None;
    progress.start("comparing", data.rows() as u64);
    for rows in data.batches(BATCH_ROWS) {
        let [a, b] = [
            tensors(run_rows(&runners[0], data, rows.clone())?),
            tensors(run_rows(&runners[1], data, rows.clone())?),
        ];
        agreement.push(&a, &b)?;
        match Tokens::of(&data.batch(rows.clone())) {
            None => error.push(&a, &b)?,
            Some(tokens) => error.push(&tokens.only(&a), &tokens.only(&b))?,
        }
        let task = match &mut task {
            Some(task) => task,
            None => task.insert(TaskMetric::new(options.metric, data, &a)?),
        };
        task.push(data, rows.clone(), &a, &b)?;
        progress.advance(rows.len() as u64);
    }
    let task = task.expect("a data set has at least one row");
    let metric = task.metric;
    let agreement = agreement.finish()?;
    let (metric_a, metric_b) = task.finish(agreement)?;
    let calls = [one_call(&runners[0], data)?, one_call(&runners[1], data)?];
    let times = latencies(&[&runners[0], &runners[1]], &[&calls[0], &calls[1]], TIMING)?;
    let side = |model: &Model, metric: f64, latency_ms: Latency| {
        let path = model.path().unwrap_or(Path::new("(in memory)")).to_path_buf();
        Side {
            metric,
            file_bytes: model.file_bytes(),
            weight_bytes: model.weight_bytes(),
            latency_ms,
            peak_rss_bytes: options.peak_memory.and_then(|measure| measure(&path)),
            path,
        }
    };
    let mut comparison = Comparison {
        metric,
        rows: data.rows(),
        a: side(a, metric_a, times[0]),
        b: side(b, metric_b, times[1]),
        drop: metric.drop(metric_a, metric_b),
        agreement,
        max_abs_error: error.max_abs,
        sqnr_db: error.sqnr_db(),
        verdict: String::new(),
    };
    comparison.verdict = verdict(&comparison, options.max_drop);
    progress.finish();
    Ok(comparison)
}

/// The metric of one model on `data`.
pub fn evaluate(model: &Model, data: &Dataset, metric: Metric, run: &RunOptions) -> Result<f64> {
    let labels =
        data.labels().ok_or_else(|| Error::NoLabels { path: data.path().to_path_buf() })?;
    let runner = runner(model, run)?;
    let mut accumulator = Accumulator::new(metric)?;
    for rows in data.batches(BATCH_ROWS) {
        let outputs = tensors(run_rows(&runner, data, rows.clone())?);
        accumulator.push(&outputs, &labels.slice_rows(rows))?;
    }
    Ok(accumulator.finish()?)
}

/// The task metric of both models, fed batch by batch.
struct TaskMetric {
    metric: Metric,
    /// None for agreement, which needs no labels.
    of_models: Option<[Accumulator; 2]>,
}

impl TaskMetric {
    fn new(asked: Option<Metric>, data: &Dataset, outputs: &[Tensor]) -> Result<TaskMetric> {
        let metric = match (asked, data.labels()) {
            (Some(metric), _) => metric,
            (None, Some(labels)) => Metric::default_for(labels, outputs),
            (None, None) => return Err(Error::NoLabels { path: data.path().to_path_buf() }),
        };
        let of_models = match metric {
            Metric::Agreement => None,
            metric => Some([Accumulator::new(metric)?, Accumulator::new(metric)?]),
        };
        Ok(TaskMetric { metric, of_models })
    }

    fn push(
        &mut self,
        data: &Dataset,
        rows: Range<usize>,
        a: &[Tensor],
        b: &[Tensor],
    ) -> Result<()> {
        let Some([of_a, of_b]) = &mut self.of_models else { return Ok(()) };
        let labels =
            data.labels().ok_or_else(|| Error::NoLabels { path: data.path().to_path_buf() })?;
        let labels = labels.slice_rows(rows);
        of_a.push(a, &labels)?;
        of_b.push(b, &labels)?;
        Ok(())
    }

    fn finish(self, agreement: f64) -> Result<(f64, f64)> {
        match self.of_models {
            Some([a, b]) => Ok((a.finish()?, b.finish()?)),
            None => Ok((1.0, agreement)),
        }
    }
}

fn tensors(outputs: Vec<(String, Tensor)>) -> Vec<Tensor> {
    outputs.into_iter().map(|(_, tensor)| tensor).collect()
}

/// The distance between the float outputs of two models.
#[derive(Default)]
pub(crate) struct OutputError {
    max_abs: f64,
    signal: f64,
    noise: f64,
}

impl OutputError {
    /// Adds outputs of `b` beside those of `a`; only float ones count.
    pub(crate) fn push(&mut self, a: &[Tensor], b: &[Tensor]) -> Result<()> {
        for (a, b) in a.iter().zip(b) {
            let is_float = |t: &Tensor| matches!(t.values(), Values::F32(_) | Values::F64(_));
            let (true, true, Some(a), Some(b)) = (is_float(a), is_float(b), a.to_f64(), b.to_f64())
            else {
                continue;
            };
            if a.len() != b.len() {
                return Err(MetricError::Length { predictions: b.len(), labels: a.len() }.into());
            }
            for (x, y) in a.iter().zip(&b).filter(|(x, _)| x.is_finite()) {
                // NaN where the first model gives a number is as wrong as can be.
                let error = if y.is_finite() { (x - y).abs() } else { f64::INFINITY };
                self.max_abs = self.max_abs.max(error);
                self.signal += x * x;
                self.noise += error * error;
            }
        }
        Ok(())
    }

    /// Noise over signal, infinite where only `b` is not finite; `None` where there was no signal.
    pub(crate) fn relative(&self) -> Option<f64> {
        (self.signal > 0.0).then(|| self.noise / self.signal)
    }

    fn sqnr_db(&self) -> Option<f64> {
        (self.noise > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

fn verdict(c: &Comparison, max_drop: Option<f64>) -> String {
    let metric = if c.drop.abs() <= DROP_TOLERANCE {
        format!("{} unchanged at {:.4}", c.metric, c.b.metric)
    } else {
        let direction = if c.drop > 0.0 { "worse" } else { "better" };
        format!(
            "{} {:.4} became {:.4}, {:.4} {direction}",
            c.metric,
            c.a.metric,
            c.b.metric,
            c.drop.abs()
        )
    };
    let size = match c.b.file_bytes as f64 / c.a.file_bytes.max(1) as f64 {
        r if r < 1.0 => format!("the file is {:.1} times smaller", 1.0 / r),
        1.0 => "the file is as large".to_string(),
        r => format!("the file is {r:.2} times LARGER"),
    };
    let speed = match c.b.latency_ms.median / c.a.latency_ms.median {
        r if r < 0.95 => format!("a call is {:.2} times faster", 1.0 / r),
        r if r <= 1.05 => "a call takes as long".to_string(),
        r => format!("a call is {r:.2} times SLOWER"),
    };
    let limit = match max_drop {
        None => String::new(),
        Some(max) if c.exceeds(max) => {
            format!("; the drop of {:.4} is beyond the {max} allowed", c.drop)
        }
        Some(max) => format!("; within the drop of {max} allowed"),
    };
    format!("{metric}; {:.2} % of answers agree; {size}; {speed}{limit}", 100.0 * c.agreement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_outputs_have_no_noise() {
        let t = Tensor::new(vec![2], vec![1.0f32, 2.0]).unwrap();
        let mut error = OutputError::default();
        error.push(std::slice::from_ref(&t), std::slice::from_ref(&t)).unwrap();
        assert_eq!((error.max_abs, error.sqnr_db()), (0.0, None));
        let noisy = Tensor::new(vec![2], vec![1.0f32, 2.5]).unwrap();
        error.push(&[t], &[noisy]).unwrap();
        assert_eq!(error.max_abs, 0.5);
        assert!((error.sqnr_db().unwrap() - 10.0 * (10.0f64 / 0.25).log10()).abs() < 1e-9);
        assert_eq!(error.relative(), Some(0.25 / 10.0));
    }

    #[test]
    fn a_number_lost_is_the_worst_error_and_silence_is_none() {
        let of = |a: [f32; 2], b: [f32; 2]| {
            let mut error = OutputError::default();
            let tensor = |values: [f32; 2]| Tensor::new(vec![2], values.to_vec()).unwrap();
            error.push(&[tensor(a)], &[tensor(b)]).unwrap();
            error.relative()
        };
        assert_eq!(of([1.0, 2.0], [1.0, f32::NAN]), Some(f64::INFINITY));
        assert_eq!(of([1.0, f32::NEG_INFINITY], [1.0, f32::NEG_INFINITY]), Some(0.0));
        assert_eq!(of([0.0, 0.0], [1.0, 0.0]), None);
    }
}
