//! The accuracy guard: what costs too much in integers stays float.
//!
//! A quantized model is measured beside the float one, as it will be written: every float output by its signal
//! to quantization noise (SQNR) on a sample of the calibration data, or the task metric on labelled data. Where
//! it does not hold what is asked for:
//!
//! 1. Every weight and every activation is quantized alone, in one walk through the float model, and the noise
//!    that this brings to each output is measured ([`cost`]). Where noise is small it adds up, so that these
//!    figures tell which ones to leave float.
//! 2. `search` looks for the fewest of them with which the model holds, measuring at most
//!    [`MOST_EVALUATIONS`] models.
//!
//! An activation that stays float leaves the weights of its products integers in the file; they are computed
//! in float. Only where a weight's own rounding costs too much, the weight stays float.

mod asked;
mod candidates;
mod cost;
mod judge;
mod report;
mod search;
mod unit;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;
use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::evaluate::Baseline;
use crate::metric::Metric;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::recipe::Trial;
use crate::run::runner;
use crate::{Error, Result};

pub use asked::AskedSqnr;
use candidates::Candidates;
use judge::{Judge, Reach};
use report::report;
use search::Found;
pub use search::MOST_EVALUATIONS;

/// The sample is as many rows as these bytes hold, within [`SAMPLE_ROWS`].
const SAMPLE_BYTES: usize = 64 << 20;
/// The least and the most rows of a sample.
const SAMPLE_ROWS: RangeInclusive<usize> = 16..=64;
/// Those of the sample on which single weights and activations are measured: each takes a run of the model.
const COST_BYTES: usize = 2 << 20;
/// The least and the most of its rows.
const COST_ROWS: RangeInclusive<usize> = 2..=16;

/// What a quantized model must hold.
#[derive(Clone, Copy, Default)]
pub struct Limits<'a> {
    /// The least SQNR of every float output.
    pub min_sqnr: Option<MinSqnr<'a>>,
    /// The most that the metric may drop.
    pub max_drop: Option<MaxDrop<'a>>,
}

impl<'a> Limits<'a> {
    /// Both limits, but the usual SQNR only where no drop is limited: a metric measured on labels says more.
    pub fn of(
        min_sqnr: Option<MinSqnr<'a>>,
        asked: AskedSqnr,
        max_drop: Option<MaxDrop<'a>>,
    ) -> Limits<'a> {
        let min_sqnr = min_sqnr.filter(|_| max_drop.is_none() || asked != AskedSqnr::Usual);
        Limits { min_sqnr, max_drop }
    }

    /// The same, but nothing is left float for them.
    pub fn told(&self) -> Limits<'a> {
        let otherwise = Otherwise::Tell;
        Limits {
            min_sqnr: self.min_sqnr.map(|limit| MinSqnr { otherwise, ..limit }),
            max_drop: self.max_drop.map(|limit| MaxDrop { otherwise, ..limit }),
        }
    }
}

/// The least SQNR of every float output.
#[derive(Clone, Copy)]
pub struct MinSqnr<'a> {
    /// In decibels.
    pub db: f64,
    /// The rows of which a sample is measured.
    pub data: &'a Dataset,
    /// What is done where an output does not reach it.
    pub otherwise: Otherwise,
}

/// What is done where a model does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// What costs most stays float.
    LeaveFloat,
    /// It is only told: what was asked for is what is written.
    Tell,
}

/// The most that the metric may drop.
#[derive(Clone, Copy)]
pub struct MaxDrop<'a> {
    /// The labelled rows on which it is measured.
    pub data: &'a Dataset,
    /// The metric; the usual one for the labels if none is asked for.
    pub metric: Option<Metric>,
    /// How much worse it may be, in its own unit.
    pub max_drop: f64,
    /// What is done where it drops more.
    pub otherwise: Otherwise,
}

/// What the guard measured and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// The SQNR of every float output of the model that is written, in decibels; none where it equals the
    /// float model's. None at all where that was not measured.
    pub output_sqnr_db: Option<BTreeMap<String, Option<f64>>>,
    /// How the metric fared, where a drop is limited.
    pub drop: Option<MetricDrop>,
    /// The rows on which the SQNR was measured.
    pub rows: usize,
    /// How many models were measured.
    pub evaluations: usize,
    /// What stays float, that which costs most first.
    pub left_float: Vec<LeftFloat>,
    /// What was done, in words.
    pub notes: Vec<String>,
    /// What does not hold, or could not be measured.
    pub warnings: Vec<String>,
}

/// The metric of the model that is written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricDrop {
    /// Which.
    pub metric: Metric,
    /// The float model's.
    pub before: f64,
    /// The quantized model's.
    pub after: f64,
    /// How much worse that is.
    pub drop: f64,
}

/// Something that stays float because it costs too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftFloat {
    /// The weight, or the activations with one scale.
    pub tensors: Vec<String>,
    /// The first node that reads it.
    pub layer: Option<String>,
    /// The output that it costs most.
    pub output: Option<String>,
    /// The SQNR of that output if nothing else is quantized, in decibels.
    pub sqnr_db: Option<f64>,
}

impl Guarded {
    /// The same work, with what was measured of the model that came of it later.
    pub(crate) fn measured_again(self, again: Guarded) -> Guarded {
        Guarded {
            evaluations: self.evaluations + again.evaluations,
            left_float: self.left_float,
            notes: self.notes,
            ..again
        }
    }
}

impl LeftFloat {
    /// The reason that a plan gives.
    pub fn why(&self) -> String {
        let of_layer =
            self.layer.as_ref().map_or(String::new(), |layer| format!(" of layer '{layer}'"));
        match (&self.output, self.sqnr_db) {
            (Some(output), Some(db)) => format!(
                "integers{of_layer} cost too much: alone they take output '{output}' to {db:.1} dB"
            ),
            _ => format!("integers{of_layer} cost too much"),
        }
    }
}

/// Leaves float what a plan of a prepared model must not quantize to hold the limits, and tells what that is.
/// `write` makes the model of a plan as it will be written, and `source` is the float model.
///
/// What cannot be run is not guarded, with a warning.
///
/// # Errors
/// [`Error::Worse`], if nothing with an integer weight keeps the metric within its drop; those of `write`; if
/// the metric cannot be measured.
pub fn guard(
    source: &Model,
    prepared: &Model,
    plan: Plan,
    limits: &Limits,
    write: &dyn Fn(&Plan) -> Result<Model>,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<(Plan, Guarded)> {
    let mut guarded = Guarded::default();
    if plan.why_nothing().is_some() {
        return Ok((plan, guarded));
    }
    let reference = limits.max_drop.map(|_| runner(source, run)).transpose()?;
    let metric = reference.as_ref().zip(limits.max_drop);
    let metric = metric.map(|(reference, limit)| {
        progress.start("measuring", limit.data.rows() as u64);
        let baseline = Baseline::new(reference, limit.data, limit.metric, progress)?;
        progress.finish();
        Ok::<_, Error>((baseline, limit))
    });
    let mut judge = Judge { outputs: None, metric: metric.transpose()?, run };
    if let Some(limit) = limits.min_sqnr {
        let sample = sample(limit.data, SAMPLE_BYTES, SAMPLE_ROWS);
        guarded.rows = sample.rows();
        match Trial::new(prepared, sample, run) {
            Ok(trial) => judge.outputs = Some((trial, limit)),
            Err(why) => guarded.warnings.push(unmeasured(&why)),
        }
    }
    if judge.outputs.is_none() && judge.metric.is_none() {
        return Ok((plan, guarded));
    }
    let verdict = match judge.judge(write(&plan)?) {
        Ok(verdict) => verdict,
        Err(why) if judge.metric.is_none() => {
            guarded.warnings.push(unmeasured(&why));
            return Ok((plan, guarded));
        }
        Err(why) => return Err(why),
    };
    let mut found = Found { float: Vec::new(), verdict, evaluations: 1 };
    let mut settled = plan.clone();
    if found.verdict.lacks(Reach::Unlike) > 0.0 {
        let candidates = Candidates::of(prepared, &plan, limits, &found.verdict, run, progress)?;
        progress.start("guarding accuracy", MOST_EVALUATIONS as u64);
        found = candidates.search(&judge, found, write, progress)?;
        progress.finish();
        settled = candidates.plan(&found.float);
        guarded.left_float = found.float.iter().map(|&unit| candidates.left_float(unit)).collect();
        if settled.needs_data() {
            // It was searched for with plain rounding.
            found.verdict = judge.judge(write(&settled)?)?;
        }
    }
    guarded.evaluations = found.evaluations;
    report(&mut guarded, &plan, &judge, &found.verdict, limits)?;
    Ok((settled, guarded))
}

fn unmeasured(why: &Error) -> String {
    format!(
        "the accuracy guard could not measure the outputs, so nothing is known of their error: {why}"
    )
}

/// Rows from all over the data, as many as `bytes` hold, within `rows`.
fn sample(data: &Dataset, bytes: usize, rows: RangeInclusive<usize>) -> Dataset {
    let row_bytes: usize = data.batch(0..1).iter().map(|(_, t)| t.len() * size_of::<f32>()).sum();
    data.sample((bytes / row_bytes.max(1)).clamp(*rows.start(), *rows.end()))
}

#[cfg(test)]
mod tests;
