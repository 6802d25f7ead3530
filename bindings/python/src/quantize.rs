//! Plans, and models made by them.

use fewbits::Model;
use fewbits::apply::Checkpoint;
use fewbits::guard::{Guarded, Limits, MaxDrop, Otherwise};
use fewbits::plan::Plan;
use fewbits::progress::Progress;
use fewbits::quantize::{Planned, Speed};
use fewbits::recipe::{Observed, RecipeChoice};
use fewbits::run::RunOptions;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::Data;
use crate::errors::raised;
use crate::model::{OnnxModel, json};
use crate::options::{How, metric};
use crate::work::interruptible;

/// The plan of a model, as JSON.
#[pyfunction]
#[pyo3(signature = (model, options, data, watch))]
pub fn plan(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    data: Option<&Data>,
    watch: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let how = How::read(options)?;
    interruptible(watch, |progress| {
        let (planned, _) = settled(&model.model, &how, data, None, None, progress)?;
        Ok(planned.plan().to_json())
    })
}

/// A quantized model, its plan as JSON, what the guard measured as JSON, and notes. `labelled` are the rows
/// on which the metric may drop by `max_drop`.
#[pyfunction]
#[pyo3(signature = (model, options, data, plan, watch, labelled=None, max_drop=None, metric_name=None))]
#[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
pub fn quantize(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    data: Option<&Data>,
    plan: Option<&str>,
    watch: &Bound<'_, PyAny>,
    labelled: Option<&Data>,
    max_drop: Option<f64>,
    metric_name: Option<&str>,
) -> PyResult<(OnnxModel, String, String, Vec<String>)> {
    let how = How::read(options)?;
    let plan = plan.map(|text| raised(Plan::from_json(text))).transpose()?;
    let metric = metric(metric_name)?;
    let otherwise = if plan.is_some() { Otherwise::Tell } else { Otherwise::LeaveFloat };
    let max_drop = max_drop.zip(labelled).map(|(max_drop, labelled)| MaxDrop {
        data: &labelled.dataset,
        metric,
        max_drop,
        otherwise,
    });
    interruptible(watch, |progress| {
        let (planned, guarded) = settled(&model.model, &how, data, plan, max_drop, progress)?;
        let notes = planned.notes().to_vec();
        if let Some(warning) = planned.warning_of_nothing() {
            progress.warn(&warning);
        }
        for warning in &guarded.warnings {
            progress.warn(warning);
        }
        let (quantized, plan) = planned.carry_out(progress)?;
        Ok((OnnxModel::of_file(&quantized)?, plan.to_json(), json(&guarded), notes))
    })
}

/// What is to become of a model, with what stays float for accuracy and speed.
fn settled<'a>(
    model: &'a Model,
    how: &How,
    data: Option<&'a Data>,
    plan: Option<Plan>,
    max_drop: Option<MaxDrop>,
    progress: &crate::work::Watched,
) -> fewbits::Result<(Planned<'a>, Guarded)> {
    let run = RunOptions::default();
    let request = how.request(data);
    let checkpoint = Checkpoint::default();
    let refused = |reason| fewbits::Error::Request { reason };
    let (planned, min_sqnr) = match plan {
        Some(plan) => {
            let min_sqnr = how.min_sqnr.of_plan(&plan, request.data).map_err(refused)?;
            (Planned::by_plan(model, plan, request.data, checkpoint, &run)?, min_sqnr)
        }
        None => {
            let min_sqnr = how.min_sqnr.of_recipe(&request).map_err(refused)?;
            let mut observed = Observed::default();
            let planned =
                Planned::by_recipe(model, &request, &mut observed, checkpoint, &run, progress)?;
            (planned, min_sqnr)
        }
    };
    let speed = match how.recipe {
        Some(RecipeChoice::Auto) => Speed::NeverSlower { timed_on: request.data },
        Some(RecipeChoice::Only(_)) | None => Speed::AsPlanned,
    };
    let limits = Limits::of(min_sqnr, how.min_sqnr, max_drop);
    let (planned, settled) = planned.settled(&limits, speed, progress)?;
    Ok((planned, settled.guarded))
}

/// A plan as JSON, checked.
#[pyfunction]
pub fn check_plan(text: &str) -> PyResult<String> {
    Ok(raised(Plan::from_json(text))?.to_json())
}
