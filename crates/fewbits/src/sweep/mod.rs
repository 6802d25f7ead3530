//! One model at several widths: how many bits can I afford?

mod in_turn;
mod once;
mod page;
mod verdict;
mod widths;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fewbits_engine::{RunOptions, Runner};
use fewbits_onnx::{Model, Replace, SaveOptions};
use rayon::prelude::*;
use serde::Serialize;

pub use page::report;
pub use widths::Widths;

use crate::apply::Checkpoint;
use crate::data::Dataset;
use crate::environment::{Environment, environment};
use crate::evaluate::{Baseline, Measured, WorstOutput};
use crate::measure::latencies;
use crate::metric::Metric;
use crate::output::{check_output, scratch_folder};
use crate::plan::{Plan, Width};
use crate::progress::Progress;
use crate::quantize::Planned;
use crate::recipe::{Observed, Request};
use crate::run::{one_call, runner};
use crate::{Error, Result};
use in_turn::InTurn;
use once::Once;

/// What timing may take for each model.
const TIMING: Duration = Duration::from_millis(15);
/// Models are loaded side by side, to be timed in turn, as long as their weights as floats take no
/// more than this.
const LOADED_BYTES: u64 = 1 << 30;

/// How to sweep.
#[derive(Default)]
pub struct SweepOptions<'a> {
    /// The metric; the usual one for the labels if not given.
    pub metric: Option<Metric>,
    /// Threads and the like.
    pub run: RunOptions,
    /// Where the models are kept, as `<name>-<bits>.onnx`; nowhere if not given.
    pub folder: Option<&'a Path>,
    /// Whether they may replace others.
    pub replace: Replace,
}

/// What was measured of every width.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// The task metric.
    pub metric: Metric,
    /// Rows of data.
    pub rows: usize,
    /// The model as it came.
    pub float: FloatPoint,
    /// One for each width, in the order asked for.
    pub points: Vec<Point>,
    /// The width to take, if one is to be advised.
    pub advised: Option<Advised>,
    /// How many bits can be afforded, in a sentence.
    pub verdict: String,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Where it was measured.
    pub environment: Environment,
    /// The plan of each point.
    #[serde(skip)]
    pub plans: Vec<Plan>,
}

/// The width to take: of those whose metric stays near the float model's the one with the smallest file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Advised {
    /// The width of weights; for fixed point the digits after the point.
    pub bits: Width,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// The task metric.
    pub metric: f64,
}

/// The model as it came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FloatPoint {
    /// The task metric.
    pub metric: f64,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The median time of one call with one row, in milliseconds.
    pub latency_ms: f64,
}

/// The model at one width: all figures are those of the saved file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The width of weights; for fixed point the digits after the point.
    pub bits: Width,
    /// The task metric.
    pub metric: f64,
    /// How much worse that is than the float model's; negative if better.
    pub drop: f64,
    /// The fraction of rows on which it predicts what the float model predicts.
    pub agreement: f64,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The median time of one call with one row, in milliseconds.
    pub latency_ms: f64,
    /// The largest difference between a float output and the float model's.
    pub max_abs_error: f64,
    /// Signal to quantization noise of the float outputs in decibels; none if they are equal.
    pub sqnr_db: Option<f64>,
    /// The float output that is farthest from the float model's; none if all are equal.
    pub worst_output: Option<WorstOutput>,
    /// Weights that became integers.
    pub quantized: usize,
    /// The file, where it is kept.
    pub path: Option<PathBuf>,
}

/// Quantizes `source` at each width as `request` says, but for its width, and measures the saved
/// files on `data`.
///
/// The float model is run over the data once and calibrated once; each width is planned on its own,
/// so that its file is that of `quantize` with the same options.
///
/// # Errors
/// If an output exists and may not be replaced, there are no labels for the metric, or the model
/// cannot be quantized or run.
pub fn sweep(
    source: &Model,
    request: &Request,
    widths: &Widths,
    data: &Dataset,
    options: &SweepOptions,
    progress: &dyn Progress,
) -> Result<Sweep> {
    let progress = &Once::new(progress);
    let scratch = scratch_folder()?;
    let folder = options.folder.unwrap_or(scratch.path());
    let paths: Vec<PathBuf> =
        widths.as_slice().iter().map(|&bits| folder.join(file_name(source, bits))).collect();
    if options.folder.is_some() {
        // What would be refused at the end is refused before the work.
        let existing = folder.is_dir().then_some(&paths).into_iter().flatten();
        for path in existing {
            check_output(path, source.path().as_slice(), options.replace)?;
        }
        std::fs::create_dir_all(folder)
            .map_err(|source| Error::Io { path: folder.to_path_buf(), source })?;
    }

    let float = runner(source, &options.run)?;
    // Planning has parts that no two threads can share: meanwhile they run the float model.
    let turns = InTurn::new(progress);
    let failed = AtomicBool::new(false);
    let (baseline, saved) = rayon::join(
        || {
            let progress = turns.first();
            progress.start("float model", data.rows() as u64);
            let baseline = Baseline::new(&float, data, options.metric, &progress);
            progress.finish();
            failed.store(baseline.is_err(), Ordering::Relaxed);
            baseline
        },
        || save_all(source, request, widths, &paths, options, &failed, &turns.then()),
    );
    let (baseline, Saved { plans, notes }) = (baseline?, saved?);

    let mut sweep = Sweep {
        metric: baseline.metric(),
        rows: data.rows(),
        float: FloatPoint {
            metric: baseline.value(),
            file_bytes: source.file_bytes(),
            weight_bytes: source.weight_bytes(),
            latency_ms: 0.0,
        },
        points: Vec::new(),
        advised: None,
        verdict: String::new(),
        notes,
        environment: environment(&options.run),
        plans,
    };

    progress.start("measuring", (data.rows() * paths.len()) as u64);
    let side_by_side = (LOADED_BYTES / source.weight_bytes().max(1)).max(1) as usize;
    let files: Vec<(Width, PathBuf)> = widths.as_slice().iter().copied().zip(paths).collect();
    for files in files.chunks(side_by_side) {
        measure_saved(&mut sweep, files, &float, &baseline, options, progress)?;
    }
    progress.finish();
    if options.folder.is_none() {
        sweep.points.iter_mut().for_each(|point| point.path = None);
    }
    sweep.advised = verdict::advised(&sweep);
    sweep.verdict = verdict::verdict(&sweep, request.activations.activation_use());
    sweep.notes.extend(verdict::nothing_quantized(&sweep));
    sweep.notes.extend(verdict::same_bytes(&sweep));
    sweep.notes.extend(verdict::far_output(&sweep));
    sweep.notes.extend(verdict::too_few_rows(&sweep));
    Ok(sweep)
}

/// What became of the model at each width.
#[derive(Default)]
struct Saved {
    plans: Vec<Plan>,
    notes: Vec<String>,
}

/// Quantizes the model at each width to its path, until something else has `failed`.
fn save_all(
    source: &Model,
    request: &Request,
    widths: &Widths,
    paths: &[PathBuf],
    options: &SweepOptions,
    failed: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Saved> {
    let save = SaveOptions { replace: options.replace, ..SaveOptions::default() };
    let mut observed = Observed::default();
    let mut saved = Saved::default();
    for (&bits, path) in widths.as_slice().iter().zip(paths) {
        let weights =
            request.weights.with_width(bits).map_err(|reason| Error::Request { reason })?;
        let request = Request { weights, ..request.clone() };
        let planned = Planned::by_recipe(
            source,
            &request,
            &mut observed,
            Checkpoint::default(),
            &options.run,
            progress,
        )?;
        if failed.load(Ordering::Relaxed) {
            break;
        }
        for note in planned.notes().iter().cloned().chain(planned.plan().wider()) {
            if !saved.notes.contains(&note) {
                saved.notes.push(note);
            }
        }
        let (model, plan) = planned.carry_out(progress)?;
        model.save(path, save)?;
        saved.plans.push(plan);
    }
    Ok(saved)
}

/// Measures some of the saved files, and times them and the float model in turn.
fn measure_saved(
    sweep: &mut Sweep,
    files: &[(Width, PathBuf)],
    float: &dyn Runner,
    baseline: &Baseline,
    options: &SweepOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let load = |(_, path): &(Width, PathBuf)| {
        let model = Model::open(path)?;
        Ok((model.file_bytes(), model.weight_bytes(), runner(&model, &options.run)?))
    };
    let loaded = files.par_iter().map(load).collect::<Result<Vec<_>>>()?;
    let mut runners: Vec<Box<dyn Runner>> = Vec::new();
    let first = sweep.points.len();
    for ((bits, path), (file_bytes, weight_bytes, runner)) in files.iter().zip(loaded) {
        let Measured { metric, drop, agreement, max_abs_error, sqnr_db, worst_output, .. } =
            baseline.measure(&runner, progress)?;
        sweep.points.push(Point {
            bits: *bits,
            metric,
            drop,
            agreement,
            file_bytes,
            weight_bytes,
            latency_ms: 0.0,
            max_abs_error,
            sqnr_db,
            worst_output,
            quantized: sweep.plans[sweep.points.len()].quantized().count(),
            path: Some(path.clone()),
        });
        runners.push(Box::new(runner));
    }
    let all: Vec<&dyn Runner> =
        std::iter::once(float).chain(runners.iter().map(|r| &**r)).collect();
    let calls = all.iter().map(|r| one_call(*r, baseline.data())).collect::<Vec<_>>();
    let calls: Vec<&[_]> = calls.iter().map(Vec::as_slice).collect();
    let times = latencies(&all, &calls, TIMING * all.len() as u32)?;
    if first == 0 {
        sweep.float.latency_ms = times[0].median;
    }
    for (point, time) in sweep.points[first..].iter_mut().zip(&times[1..]) {
        point.latency_ms = time.median;
    }
    Ok(())
}

fn file_name(source: &Model, bits: Width) -> String {
    let stem = source.path().and_then(Path::file_stem).map(|stem| stem.to_string_lossy());
    format!("{}-{bits}.onnx", stem.as_deref().unwrap_or("model"))
}
