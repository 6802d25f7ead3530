//! Choosing how wide tables are by what that does to the outputs on a few rows.

use super::{Observed, Recipe};
use crate::Result;
use crate::apply::apply;
use crate::data::Dataset;
use crate::plan::{Becomes, Plan, Tried, plan_tables_as_asked};
use crate::progress::{Progress, Silent};

/// Fewer bits are harmless where the error of the outputs rises by no more than this part: less is
/// chance.
const HARMLESS: f64 = 1.02;
/// Rows that the outputs are compared on.
const ROWS: usize = 64;

impl Recipe<'_> {
    /// The plan, or the same with tables as narrow as was asked of all weights, where that measures
    /// no worse.
    pub(super) fn choose_tables(
        &self,
        kept: Plan,
        data: &Dataset,
        observed: &mut Observed,
        progress: &dyn Progress,
    ) -> Result<Plan> {
        let Some(narrow) = self.with_narrow_tables(&kept)? else { return Ok(kept) };
        let sample = data.sample(ROWS);
        let instead = "tables keep 8 bits";
        let Some(trial) = observed.trial(self.model, &sample, self.run, instead, progress) else {
            return Ok(kept);
        };
        progress.start("choosing tables", 2);
        let error = |plan: &Plan, what: &str| -> Result<Option<f64>> {
            let quantized = apply(self.model.clone(), plan, self.learning(), &Silent)?;
            progress.advance(1);
            Ok(trial.error(quantized, what, progress))
        };
        let of_kept = error(&kept, "tables of 8 bits")?;
        let bits = self.request.weights.width().get();
        let of_narrow = error(&narrow, &format!("tables of {bits} bits"))?;
        progress.finish();
        let (Some(of_kept), Some(of_narrow)) = (of_kept, of_narrow) else { return Ok(kept) };
        let harmless = of_narrow <= HARMLESS * of_kept;
        let tried = |bits: u8, error: f64, kept: bool| Tried {
            methods: Vec::new(),
            rounding: None,
            weight_range: None,
            table_bits: Some(bits),
            range: None,
            sqnr_db: Some(error).filter(|&e| e > 0.0).map(|e| -10.0 * e.log10()),
            kept,
        };
        let tried = [tried(8, of_kept, true), tried(bits, of_narrow, harmless)];
        let mut plan = if harmless { narrow } else { kept };
        plan.tried.extend(tried);
        Ok(plan)
    }

    /// The plan with tables as narrow as was asked for; `None` where they are.
    fn with_narrow_tables(&self, kept: &Plan) -> Result<Option<Plan>> {
        let (weights, target) = (&self.request.weights, self.request.target);
        let activations = self.request.activations.activation_use();
        let mut narrow = kept.clone();
        for table in plan_tables_as_asked(self.model, weights, activations, target, &Silent)? {
            let planned = narrow.tensors.iter_mut().find(|t| t.tensor == table.tensor);
            let Some(planned) = planned.filter(|t| t.becomes.scheme().is_some()) else { continue };
            if let Becomes::Scheme(_) = table.becomes {
                planned.becomes = table.becomes;
                planned.scale_type = table.scale_type;
                planned.sqnr_db = table.sqnr_db;
            }
        }
        Ok((narrow != *kept).then_some(narrow))
    }
}
