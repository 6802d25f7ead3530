//! The fastest model: which operators compute on integers.
//!
//! What measures slower on integers stays float to begin with
//! ([`never_slower`](mod@crate::never_slower)). Of the rest those that move the outputs most for the
//! time they save are left float, too, until the drop holds.

use fewbits_engine::{RunOptions, ValueSpec, input_specs};
use fewbits_onnx::Model;

use super::search::{Choice, End};
use super::state::SearchFile;
use super::tuner::Space;
use super::{Checked, Request};
use crate::metric::Metric;
use crate::never_slower::{Operator, keep_faster, leave_float, operator_times, operators};
use crate::plan::{ActivationBecomes, Plan};
use crate::progress::Progress;
use crate::run::call_of;
use crate::sensitivity::{Change, changes};
use crate::{Result, WeightLimits};

/// Sensitivities are measured on so many rows.
const SAMPLE_ROWS: usize = 64;

/// The operators that may compute on integers.
pub(super) struct Operators<'a> {
    /// The prepared model with the plan's adjustments.
    model: Model,
    base: Plan,
    request: &'a Request<'a>,
    operators: Vec<Operator>,
}

impl<'a> Operators<'a> {
    /// Leaves float what of `base` measures slower on integers, and times the rest; unless `kept` knows
    /// both, and `base` is the plan that it keeps.
    pub fn new(
        prepared: &Model,
        model: Model,
        mut base: Plan,
        request: &'a Request,
        run: &RunOptions,
        kept: &mut SearchFile,
        progress: &dyn Progress,
    ) -> Result<Operators<'a>> {
        if kept.state.base.is_none() {
            let specs = input_specs(prepared.graph());
            let rows = specs.iter().find_map(ValueSpec::fixed_rows).unwrap_or(1);
            let inputs = call_of(request.calibration, rows);
            let (faster, slower) = keep_faster(prepared, base, &inputs, run, progress)?;
            kept.state.times_us = operator_times(prepared, &model, &faster, &inputs, run)?;
            kept.state.slower = slower;
            kept.state.base = Some(faster.clone());
            kept.save()?;
            base = faster;
        }
        let times = &kept.state.times_us;
        let operators = operators(&model, &base);
        let operators = operators.into_iter().filter(|o| times.contains_key(&o.weight)).collect();
        Ok(Operators { model, base, request, operators })
    }
}

impl Space for Operators<'_> {
    fn widest(&self) -> Vec<usize> {
        vec![1; self.operators.len()]
    }

    fn measure(
        &self,
        _metric: Metric,
        kept: &mut SearchFile,
        run: &RunOptions,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<End> {
        if !kept.state.divergence.is_empty() {
            return Ok(End::Complete);
        }
        let sample = self.request.calibration.sample(SAMPLE_ROWS);
        let mut asked: Vec<(String, Change)> = Vec::new();
        for operator in &self.operators {
            let weight = self.base.tensors.iter().find(|t| t.tensor == operator.weight);
            if let Some(integers) = weight.and_then(|t| t.integers()) {
                asked.push((operator.weight.clone(), Change::Weight { integers, bias: None }));
            }
        }
        for activation in &self.base.activations {
            if let ActivationBecomes::Static { scheme, low, high, .. } = activation.becomes {
                let change = Change::Activation { scheme, low, high };
                asked.push((activation.value.clone(), change));
            }
        }
        let limits = WeightLimits::new(&self.model, &self.base)?;
        let divergence = changes(&self.model, &asked, &limits, &sample, run, progress)?;
        kept.state.divergence = divergence.into_iter().collect();
        kept.save()?;
        Ok(if stop() { End::Stopped } else { End::Complete })
    }

    /// Of each operator: in floats, and on integers.
    fn units(&self, kept: &SearchFile) -> Vec<Vec<Choice>> {
        let error = |name: &String| kept.state.divergence.get(name).copied().unwrap_or(0.0);
        let choices = |operator: &Operator| {
            let (integers_us, float_us) = kept.state.times_us[&operator.weight];
            let error = error(&operator.weight) + error(&operator.value);
            vec![Choice { cost: float_us, error: 0.0 }, Choice { cost: integers_us, error }]
        };
        self.operators.iter().map(choices).collect()
    }

    fn plan_of(&self, choice: &[usize]) -> Plan {
        let floats = self.operators.iter().zip(choice).filter(|(_, option)| **option == 0);
        floats.fold(self.base.clone(), |plan, (operator, _)| {
            let why = "on integers it costs too much accuracy";
            leave_float(&self.model, plan, &operator.weight, why)
        })
    }

    /// The sum of what operators take: the time of a whole call is too noisy to tell two apart.
    fn cost(&self, choice: &[usize], kept: &SearchFile, _checked: &Checked) -> f64 {
        let time = |(operator, option): (&Operator, &usize)| {
            let (integers_us, float_us) = kept.state.times_us[&operator.weight];
            if *option == 0 { float_us } else { integers_us }
        };
        self.operators.iter().zip(choice).map(time).sum()
    }
}
