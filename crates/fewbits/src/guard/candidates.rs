//! What of a plan may be left float, the costliest first.

use std::collections::HashSet;

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;
use fewbits_quant::Rounding;

use super::cost::{self, Noise};
use super::judge::{Judge, On, Reach, Verdict};
use super::search::{Ends, Found, search};
use super::unit::{Unit, units};
use super::{COST_BYTES, COST_ROWS, LeftFloat, Limits, sample};
use crate::Result;
use crate::adjust::adjust;
use crate::plan::Plan;
use crate::progress::Progress;

/// What may be left float, in the order in which it is.
pub(super) struct Candidates<'a> {
    /// The prepared model with the plan's adjustments.
    adjusted: Model,
    plan: &'a Plan,
    units: Vec<Unit>,
    noise: Vec<Noise>,
    outputs: Vec<String>,
    order: Vec<usize>,
}

impl<'a> Candidates<'a> {
    pub fn of(
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
            cost::measured(prepared, &adjusted, plan, &units, &sample, run, progress)
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
        let failing =
            verdict.outputs.iter().filter(|output| output.db.is_some_and(|db| db < least));
        let failing: HashSet<&str> = failing.map(|output| output.name.as_str()).collect();
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

    /// Looks for what to leave float, so that the model holds as far as it can be made to.
    pub fn search(
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
        let holds = |reach: &Reach| all_float.lacks(*reach) <= 0.0;
        let reach = Reach::ALL.into_iter().rev().find(holds).unwrap_or(Reach::Measured);
        let size = |unit: usize| self.units[unit].elements();
        let nothing_float = On(reach, nothing_float.verdict);
        let ends = Ends { nothing_float, all_float: On(reach, all_float), evaluations };
        let found = search(all, &size, ends, &mut |float| Ok(On(reach, measure(float)?)))?;
        let Found { float, verdict: On(_, verdict), evaluations } = found;
        Ok(Found { float, verdict, evaluations })
    }

    /// The plan with these units left float.
    pub fn plan(&self, float: &[usize]) -> Plan {
        float.iter().fold(self.plan.clone(), |plan, &unit| {
            self.units[unit].leave_float(&self.adjusted, plan, &self.left_float(unit).why())
        })
    }

    pub fn left_float(&self, unit: usize) -> LeftFloat {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(tensor: &str, elements: usize) -> Unit {
        Unit::Weight { tensor: tensor.to_string(), elements }
    }

    #[test]
    fn the_weight_that_costs_least_is_never_left_float() {
        let units =
            [weight("a", 1), weight("b", 1), Unit::Activations { values: vec!["x".to_string()] }];
        assert_eq!(but_one_weight(vec![1, 0, 2], &units), [1, 2]);
    }
}
