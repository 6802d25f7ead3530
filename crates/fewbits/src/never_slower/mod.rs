//! Quantization that must not make a model slower: operators that are slower on integers stay float.
//!
//! 8-bit operators are not always the faster ones: small ones pay for quantizing their inputs. What is
//! faster depends on the machine, so it is measured, on this one, with the runner of this crate:
//!
//! 1. Every step of the quantized model is timed, and every operator alone in floats, on the values
//!    that it meets in the model. Operators whose integer step is the slower one are suspects.
//! 2. Suspects are left float, all at once, then one by one where that does not help, and the whole
//!    models race: only what makes the whole model faster is kept.
//! 3. The result races against the float model. If that is still faster, all activations stay float
//!    and only weights become integers.
//!
//! One model is faster than another if its median time of a call is lower in each of [`ROUNDS`]
//! rounds, in which both take turns, and the median of the ratios is below [`FASTER`]: of models that
//! are as fast, one of 2⁵ pairs would pass the first by chance, and hardly one the second, too.
//!
//! Which operators stay float thus depends on timing: unlike all else here, the bytes of such a model
//! may differ from run to run.

mod operator;
mod stopwatch;

use std::collections::BTreeMap;
use std::fmt;

use fewbits_engine::{RunOptions, Tensor};
use fewbits_onnx::Model;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::adjust::adjust;
use crate::plan::{ActivationBecomes, Plan};
use crate::progress::Progress;

pub(crate) use operator::{Operator, leave_float, operators};
use stopwatch::{Machine, OperatorTime, Stopwatch, Version};

/// Rounds of a race.
const ROUNDS: usize = 5;
/// A model is not faster by more than noise unless it takes less than this part of the time.
const FASTER: f64 = 0.98;
/// Suspects that are tried one by one, those that lose most first.
const MOST_TRIALS: usize = 12;

/// What measured slower on integers, and so stays float.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Slower {
    /// An operator.
    Operator {
        /// Its node, or its first output.
        operator: String,
        /// What its step on integers takes, quantizing its input included, in microseconds.
        integers_us: f64,
        /// What it takes alone in floats, in microseconds.
        float_us: f64,
    },
    /// The whole model: all activations stay float.
    Model {
        /// The median of a call with quantized activations, in microseconds.
        integers_us: f64,
        /// That of the float model.
        float_us: f64,
    },
}

impl fmt::Display for Slower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slower::Operator { operator, integers_us, float_us } => write!(
                f,
                "operator '{operator}' stays float: {}",
                measured_slower(*integers_us, *float_us)
            ),
            Slower::Model { integers_us, float_us } => write!(
                f,
                "only weights are quantized, whatever else stays float: {}",
                measured_slower(*integers_us, *float_us)
            ),
        }
    }
}

/// The reason that a plan gives.
fn measured_slower(integers_us: f64, float_us: f64) -> String {
    format!(
        "measured slower in integers on this machine: {integers_us:.1} µs, {float_us:.1} µs in float"
    )
}

/// Rewrites the plan of a prepared model so that the model is not slower than the float one on this
/// machine, as far as that can be measured, and tells what stays float for that. `inputs` are those
/// of one call. A plan without quantized activations is computed in floats anyway and stays as it is.
///
/// # Errors
/// If the plan does not fit the model, or a model cannot be run on the inputs.
pub fn keep_faster(
    model: &Model,
    plan: Plan,
    inputs: &[(String, Tensor)],
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<(Plan, Vec<Slower>)> {
    let mut adjusted = model.clone();
    adjust(&mut adjusted, &plan.adjustments)?;
    let mut machine = Machine { model, adjusted: &adjusted, inputs, run };
    progress.start("timing", 3);
    let decided = decide(&adjusted, plan, &mut machine, progress)?;
    progress.finish();
    Ok(decided)
}

/// The microseconds that each operator of a plan takes on integers and in floats, by the name of its
/// weight; `adjusted` is the prepared model with the plan's adjustments.
///
/// # Errors
/// Those of [`keep_faster`].
pub(crate) fn operator_times(
    model: &Model,
    adjusted: &Model,
    plan: &Plan,
    inputs: &[(String, Tensor)],
    run: &RunOptions,
) -> Result<BTreeMap<String, (f64, f64)>> {
    let mut machine = Machine { model, adjusted, inputs, run };
    let times = machine.operators(plan, &operators(adjusted, plan))?;
    Ok(times.into_iter().map(|t| (t.operator.weight, (t.integers_us, t.float_us))).collect())
}

fn decide(
    adjusted: &Model,
    plan: Plan,
    stopwatch: &mut impl Stopwatch,
    progress: &dyn Progress,
) -> Result<(Plan, Vec<Slower>)> {
    let candidates = operators(adjusted, &plan);
    if candidates.is_empty() {
        return Ok((plan, Vec::new()));
    }
    let suspects = suspects(stopwatch.operators(&plan, &candidates)?);
    progress.advance(1);
    let (best, slower) = without_suspects(adjusted, &plan, &suspects, stopwatch)?;
    progress.advance(1);
    let race = stopwatch.race(Version::Quantized(&best), Version::Float)?;
    progress.advance(1);
    if !is_faster(&race) {
        return Ok((best, slower));
    }
    let integers_us = median(race.iter().map(|round| round[0]));
    let float_us = median(race.iter().map(|round| round[1]));
    // Weights that were left float would gain nothing now: the operators compute in floats anyway.
    let mut weights_only = plan;
    for activation in &mut weights_only.activations {
        if !matches!(activation.becomes, ActivationBecomes::Float(_)) {
            activation.becomes = ActivationBecomes::Float(measured_slower(integers_us, float_us));
        }
    }
    Ok((weights_only, vec![Slower::Model { integers_us, float_us }]))
}

/// Operators that take longer on integers, those that lose most first.
fn suspects(times: Vec<OperatorTime>) -> Vec<OperatorTime> {
    let mut slower: Vec<OperatorTime> =
        times.into_iter().filter(|time| time.integers_us > time.float_us).collect();
    let lost = |time: &OperatorTime| time.integers_us - time.float_us;
    slower.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
    slower
}

/// The plan with those suspects left float that make the whole model faster.
fn without_suspects(
    adjusted: &Model,
    plan: &Plan,
    suspects: &[OperatorTime],
    stopwatch: &mut impl Stopwatch,
) -> Result<(Plan, Vec<Slower>)> {
    let left = |plan: &Plan, suspects: &[OperatorTime]| {
        suspects.iter().fold(plan.clone(), |plan, time| {
            let why = measured_slower(time.integers_us, time.float_us);
            leave_float(adjusted, plan, &time.operator.weight, &why)
        })
    };
    let told = |time: &OperatorTime| Slower::Operator {
        operator: time.operator.label.clone(),
        integers_us: time.integers_us,
        float_us: time.float_us,
    };
    if suspects.is_empty() {
        return Ok((plan.clone(), Vec::new()));
    }
    let without_all = left(plan, suspects);
    if is_faster(&stopwatch.race(Version::Quantized(plan), Version::Quantized(&without_all))?) {
        return Ok((without_all, suspects.iter().map(told).collect()));
    }
    // With one suspect there is nothing left to try.
    let one_by_one = if suspects.len() > 1 { suspects } else { &[] };
    let (mut best, mut slower) = (plan.clone(), Vec::new());
    for time in one_by_one.iter().take(MOST_TRIALS) {
        let trial = left(&best, std::slice::from_ref(time));
        if is_faster(&stopwatch.race(Version::Quantized(&best), Version::Quantized(&trial))?) {
            best = trial;
            slower.push(told(time));
        }
    }
    Ok((best, slower))
}

/// Whether the second of two models is faster by more than noise: see the head of this file.
fn is_faster(rounds: &[[f64; 2]]) -> bool {
    let each = rounds.iter().all(|[first, second]| second < first);
    each && !rounds.is_empty() && median(rounds.iter().map(|[a, b]| b / a)) < FASTER
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests;
