//! Choosing how wide tables and last products are by what that does to the outputs on a few rows.

use super::{Observed, Planner, Request};
use crate::Result;
use crate::apply::apply;
use crate::data::Dataset;
use crate::plan::{Becomes, Plan, Tried, Widths, plan_as_narrow_as_asked};
use crate::progress::{Progress, Silent};

/// Fewer bits are harmless where the error of the outputs rises by no more than this part: less is
/// chance.
const HARMLESS: f64 = 1.02;
/// Rows that the outputs are compared on.
const ROWS: usize = 64;

impl Planner<'_> {
    /// The plan, or the same with all weights as narrow as was asked for, where that measures no
    /// worse.
    pub(super) fn choose_widths(
        &self,
        wide: Plan,
        data: &Dataset,
        observed: &mut Observed,
        progress: &dyn Progress,
    ) -> Result<Plan> {
        let Some(narrow) = self.as_narrow_as_asked(&wide, progress)? else { return Ok(wide) };
        let sample = data.sample(ROWS);
        let instead = "tables and last products stay wider";
        let Some(trial) = observed.trial(self.model, &sample, self.run, instead, progress) else {
            return Ok(wide);
        };
        progress.start("choosing widths", 2);
        let error = |plan: &Plan, what: &str| -> Result<Option<f64>> {
            let quantized = apply(self.model.clone(), plan, self.rounding(), &Silent)?;
            progress.advance(1);
            Ok(trial.error(quantized, what, progress))
        };
        let of_wide = error(&wide, "what keeps more bits")?;
        let of_narrow = error(&narrow, "all weights as narrow as asked for")?;
        progress.finish();
        let (Some(of_wide), Some(of_narrow)) = (of_wide, of_narrow) else { return Ok(wide) };
        let harmless = of_narrow <= HARMLESS * of_wide;
        let tried = |widths: Widths, error: f64, kept: bool| Tried {
            methods: Vec::new(),
            rounding: None,
            weight_range: None,
            widths: Some(widths),
            range: None,
            sqnr_db: Some(error).filter(|&e| e > 0.0).map(|e| -10.0 * e.log10()),
            kept,
        };
        let tried =
            [tried(Widths::KeptWide, of_wide, true), tried(Widths::AsAsked, of_narrow, harmless)];
        let mut plan = if harmless { narrow } else { wide };
        plan.tried.extend(tried);
        Ok(plan)
    }

    /// The plan with all weights as narrow as was asked for; `None` where they are.
    fn as_narrow_as_asked(&self, wide: &Plan, progress: &dyn Progress) -> Result<Option<Plan>> {
        let Request { weights, target, activations, .. } = self.request;
        let activations = activations.activation_use();
        let mut narrow = wide.clone();
        for asked in plan_as_narrow_as_asked(self.model, weights, activations, *target, progress)? {
            let planned = narrow.tensors.iter_mut().find(|t| t.tensor == asked.tensor);
            let Some(planned) = planned.filter(|t| t.becomes.scheme().is_some()) else { continue };
            if let Becomes::Scheme(_) = asked.becomes {
                planned.becomes = asked.becomes;
                planned.scale_type = asked.scale_type;
                planned.sqnr_db = asked.sqnr_db;
            }
        }
        Ok((narrow != *wide).then_some(narrow))
    }
}
