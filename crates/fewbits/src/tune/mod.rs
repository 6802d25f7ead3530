//! The smallest, or the fastest, model whose measured drop stays within a limit.
//!
//! 1. What there is to choose, and what each option costs alone, is measured on a sample of the
//!    calibration data: the widths of weights ([`widths`]) for the smallest file, which operators
//!    stay float ([`operators`]) for the fastest model.
//! 2. [`search`] chooses; each choice is saved, opened again and measured on data of its own
//!    ([`tuner`]). The best so far is always in its place.
//!
//! The search depends on nothing but what was measured, and that is kept ([`state`]): a search that
//! goes on after it was stopped ends with the same model as one that was not.

mod acceptance;
mod candidates;
mod objective;
mod operators;
mod page;
mod search;
mod state;
mod tuner;
mod verdict;
mod widths;

use std::path::Path;
use std::time::{Duration, Instant};

use fewbits_engine::RunOptions;
use fewbits_onnx::{Model, Replace};
use serde::Serialize;

use crate::adjust::adjust;
use crate::apply::source_digest;
use crate::data::Dataset;
use crate::digest::short_digest;
use crate::error::file_of;
use crate::evaluate::Baseline;
use crate::growth::{most_bytes, source_bytes, without_growth};
use crate::methods::Methods;
use crate::metric::Metric;
use crate::never_slower::Slower;
use crate::output::{check_output, scratch_folder};
use crate::plan::{ActivationUse, Method, Plan, Target, WeightOptions};
use crate::prepare::{prepare_for, products_in_single};
use crate::progress::Progress;
use crate::recipe::{self, Activations, RoundingChoice};
use crate::run::runner;
use crate::sensitivity::Sensitivity;
use crate::{Error, Result};

pub use objective::Objective;
use operators::Operators;
pub use page::report;
pub use state::Checked;
use state::SearchFile;
use tuner::{Space, Tuner};
use widths::Widths;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The runtime that the file is for.
    pub target: Target,
    /// What is made as small as it can be.
    pub objective: Objective,
    /// Of activations.
    pub activations: Activations,
    /// Of the methods that make quantization lose less.
    pub methods: Methods,
    /// The metric; the usual one for the labels if not given.
    pub metric: Option<Metric>,
    /// How much worse the metric may be.
    pub max_drop: f64,
    /// What the drop is measured on.
    pub data: &'a Dataset,
    /// What ranges and sensitivities are measured on.
    pub calibration: &'a Dataset,
    /// When to stop with the best model so far.
    pub time_limit: Option<Duration>,
}

/// Where the model and what was measured go.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The model's file.
    pub out: &'a Path,
    /// Whether it may be replaced.
    pub replace: Replace,
    /// The file of what was measured, to go on from.
    pub state: Option<&'a Path>,
}

/// What a search came to.
#[derive(Clone, Debug, Serialize)]
pub struct Tuned {
    /// The task metric.
    pub metric: Metric,
    /// What was made as small as it can be.
    pub objective: Objective,
    /// Rows that the drop was measured on.
    pub rows: usize,
    /// The drop that was allowed.
    pub max_drop: f64,
    /// The float model.
    pub float: FloatSide,
    /// The best model, unless none stays within the drop.
    pub best: Option<Best>,
    /// Every model that was measured, by falling size.
    pub points: Vec<Checked>,
    /// What every weight costs alone, where their widths were chosen.
    pub sensitivity: Vec<Sensitivity>,
    /// What stays float since it measured slower in integers, where time is the objective.
    pub slower: Vec<Slower>,
    /// Whether nothing was left to try.
    pub complete: bool,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// All of it in one sentence.
    pub verdict: String,
}

/// The float model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FloatSide {
    /// The task metric.
    pub metric: f64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The median time of a call with one row, in milliseconds.
    pub latency_ms: Option<f64>,
}

/// The model that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Best {
    /// What was measured of it.
    #[serde(flatten)]
    pub checked: Checked,
    /// How it was made.
    pub plan: Plan,
}

/// Looks for the smallest or the fastest model that stays within the drop. `stop` is asked before
/// every measurement; the best model so far is in its place whenever this, or the process, ends.
///
/// # Errors
/// If the model cannot be run on the data, nothing in it can be quantized, or a file cannot be
/// written.
pub fn tune(
    source: &Model,
    request: &Request,
    files: &Files,
    run: &RunOptions,
    stop: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<Tuned> {
    let begun = Instant::now();
    let stop = || stop() || request.time_limit.is_some_and(|limit| begun.elapsed() >= limit);
    let source_digest = source_digest(source)?;
    let mut kept = SearchFile::open(files.state, &key(source_digest.as_deref(), request)?)?;
    let replace = if kept.found { Replace::Existing } else { files.replace };
    check_output(files.out, source.path().as_slice(), replace)?;
    let mut prepared = source.clone();
    prepare_for(&mut prepared, request.target.opset_for(&WeightOptions::default()))?;
    if request.activations.activation_use() != ActivationUse::Float {
        products_in_single(&mut prepared, request.target.extent())?;
    }
    let base = match &kept.state.base {
        Some(base) => base.clone(),
        None => {
            let base = base_plan(&prepared, request, run, progress)?;
            without_growth(source, &prepared, base, most_bytes(source_bytes(source)))?
        }
    };
    let mut adjusted = prepared.clone();
    adjust(&mut adjusted, &base.adjustments)?;
    let space: Box<dyn Space> = match request.objective {
        Objective::Size => Box::new(Widths::new(adjusted, base, request, progress)?),
        Objective::Latency => {
            Box::new(Operators::new(&prepared, adjusted, base, request, run, &mut kept, progress)?)
        }
    };
    let float = runner(source, run)?;
    progress.start("evaluating the float model", request.data.rows() as u64);
    let baseline = Baseline::new(&float, request.data, request.metric, progress)?;
    progress.finish();
    let mut tuner = Tuner {
        source,
        source_digest,
        prepared: &prepared,
        request,
        run,
        float: &float,
        baseline,
        kept,
        out: files.out,
        replace,
        best: None,
        scratch: scratch_folder()?,
    };
    let end = tuner.search(&*space, &stop, progress)?;
    tuner.finish(end)
}

/// The plan that the search starts from: every weight of 8 bits, activations as asked for.
fn base_plan(
    prepared: &Model,
    request: &Request,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Plan> {
    let recipe = recipe::Request {
        target: request.target,
        weights: WeightOptions::default(),
        rounding: RoundingChoice::default(),
        reduce_range: Default::default(),
        integer_weights: Default::default(),
        activations: request.activations,
        methods: request.methods.clone(),
        data: match request.activations {
            Activations::Float => None,
            _ => Some(request.calibration),
        },
    };
    let mut plan = recipe::plan(prepared, &recipe, run, progress)?;
    if request.objective == Objective::Size {
        // What 8 bits shift is not what fewer bits shift.
        plan.adjustments.retain(|a| a.method != Method::BiasCorrection);
    }
    plan.tried.clear();
    if let Some(reason) = plan.why_nothing() {
        let file = file_of(prepared);
        return Err(Error::NothingToQuantize { file, reason });
    }
    Ok(plan)
}

/// Identifies a search: the model, the data and what was asked for, but not how long it may take.
fn key(source: Option<&str>, request: &Request) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    };
    add(env!("CARGO_PKG_VERSION"));
    source.into_iter().for_each(&mut add);
    for data in [request.data, request.calibration] {
        add(&data.digest()?);
        add(&data.rows().to_string());
    }
    let Request { target, objective, activations, methods, metric, max_drop, .. } = request;
    add(&format!("{target} {objective:?} {activations:?} {methods:?} {metric:?} {max_drop}"));
    Ok(short_digest(&hasher.finalize()))
}
