//! What a report of measured models holds: plain data, drawn as one page.

use serde::Serialize;

use crate::metric::Metric;
use crate::plan::Plan;

/// Everything that is on the page of `sweep --report` and `tune --report`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was asked: `fashion.onnx: how many bits?`
    pub title: String,
    /// The answer, in one or two sentences: what is read first.
    pub verdict: String,
    /// The task metric of every point.
    pub metric: Metric,
    /// The drop that is allowed, where one was asked for.
    pub max_drop: Option<f64>,
    /// The float model.
    pub reference: Point,
    /// Every measured quantized model, in the order of the table.
    pub points: Vec<Point>,
    /// What each tensor costs alone; may be empty.
    pub sensitivity: Vec<Sensitivity>,
    /// The weights of the layers that lose most; may be empty.
    pub histograms: Vec<WeightHistogram>,
    /// The plan of the chosen model.
    pub plan: Option<Plan>,
    /// Where it was measured: name and value, such as CPU, threads, kernels, system, fewbits' own
    /// version, data and rows.
    pub environment: Vec<(String, String)>,
    /// Each figure, and how it was measured.
    pub how: Vec<(String, String)>,
    /// What a reader must know: too few rows for the claim, energy not available.
    pub notes: Vec<String>,
}

/// One measured model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// What tells it from the others, in few letters: its width (`4`), or `mix`.
    pub label: String,
    /// The task metric.
    pub metric: f64,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The fraction of rows on which it predicts what the float model predicts.
    pub agreement: Option<f64>,
    /// The median time of one call.
    pub latency_ms: Option<f64>,
    /// Energy of one inference, in joules.
    pub energy_j: Option<f64>,
    /// The confidence interval of the metric's drop, as [`Metric::drop`] counts it.
    pub drop_interval: Option<(f64, f64)>,
    /// What became of it.
    pub choice: Choice,
}

impl Point {
    /// A measured model of which nothing else is known.
    pub fn new(label: &str, metric: f64, file_bytes: u64, weight_bytes: u64) -> Point {
        Point {
            label: label.to_string(),
            metric,
            file_bytes,
            weight_bytes,
            agreement: None,
            latency_ms: None,
            energy_j: None,
            drop_interval: None,
            choice: Choice::Measured,
        }
    }
}

/// What became of a measured model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// It was measured.
    Measured,
    /// It is the one that the verdict is about.
    Chosen,
}

/// What one tensor costs when it alone is quantized.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The tensor's name.
    pub tensor: String,
    /// What it became.
    pub scheme: String,
    /// Bytes that this takes off the file.
    pub file_bytes_saved: u64,
    /// The root mean square of what changes in the model's outputs, over that of the outputs.
    pub relative_error: f64,
    /// The drop of the task metric, where it was measured.
    pub drop: Option<f64>,
}

/// The values of one tensor before and after quantization, counted in the same bins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightHistogram {
    /// The tensor's name.
    pub tensor: String,
    /// What it became.
    pub scheme: String,
    /// Where the first bin begins.
    pub low: f32,
    /// Where the last bin ends.
    pub high: f32,
    /// Values in each bin, all of one width, of the float tensor.
    pub before: Vec<u64>,
    /// The same of what its integers stand for.
    pub after: Vec<u64>,
}

impl Report {
    /// The model that the verdict is about, if it is about one.
    pub fn chosen(&self) -> Option<&Point> {
        self.points.iter().find(|point| point.choice == Choice::Chosen)
    }
}
