//! The smallest file: how many bits every weight has.

use std::ops::{ControlFlow, RangeInclusive};

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;

use super::candidates::{Candidates, candidates};
use super::search::{Choice, End};
use super::state::SearchFile;
use super::tuner::Space;
use super::{Checked, Request};
use crate::metric::Metric;
use crate::plan::{Becomes, Plan, PlannedTensor};
use crate::progress::Progress;
use crate::sensitivity::{self, Candidate, sensitivity};
use crate::{Result, WeightLimits};

/// Sensitivities are measured on so many rows.
const SAMPLE_ROWS: RangeInclusive<usize> = 16..=256;
/// On fewer of them where a model has many weights: rows times weights are at most this.
const SAMPLE_ROWS_TIMES_WEIGHTS: usize = 1 << 28;

/// What every weight may become.
pub(super) struct Widths<'a> {
    /// The prepared model with the plan's adjustments.
    model: Model,
    base: Plan,
    request: &'a Request<'a>,
    weights: Vec<Candidates>,
    limits: WeightLimits,
}

impl<'a> Widths<'a> {
    pub fn new(
        model: Model,
        base: Plan,
        request: &'a Request,
        progress: &dyn Progress,
    ) -> Result<Widths<'a>> {
        let activations = request.activations.activation_use();
        let limits = WeightLimits::new(&model, &base)?;
        let weights = candidates(&model, &base, activations, &limits, progress)?;
        Ok(Widths { model, base, request, weights, limits })
    }

    fn planned(&self, weight: &Candidates) -> &PlannedTensor {
        &self.base.tensors[weight.position]
    }
}

impl Space for Widths<'_> {
    fn widest(&self) -> Vec<usize> {
        vec![1; self.weights.len()]
    }

    fn measure(
        &self,
        metric: Metric,
        kept: &mut SearchFile,
        run: &RunOptions,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<End> {
        let elements = |w: &Candidates| self.planned(w).shape.iter().product::<usize>();
        let elements: usize = self.weights.iter().map(elements).sum();
        let rows = (SAMPLE_ROWS_TIMES_WEIGHTS / elements.max(1))
            .clamp(*SAMPLE_ROWS.start(), *SAMPLE_ROWS.end());
        let sample = self.request.calibration.sample(rows);
        let unknown: Vec<(String, Vec<Candidate>)> = self
            .weights
            .iter()
            .map(|w| (self.planned(w).tensor.clone(), w.options.clone()))
            .filter(|(tensor, _)| !kept.state.sensitivity.contains_key(tensor))
            .collect();
        let request = sensitivity::Request {
            candidates: &unknown,
            limits: &self.limits,
            sample: &sample,
            metric: Some(metric),
        };
        let mut end = End::Complete;
        sensitivity(&self.model, &request, run, progress, &mut |measured| {
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

    /// Of each weight: float, then its candidates.
    fn units(&self, kept: &SearchFile) -> Vec<Vec<Choice>> {
        let choices = |weight: &Candidates| {
            let measured = &kept.state.sensitivity[&self.planned(weight).tensor];
            let float = Choice { cost: weight.float_bytes as f64, error: 0.0 };
            let others = weight.options.iter().zip(&measured.costs).map(|(option, cost)| Choice {
                cost: (weight.float_bytes - option.file_bytes_saved) as f64,
                error: cost.divergence,
            });
            std::iter::once(float).chain(others).collect()
        };
        self.weights.iter().map(choices).collect()
    }

    fn plan_of(&self, choice: &[usize]) -> Plan {
        let mut plan = self.base.clone();
        for (weight, &option) in self.weights.iter().zip(choice) {
            let planned = &mut plan.tensors[weight.position];
            match option.checked_sub(1).map(|i| weight.options[i].becomes) {
                Some(integers) => {
                    planned.becomes = Becomes::Scheme(integers.scheme);
                    planned.range_method = integers.range_method;
                    planned.rounding = integers.rounding;
                    planned.scale_type = integers.scale_type;
                }
                None => planned.becomes = Becomes::Float("fewer bits cost too much".to_string()),
            }
            // That of 8 bits.
            planned.sqnr_db = None;
        }
        plan
    }

    fn cost(&self, _choice: &[usize], _kept: &SearchFile, checked: &Checked) -> f64 {
        checked.file_bytes as f64
    }
}
