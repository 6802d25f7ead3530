//! Two saved models on the same data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fewbits_onnx::Model;
use fewbits_runtime::RunOptions;
use serde::Serialize;

use crate::Result;
use crate::data::Dataset;
use crate::evaluate::Baseline;
use crate::measure::{Latency, latencies};
use crate::metric::Metric;
use crate::progress::Progress;
use crate::run::{one_call, runner};

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
    progress.start("comparing", 2 * data.rows() as u64);
    let (baseline, measured) =
        Baseline::beside(&runners[0], &[&runners[1]], data, options.metric, progress)?;
    let [of_b] = measured.as_slice() else { unreachable!("one model was measured") };
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
        metric: baseline.metric(),
        rows: data.rows(),
        a: side(a, baseline.value(), times[0]),
        b: side(b, of_b.metric, times[1]),
        drop: of_b.drop,
        agreement: of_b.agreement,
        max_abs_error: of_b.max_abs_error,
        sqnr_db: of_b.sqnr_db,
        verdict: String::new(),
    };
    comparison.verdict = verdict(&comparison, options.max_drop);
    progress.finish();
    Ok(comparison)
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
