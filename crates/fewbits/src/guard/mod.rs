//! The accuracy guard: what costs too much in integers stays float.
//!
//! A quantized model is measured beside the float one, as it will be written: every float output by its signal
//! to quantization noise (SQNR) on a sample of the calibration data, or the task metric on labelled data. Where
//! it does not hold what is asked for:
//!
//! 1. Every weight and every activation is quantized alone, in one walk through the float model, and the noise
//!    that this brings to each output is measured ([`cost`]). Where noise is small it adds up, so that these
//!    figures tell which ones to leave float.
//! 2. [`search()`] looks for the fewest of them with which the model holds, measuring at most
//!    [`MOST_EVALUATIONS`] models.
//!
//! An activation that stays float leaves the weights of its products integers in the file; they are computed
//! in float. Only where a weight's own rounding costs too much, the weight stays float.

mod asked;
mod cost;
mod judge;
mod search;
mod unit;

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use fewbits_onnx::Model;
use fewbits_quant::Rounding;
use fewbits_runtime::RunOptions;
use serde::{Deserialize, Serialize};

use crate::apply::adjust;
use crate::data::Dataset;
use crate::evaluate::Baseline;
use crate::metric::Metric;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::recipe::Trial;
use crate::run::runner;
use crate::{Error, Result};

pub use asked::AskedSqnr;
use cost::Noise;
use judge::{Judge, On, Reach, Verdict};
pub use search::MOST_EVALUATIONS;
use search::{Ends, Found, search};
use unit::{Unit, units};

/// What every float output reaches if nothing else is asked for, in decibels: the error has a tenth of its
/// size.
pub const DEFAULT_MIN_SQNR_DB: f64 = 20.0;

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
    if found.verdict.lacks(Reach::Others) > 0.0 {
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

/// What may be left float, in the order in which it is.
struct Candidates<'a> {
    /// The prepared model with the plan's adjustments.
    adjusted: Model,
    plan: &'a Plan,
    units: Vec<Unit>,
    noise: Vec<Noise>,
    outputs: Vec<String>,
    order: Vec<usize>,
}

impl<'a> Candidates<'a> {
    fn of(
        prepared: &Model,
        plan: &'a Plan,
        limits: &Limits,
        verdict: &Verdict,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<Candidates<'a>> {
        let mut adjusted = prepared.clone();
        adjust(&mut adjusted, &plan.adjustments)?;
        let units = units(&adjusted, plan);
        let data = limits.min_sqnr.map(|l| l.data).or(limits.max_drop.map(|d| d.data));
        let measured = data.map(|data| {
            let sample = sample(data, COST_BYTES, COST_ROWS);
            cost::measured(&adjusted, plan, &units, &sample, run, progress)
        });
        // What the float executor cannot run node by node is ordered by its own error.
        let (noise, outputs) = match measured {
            Some(Ok(noise)) => {
                let outputs = adjusted.graph().output.iter();
                (noise, outputs.map(|output| output.name().to_string()).collect())
            }
            _ => (cost::of_tensors(plan, &units), Vec::new()),
        };
        let least = limits.min_sqnr.map_or(f64::NEG_INFINITY, |limit| limit.db);
        let failing = verdict.sqnr_db.iter().filter(|(_, db)| db.is_some_and(|db| db < least));
        let failing: HashSet<&str> = failing.map(|(name, _)| name.as_str()).collect();
        let counts = |output: usize| {
            let name = outputs.get(output).map(String::as_str);
            failing.is_empty() || name.is_none_or(|name| failing.contains(name))
        };
        let order = cost::order(&noise, &counts);
        let order = match limits.max_drop {
            Some(_) => but_one_weight(order, &units),
            None => within_half(order, &units, plan),
        };
        Ok(Candidates { adjusted, plan, units, noise, outputs, order })
    }

    /// Looks for what to leave float, so that other rows hold, too, or else those that are measured.
    fn search(
        &self,
        judge: &Judge,
        nothing_float: Found<Verdict>,
        write: &dyn Fn(&Plan) -> Result<Model>,
        progress: &dyn Progress,
    ) -> Result<Found<Verdict>> {
        let all = self.order.as_slice();
        if all.is_empty() {
            return Ok(nothing_float);
        }
        let measure = |float: &[usize]| -> Result<Verdict> {
            let plan = self.plan(float);
            // Rounding that learns would be done over again for every model.
            let plan = if plan.needs_data() { plan.rounded_by(Rounding::Nearest) } else { plan };
            let verdict = judge.judge(write(&plan)?)?;
            progress.advance(1);
            Ok(verdict)
        };
        let all_float = measure(all)?;
        let evaluations = nothing_float.evaluations + 1;
        let reach = match all_float.lacks(Reach::Others) <= 0.0 {
            true => Reach::Others,
            false => Reach::Measured,
        };
        let size = |unit: usize| self.units[unit].elements();
        let nothing_float = On(reach, nothing_float.verdict);
        let ends = Ends { nothing_float, all_float: On(reach, all_float), evaluations };
        let found = search(all, &size, ends, &mut |float| Ok(On(reach, measure(float)?)))?;
        let Found { float, verdict: On(_, verdict), evaluations } = found;
        Ok(Found { float, verdict, evaluations })
    }

    /// The plan with these units left float.
    fn plan(&self, float: &[usize]) -> Plan {
        float.iter().fold(self.plan.clone(), |plan, &unit| {
            self.units[unit].leave_float(&self.adjusted, plan, &self.left_float(unit).why())
        })
    }

    fn left_float(&self, unit: usize) -> LeftFloat {
        let noise = self.noise[unit].iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        let noise = noise.filter(|(_, noise)| **noise > 0.0);
        let names = self.units[unit].names();
        LeftFloat {
            tensors: names.into_iter().map(str::to_string).collect(),
            layer: self.units[unit].layer(&self.adjusted),
            output: noise.and_then(|(output, _)| self.outputs.get(output).cloned()),
            sqnr_db: noise.map(|(_, noise)| -10.0 * noise.log10()),
        }
    }
}

/// Leaves out of `order` what would leave less than half of the weights in integers.
fn within_half(order: Vec<usize>, units: &[Unit], plan: &Plan) -> Vec<usize> {
    let all: usize = plan.tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
    let mut integers: usize = units.iter().map(Unit::elements).sum();
    let half = all.div_ceil(2);
    // Where it is less to begin with, half of that.
    let least = if integers < half { integers.div_ceil(2) } else { half };
    order
        .into_iter()
        .filter(|&unit| {
            let stays = integers - units[unit].elements() >= least;
            if stays {
                integers -= units[unit].elements();
            }
            stays
        })
        .collect()
}

/// Leaves out of `order` the weight that costs least: with nothing in integers nothing is gained.
fn but_one_weight(mut order: Vec<usize>, units: &[Unit]) -> Vec<usize> {
    if let Some(last) = order.iter().rposition(|&unit| units[unit].elements() > 0) {
        order.remove(last);
    }
    order
}

/// Puts into words what was measured of the model that is written.
fn report(
    guarded: &mut Guarded,
    plan: &Plan,
    judge: &Judge,
    verdict: &Verdict,
    limits: &Limits,
) -> Result<()> {
    if let (Some((baseline, limit)), Some(measured)) = (&judge.metric, &verdict.measured) {
        let metric = baseline.metric();
        if !Metric::allows(limit.max_drop, measured.drop) {
            let model = match limit.otherwise == Otherwise::Tell {
                true => "the model that was asked for does not keep",
                false => "no model with a layer in integers keeps",
            };
            return Err(Error::Worse {
                model,
                metric,
                before: baseline.value(),
                after: measured.metric,
                max_drop: limit.max_drop,
            });
        }
        let (before, after, drop) = (baseline.value(), measured.metric, measured.drop);
        guarded.drop = Some(MetricDrop { metric, before, after, drop });
    }
    if let Some((_, limit)) = &judge.outputs {
        let least = limit.db;
        let below: Vec<String> = verdict
            .sqnr_db
            .iter()
            .filter_map(|(name, db)| {
                db.filter(|&db| db < least).map(|db| format!("'{name}' {db:.1} dB"))
            })
            .collect();
        if !below.is_empty() {
            guarded.warnings.push(falls_short(least, &below, guarded, limits));
        }
        guarded.output_sqnr_db = Some(verdict.sqnr_db.iter().cloned().collect());
    }
    if !guarded.left_float.is_empty() {
        let note = left_float_note(guarded, plan);
        guarded.notes.push(note);
    }
    Ok(())
}

fn falls_short(least: f64, below: &[String], guarded: &Guarded, limits: &Limits) -> String {
    let told = limits.min_sqnr.is_some_and(|l| l.otherwise == Otherwise::Tell);
    let why = match told {
        true => "it is written as it was asked for",
        false if limits.max_drop.is_some() => "no more of it was left float",
        false => "reaching it would leave less than half of the weights in integers",
    };
    format!(
        "outputs below {least} dB on {} calibration rows: {}; {why}; compare the model with the float one, or \
         keep more bits",
        guarded.rows,
        below.join(", ")
    )
}

/// What stays float and what that brought, in one line.
fn left_float_note(guarded: &Guarded, plan: &Plan) -> String {
    let weights = plan.quantized().map(|(t, _)| t.tensor.as_str()).collect::<HashSet<_>>();
    let left = |of: &dyn Fn(&str) -> bool| {
        guarded.left_float.iter().flat_map(|left| &left.tensors).filter(|name| of(name)).count()
    };
    let of_weights = left(&|name| weights.contains(name));
    let of_activations = left(&|name| !weights.contains(name));
    let reached = guarded.output_sqnr_db.iter().flatten().map(|(name, db)| match db {
        Some(db) => format!("'{name}' {db:.1} dB"),
        None => format!("'{name}' equal"),
    });
    let mut reached: Vec<String> = reached.collect();
    reached
        .extend(guarded.drop.map(|d| format!("{} {:.4} from {:.4}", d.metric, d.after, d.before)));
    format!(
        "{of_weights} weights and {of_activations} activations stay float for accuracy: {} ({} models measured)",
        reached.join(", "),
        guarded.evaluations
    )
}

#[cfg(test)]
mod tests;
