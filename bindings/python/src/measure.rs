//! What quantization cost: two models, several widths, a search.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use fewbits::Replace;
use fewbits::compare::CompareOptions;
use fewbits::run::RunOptions;
use fewbits::sweep::{SweepOptions, Widths};
use fewbits::tune::{Files, Objective, Request};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::Data;
use crate::errors::refused;
use crate::model::{OnnxModel, json};
use crate::options::{How, metric};
use crate::work::interruptible;

/// As many threads as asked for, or as the model runs on in `predict`.
fn run_options(model: &OnnxModel, threads: Option<i64>) -> PyResult<RunOptions> {
    let Some(asked) = threads else { return Ok(model.run_options()) };
    let threads = usize::try_from(asked).ok().and_then(NonZeroUsize::new);
    match threads {
        None => Err(refused("threads", "at least one is needed")),
        Some(_) => Ok(RunOptions { threads, ..RunOptions::default() }),
    }
}

/// Measures two models on the same data; gives JSON.
#[pyfunction]
#[pyo3(signature = (a, b, data, watch, metric_name=None, max_drop=None, threads=None))]
pub fn compare(
    a: &OnnxModel,
    b: &OnnxModel,
    data: &Data,
    watch: &Bound<'_, PyAny>,
    metric_name: Option<&str>,
    max_drop: Option<f64>,
    threads: Option<i64>,
) -> PyResult<String> {
    let (metric, run) = (metric(metric_name)?, run_options(a, threads)?);
    interruptible(watch, |progress| {
        let options = CompareOptions { metric, run, peak_memory: None, max_drop };
        let compared =
            fewbits::compare::compare(&a.model, &b.model, &data.dataset, &options, progress)?;
        Ok(json(&compared))
    })
}

/// Measures a model at several widths; gives JSON.
#[pyfunction]
#[pyo3(signature = (model, options, widths, data, calibration, watch, metric_name=None, folder=None, force=false, threads=None))]
#[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
pub fn sweep(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    widths: &str,
    data: &Data,
    calibration: Option<&Data>,
    watch: &Bound<'_, PyAny>,
    metric_name: Option<&str>,
    folder: Option<PathBuf>,
    force: bool,
    threads: Option<i64>,
) -> PyResult<String> {
    let how = How::read(options)?;
    let widths: Widths = widths.parse().map_err(|why| refused("bits", why))?;
    let metric = metric(metric_name)?;
    let run = run_options(model, threads)?;
    let replace = if force { Replace::Existing } else { Replace::Never };
    interruptible(watch, |progress| {
        let options = SweepOptions { metric, run, folder: folder.as_deref(), replace };
        let request = how.request(calibration);
        let swept = fewbits::sweep::sweep(
            &model.model,
            &request,
            &widths,
            &data.dataset,
            &options,
            progress,
        )?;
        Ok(json(&swept))
    })
}

/// Looks for the smallest model within a drop, and writes it; gives JSON.
#[pyfunction]
#[pyo3(signature = (model, options, data, calibration, max_drop, out, watch, objective="size", metric_name=None, time_limit=None, resume=None, force=false, threads=None))]
#[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
pub fn tune(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    data: &Data,
    calibration: &Data,
    max_drop: f64,
    out: PathBuf,
    watch: &Bound<'_, PyAny>,
    objective: &str,
    metric_name: Option<&str>,
    time_limit: Option<f64>,
    resume: Option<PathBuf>,
    force: bool,
    threads: Option<i64>,
) -> PyResult<String> {
    let how = How::read(options)?;
    let metric = metric(metric_name)?;
    let run = run_options(model, threads)?;
    let objective: Objective = objective.parse().map_err(|why| refused("objective", why))?;
    let time_limit = time_limit.map(Duration::try_from_secs_f64).transpose();
    let time_limit = time_limit.map_err(|why| refused("time_limit", why))?;
    let replace = if force { Replace::Existing } else { Replace::Never };
    interruptible(watch, |progress| {
        let request = Request {
            target: how.target,
            objective,
            activations: how.activations(Some(calibration), objective.recipe()),
            methods: how.methods.clone(),
            metric,
            max_drop,
            data: &data.dataset,
            calibration: &calibration.dataset,
            time_limit,
        };
        let files = Files { out: &out, replace, state: resume.as_deref() };
        let stop = || progress.is_interrupted();
        let tuned = fewbits::tune::tune(&model.model, &request, &files, &run, &stop, progress)?;
        Ok(json(&tuned))
    })
}
