//! The smallest model whose measured drop stays within a limit.
//!
//! 1. Every weight's candidates are listed ([`candidates`]) and what each costs alone is measured on
//!    a sample of the calibration data ([`sensitivity`](mod@crate::sensitivity)).
//! 2. [`search`] chooses one for every weight; each choice is saved, opened again and measured on
//!    data of its own. The best so far is always in its place.
//!
//! The search depends on nothing but what was measured, and that is kept ([`state`]): a search that
//! goes on after it was stopped ends with the same model as one that was not.

mod candidates;
mod hold;
mod search;
mod state;
mod verdict;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use fewbits_onnx::{Model, Replace, SaveOptions};
use fewbits_quant::Bits;
use fewbits_runtime::RunOptions;
use serde::Serialize;

use crate::apply::{adjust, apply, source_digest};
use crate::data::Dataset;
use crate::evaluate::Baseline;
use crate::methods::Methods;
use crate::metric::Metric;
use crate::output::{check_output, scratch_folder};
use crate::plan::{Becomes, Method, Plan, PlannedTensor, Target, WeightOptions, short_digest};
use crate::prepare::prepare_for;
use crate::progress::{Progress, Silent};
use crate::recipe::{self, Activations};
use crate::run::runner;
use crate::sensitivity::{self, Sensitivity, sensitivity};
use crate::{Error, Result};

use candidates::{Candidates, candidates};
use hold::holds;
use search::{Choice, End, Verdict, search};
pub use state::Checked;
use state::Kept;
use verdict::{notes, verdict};

/// Sensitivities are measured on so many rows.
const SAMPLE_ROWS: std::ops::RangeInclusive<usize> = 16..=256;
/// On fewer of them where a model has many weights: rows times weights are at most this.
const SAMPLE_ROWS_TIMES_WEIGHTS: usize = 1 << 28;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The runtime that the file is for.
    pub target: Target,
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
pub struct Place<'a> {
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
    /// What every weight costs alone.
    pub sensitivity: Vec<Sensitivity>,
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

/// Looks for the smallest model that stays within the drop. `stop` is asked before every
/// measurement; the best model so far is in its place whenever this, or the process, ends.
///
/// # Errors
/// If the model cannot be run on the data, nothing in it can be quantized, or a file cannot be
/// written.
pub fn tune(
    source: &Model,
    request: &Request,
    place: &Place,
    run: &RunOptions,
    stop: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<Tuned> {
    let begun = Instant::now();
    let stop = || stop() || request.time_limit.is_some_and(|limit| begun.elapsed() >= limit);
    let kept = Kept::open(place.state, &key(source, request)?)?;
    let replace = if kept.found { Replace::Existing } else { place.replace };
    if let Some(path) = source.path() {
        check_output(place.out, path, replace)?;
    }
    let mut prepared = source.clone();
    prepare_for(&mut prepared, request.target.opset_for(Bits::EIGHT))?;
    let base = base_plan(&prepared, request, run, progress)?;
    if let Some(reason) = base.why_nothing() {
        let file = source.path().map_or("the model".to_string(), |p| p.display().to_string());
        return Err(Error::NothingToQuantize { file, reason });
    }
    let mut adjusted = prepared.clone();
    adjust(&mut adjusted, &base.adjustments)?;
    let candidates = candidates(&adjusted, &base, request.activations.activation_use(), progress)?;

    let float = runner(source, run)?;
    progress.start("evaluating the float model", request.data.rows() as u64);
    let baseline = Baseline::new(&float, request.data, request.metric, progress)?;
    progress.finish();
    let mut tuner = Tuner {
        source,
        prepared,
        base,
        request,
        candidates,
        baseline,
        run,
        kept,
        out: place.out,
        replace,
        best: None,
        scratch: scratch_folder()?,
    };
    let end = tuner.search(&adjusted, &stop, progress)?;
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
        activations: request.activations,
        methods: request.methods.clone(),
        data: match request.activations {
            Activations::Float => None,
            _ => Some(request.calibration),
        },
    };
    let mut plan = recipe::plan(prepared, &recipe, run, progress)?;
    // What 8 bits shift is not what fewer bits shift.
    plan.adjustments.retain(|a| a.method != Method::BiasCorrection);
    plan.tried.clear();
    Ok(plan)
}

/// Identifies a search: the model, the data and what was asked for, but not how long it may take.
fn key(source: &Model, request: &Request) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    };
    add(env!("CARGO_PKG_VERSION"));
    if let Some(path) = source.path() {
        add(&source_digest(path)?);
    }
    for data in [request.data, request.calibration] {
        add(&source_digest(data.path())?);
        add(&data.rows().to_string());
    }
    let Request { target, activations, methods, metric, max_drop, .. } = request;
    add(&format!("{target} {activations:?} {methods:?} {metric:?} {max_drop}"));
    Ok(short_digest(&hasher.finalize()))
}

/// The mean width of the integers of all weights that become some.
fn mean_bits(plan: &Plan) -> f64 {
    let (mut bits, mut elements) = (0, 0);
    for (planned, scheme) in plan.quantized() {
        let count = planned.shape.iter().product::<usize>();
        bits += count * usize::from(scheme.bits().get());
        elements += count;
    }
    bits as f64 / elements.max(1) as f64
}

/// A search under way.
struct Tuner<'a> {
    source: &'a Model,
    prepared: Model,
    base: Plan,
    request: &'a Request<'a>,
    candidates: Vec<Candidates>,
    baseline: Baseline<'a>,
    run: &'a RunOptions,
    kept: Kept,
    out: &'a Path,
    replace: Replace,
    best: Option<Best>,
    scratch: tempfile::TempDir,
}

impl Tuner<'_> {
    fn search(
        &mut self,
        adjusted: &Model,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<End> {
        // Something to have before the long work begins.
        let widest = vec![1; self.candidates.len()];
        if self.check(&widest, stop)? == Verdict::Stop
            || self.measure_sensitivity(adjusted, stop, progress)? == End::Stopped
        {
            return Ok(End::Stopped);
        }
        let units: Vec<Vec<Choice>> = self.candidates.iter().map(|c| self.choices(c)).collect();
        let steps = units.iter().map(Vec::len).sum::<usize>() as u64;
        progress.start("searching", units.len() as u64 + u64::from(steps.max(1).ilog2()) + 1);
        let end = search(&units, &mut |choice| {
            progress.advance(1);
            self.check(choice, stop)
        })?;
        progress.finish();
        Ok(end)
    }

    /// Measures what weights cost alone, as far as that is not known.
    fn measure_sensitivity(
        &mut self,
        adjusted: &Model,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<End> {
        let weights: usize =
            self.candidates.iter().map(|c| self.planned(c).shape.iter().product::<usize>()).sum();
        let rows = (SAMPLE_ROWS_TIMES_WEIGHTS / weights.max(1))
            .clamp(*SAMPLE_ROWS.start(), *SAMPLE_ROWS.end());
        let sample = self.request.calibration.sample(rows);
        let unknown: Vec<(String, Vec<_>)> = self
            .candidates
            .iter()
            .map(|c| (self.planned(c).tensor.clone(), c.options.iter().map(|o| o.0).collect()))
            .filter(|(tensor, _)| !self.kept.state.sensitivity.contains_key(tensor))
            .collect();
        let request = sensitivity::Request {
            candidates: &unknown,
            sample: &sample,
            metric: Some(self.baseline.metric()),
        };
        let kept = &mut self.kept;
        let mut end = End::Complete;
        sensitivity(adjusted, &request, self.run, progress, &mut |measured| {
            kept.state.sensitivity.insert(measured.tensor.clone(), measured);
            kept.save()?;
            if stop() {
                end = End::Stopped;
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(end)
    }

    fn planned(&self, candidates: &Candidates) -> &PlannedTensor {
        &self.base.tensors[candidates.position]
    }

    /// The options of a weight: float, then its candidates.
    fn choices(&self, candidates: &Candidates) -> Vec<Choice> {
        let measured = &self.kept.state.sensitivity[&self.planned(candidates).tensor];
        let float = Choice { cost: candidates.float_bytes as f64, error: 0.0 };
        let others = candidates.options.iter().zip(&measured.costs);
        let others =
            others.map(|((_, bytes), cost)| Choice { cost: *bytes as f64, error: cost.divergence });
        std::iter::once(float).chain(others).collect()
    }

    fn plan_of(&self, choice: &[usize]) -> Plan {
        let mut plan = self.base.clone();
        for (candidates, &option) in self.candidates.iter().zip(choice) {
            let planned = &mut plan.tensors[candidates.position];
            match option.checked_sub(1).map(|i| candidates.options[i].0) {
                Some(integers) => {
                    planned.becomes = Becomes::Scheme(integers.scheme);
                    planned.range_method = integers.range_method;
                    planned.scale_type = integers.scale_type;
                }
                None => planned.becomes = Becomes::Float("fewer bits cost too much".to_string()),
            }
            // That of 8 bits.
            planned.sqnr_db = None;
        }
        plan
    }

    /// Measures a choice, if that is not known, and keeps it if it is the best.
    fn check(&mut self, choice: &[usize], stop: &dyn Fn() -> bool) -> Result<Verdict> {
        let plan = self.plan_of(choice);
        let digest = plan.digest();
        let known = self.kept.state.checked.get(&digest).cloned();
        let (checked, model) = match known {
            Some(checked) => (checked, None),
            None if stop() => return Ok(Verdict::Stop),
            None => {
                let model = self.build(&plan)?;
                let checked = self.measure(&model, &plan)?;
                (checked, Some(model))
            }
        };
        let verdict = match holds(&checked, self.baseline.metric(), self.request.max_drop) {
            true => Verdict::Holds,
            false => Verdict::Exceeds,
        };
        let best_bytes = self.best.as_ref().map(|b| b.checked.file_bytes);
        if verdict == Verdict::Holds && best_bytes.is_none_or(|b| checked.file_bytes < b) {
            self.best = Some(Best { checked: checked.clone(), plan });
            if let Some(model) = &model {
                self.write(model)?;
            }
        }
        // After the model is in its place: a search that goes on from here finds it there.
        if model.is_some() {
            self.kept.state.checked.insert(digest, checked);
            self.kept.save()?;
        }
        Ok(verdict)
    }

    fn build(&self, plan: &Plan) -> Result<Model> {
        let mut model = apply(self.prepared.clone(), plan, &Silent)?;
        if let Some(path) = self.source.path() {
            model.set_metadata("fewbits.source", &source_digest(path)?);
        }
        Ok(model)
    }

    /// Measures a model as it is read back from a file.
    fn measure(&self, model: &Model, plan: &Plan) -> Result<Checked> {
        let path = self.scratch.path().join("candidate.onnx");
        let options = SaveOptions { replace: Replace::Existing, ..SaveOptions::default() };
        let file_bytes = model.save(&path, options)?.file_bytes;
        let saved = Model::open(&path)?;
        let measured = self.baseline.measure(&runner(&saved, self.run)?, &Silent)?;
        Ok(Checked {
            bits: mean_bits(plan),
            metric: measured.metric,
            drop: measured.drop,
            drop_interval: None,
            expected_regret: None,
            agreement: measured.agreement,
            file_bytes,
            weight_bytes: saved.weight_bytes(),
            latency_ms: None,
        })
    }

    fn write(&mut self, model: &Model) -> Result<()> {
        model.save(self.out, SaveOptions { replace: self.replace, ..SaveOptions::default() })?;
        self.replace = Replace::Existing;
        Ok(())
    }

    fn finish(mut self, end: End) -> Result<Tuned> {
        // What was found before a stop may have been replaced since, or never written.
        if let Some(plan) = self.best.as_ref().map(|b| b.plan.clone()) {
            let there = Model::open(self.out).ok();
            let digest = there.as_ref().and_then(|m| m.metadata("fewbits.plan"));
            if digest != Some(&plan.digest()) {
                let model = self.build(&plan)?;
                self.write(&model)?;
            }
        }
        let metric = self.baseline.metric();
        let float = FloatSide {
            metric: self.baseline.value(),
            file_bytes: self.source.file_bytes(),
            weight_bytes: self.source.weight_bytes(),
        };
        let mut points: Vec<Checked> = self.kept.state.checked.values().cloned().collect();
        points.sort_by(|a, b| b.file_bytes.cmp(&a.file_bytes).then(a.drop.total_cmp(&b.drop)));
        let mut tuned = Tuned {
            metric,
            rows: self.request.data.rows(),
            max_drop: self.request.max_drop,
            float,
            best: self.best,
            points,
            sensitivity: self.kept.state.sensitivity.into_values().collect(),
            complete: end == End::Complete,
            notes: Vec::new(),
            verdict: String::new(),
        };
        tuned.notes = notes(&tuned, self.request);
        tuned.verdict = verdict(&tuned);
        Ok(tuned)
    }
}
