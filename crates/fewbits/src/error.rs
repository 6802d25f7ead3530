use std::io;
use std::path::PathBuf;

use fewbits_engine::RuntimeError;
use fewbits_onnx::{Model, OnnxError};
use fewbits_quant::{QuantError, Rounding};

use crate::data::DataError;
use crate::hint::Setting;
use crate::metric::{Metric, MetricError};

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. Every message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file.
    #[error(transparent)]
    Onnx(OnnxError),
    /// A method of rounding without what it learns from.
    #[error(
        "'{tensor}' is to be rounded by {rounding}, which looks at data; give it with {}",
        Setting::Calibration
    )]
    NeedsData {
        /// The weight.
        tensor: String,
        /// The method.
        rounding: Rounding,
    },
    /// Running the model.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Running one of two models.
    #[error("{}: {source}", path.display())]
    Model {
        /// The model's file.
        path: PathBuf,
        /// What went wrong with it.
        source: RuntimeError,
    },
    /// A model whose inputs cannot be made up, or do not suit it.
    #[error("{}: cannot be timed on made-up inputs: {reason}; give inputs with {}", path.display(), Setting::Data)]
    MadeUp {
        /// The model's file.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// A number of rows that a model does not take.
    #[error("{}: takes {fixed} rows a call, not {batch}; leave {} out", path.display(), Setting::Batch)]
    Batch {
        /// The model's file.
        path: PathBuf,
        /// What it takes.
        fixed: usize,
        /// What it was to take.
        batch: usize,
    },
    /// Options that do not go together.
    #[error("{reason}")]
    Request {
        /// Which, and what does.
        reason: String,
    },
    /// A file that makes no sense for its target.
    #[error("{reason}")]
    Target {
        /// Why, and what does.
        reason: String,
    },
    /// The data file.
    #[error(transparent)]
    Data(Box<DataError>),
    /// A quantized model that is worse than allowed.
    #[error(
        "{model} {metric} within {max_drop} of the float model's {before:.4}: it is {after:.4}; nothing is written"
    )]
    Worse {
        /// Which model does not keep what.
        model: &'static str,
        /// The metric.
        metric: Metric,
        /// The float model's.
        before: f64,
        /// That of the quantized model, the best one where several were measured.
        after: f64,
        /// How much worse it may be.
        max_drop: f64,
    },
    /// Measuring.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// Data without labels where a metric needs them.
    #[error(
        "{}: no labels found (y, labels, targets); name them with {}, or compare without labels by {}",
        path.display(), Setting::Label.to("NAME"), Setting::Metric.to(Metric::Agreement)
    )]
    NoLabels {
        /// The data file.
        path: PathBuf,
    },
    /// Calibration data that the model cannot be calibrated on.
    #[error("{}: cannot calibrate: {reason}", path.display())]
    Calibration {
        /// The data file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A model that cannot be calibrated whatever the data are.
    #[error(
        "{file}: cannot calibrate: {constant}, so are activations computed from it; mend the model, or \
         use {} without {}", Setting::Recipe.to("weights"), Setting::Calibration
    )]
    NotFinite {
        /// The model's file.
        file: String,
        /// The constant, its element, and what that is.
        constant: String,
    },
    /// A model that fails on the calibration data.
    #[error(
        "{}: cannot calibrate: {source}; check that the model takes this data, or use {} or {}",
        path.display(), Setting::Recipe.to("weights"), Setting::Recipe.to("dynamic")
    )]
    CalibrationRun {
        /// The data file.
        path: PathBuf,
        /// What the executor said.
        source: RuntimeError,
    },
    /// A model whose activations all lie behind an operator that cannot be computed.
    #[error(
        "{file}: cannot calibrate: the executor lacks {lacking}, and all that {} would \
         quantize lies behind it; use {} or {}",
        Setting::Recipe.to("static"), Setting::Recipe.to("weights"), Setting::Recipe.to("dynamic")
    )]
    OutOfReach {
        /// The model's file.
        file: String,
        /// The operators and their nodes.
        lacking: String,
    },
    /// A tensor that cannot be quantized as its plan says.
    #[error("tensor '{tensor}' cannot be quantized as planned: {source}; plan it as float")]
    Quant {
        /// The tensor.
        tensor: String,
        /// Why not.
        source: QuantError,
    },
    /// A model that no runtime would open: a fault of fewbits.
    #[error(
        "internal error: the quantized model is invalid at '{place}': {reason}; nothing is written, \
         please report it with the model"
    )]
    Invalid {
        /// The node or value.
        place: String,
        /// What contradicts what there.
        reason: String,
    },
    /// Nothing in the model can be quantized.
    #[error("{file}: nothing to quantize: {reason}")]
    NothingToQuantize {
        /// The model's file.
        file: String,
        /// What hides its weights, or that there are none.
        reason: String,
    },
    /// A plan that does not belong to the model.
    #[error("the plan does not fit the model: {reason}; make one with {}", Setting::SavedPlan)]
    PlanMismatch {
        /// What differs.
        reason: String,
    },
    /// A plan file that cannot be read.
    #[error("{}: not a plan: {reason}; make one with {}", path.display(), Setting::SavedPlan)]
    PlanFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A state file that a search cannot go on from.
    #[error("{}: cannot go on from it: {reason}; remove it, or name another with {}", path.display(), Setting::Resume)]
    TuneState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of finished layers that `quantize` cannot go on from.
    #[error("{}: cannot go on from it: {reason}; remove it, or name another with {}", path.display(), Setting::Resume)]
    LayersState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An output that would replace a file.
    #[error("{}: {reason}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why it is not written, and what to do.
        reason: String,
    },
}

/// Says why an output is not written that is there, and what to do.
pub(crate) fn exists() -> String {
    format!("exists already; add {} to replace it", Setting::Replace)
}

/// A model's file as messages name it.
pub(crate) fn file_of(model: &Model) -> String {
    model.path().map_or("the model".to_string(), |path| path.display().to_string())
}

impl From<DataError> for Error {
    fn from(error: DataError) -> Error {
        Error::Data(Box::new(error))
    }
}

impl From<OnnxError> for Error {
    fn from(error: OnnxError) -> Error {
        match error {
            OnnxError::Exists { path } => Error::Output { path, reason: exists() },
            error => Error::Onnx(error),
        }
    }
}
