//! Choosing how weights are rounded by what that does to the outputs on a few rows.

use fewbits_quant::{Rounding, WeightRange};

use super::{Observed, Planner, RoundingChoice, is_narrow};
use crate::Result;
use crate::apply::apply;
use crate::data::Dataset;
use crate::methods::Methods;
use crate::plan::{Method, Plan, Tried};
use crate::progress::{Progress, Silent};

/// The error must fall to this part for another method: less is chance.
const WORTHWHILE: f64 = 0.98;
/// Rows that the outputs are compared on.
const ROWS: usize = 64;

impl Planner<'_> {
    /// A plan of weights alone with the way of rounding that was asked for, or the one that measures
    /// best.
    pub(super) fn choose_rounding(
        &self,
        plain: Plan,
        data: &Dataset,
        observed: &mut Observed,
        progress: &dyn Progress,
    ) -> Result<Plan> {
        let open = self.request.rounding == RoundingChoice::Measured;
        let narrow = plain.quantized().any(|(_, scheme)| is_narrow(scheme));
        // A correction that is asked for is one of what rounding to nearest shifts.
        let corrects = match &self.request.methods {
            Methods::Measured => false,
            Methods::Only(methods) => methods.contains(&Method::BiasCorrection),
        };
        if !open || !narrow || corrects {
            return Ok(plain);
        }
        let sample = data.sample(ROWS);
        let instead = "weights are rounded to nearest";
        let Some(trial) = observed.trial(self.model, &sample, self.run, instead, progress) else {
            return Ok(plain);
        };
        // Biases were corrected for what rounding to nearest shifts.
        let mut free = plain.clone();
        free.adjustments.retain(|adjustment| adjustment.method != Method::BiasCorrection);
        let learned = Rounding::ALL.into_iter().filter(|&rounding| rounding != Rounding::Nearest);
        let others: Vec<Plan> = std::iter::once(ranged(&free))
            .chain(learned.map(|rounding| free.rounded_by(rounding)))
            .collect();
        progress.start("choosing rounding", 1 + others.len() as u64);
        let error = |plan: &Plan| -> Result<Option<f64>> {
            let quantized = apply(self.model.clone(), plan, self.rounding(), &Silent)?;
            let error = trial.error(quantized, &described(plan), progress);
            progress.advance(1);
            Ok(error)
        };
        let Some(mut least) = error(&plain)? else { return Ok(plain) };
        let mut tried = plain.tried.clone();
        let mut best = plain;
        tried.push(of(&best, Some(least), true));
        for plan in others {
            let found = error(&plan)?;
            let kept = found.is_some_and(|found| found < WORTHWHILE * least);
            tried.push(of(&plan, found, kept));
            if kept {
                (best, least) = (plan, found.unwrap_or(least));
            }
        }
        progress.finish();
        best.tried = tried;
        Ok(best)
    }
}

/// The same with ranges of the least squared error.
fn ranged(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.tensors.iter_mut().for_each(|planned| planned.range_method = WeightRange::Mse);
    plan
}

/// How a plan rounds, in words.
fn described(plan: &Plan) -> String {
    let Tried { rounding, weight_range, .. } = of(plan, None, false);
    format!(
        "rounding by {} with ranges {}",
        rounding.unwrap_or_default(),
        weight_range.unwrap_or_default()
    )
}

fn of(plan: &Plan, error: Option<f64>, kept: bool) -> Tried {
    let first = plan.tensors.iter().find(|planned| planned.becomes.scheme().is_some());
    Tried {
        methods: Vec::new(),
        rounding: first.map(|planned| planned.rounding),
        weight_range: first.map(|planned| planned.range_method),
        widths: None,
        range: None,
        sqnr_db: error.filter(|&e| e > 0.0).map(|e| -10.0 * e.log10()),
        kept,
    }
}
