//! From a model to a smaller one: prepared, planned and carried out, the same way for every command.

use fewbits_onnx::Model;
use fewbits_runtime::{RunOptions, Tensor, input_specs};

use crate::apply::{FinishedLayers, Learning, apply, source_digest};
use crate::bench::made_up;
use crate::data::Dataset;
use crate::limits::reduced;
use crate::never_slower::{Slower, keep_faster};
use crate::plan::Plan;
use crate::prepare::{Prepared, prepare_for};
use crate::progress::Progress;
use crate::recipe::{Observed, Request, plan_with};
use crate::run::call_of;
use crate::{Error, Result};

/// A model, and what is to become of it.
pub struct Planned<'a> {
    source: &'a Model,
    prepared: Model,
    plan: Plan,
    notes: Vec<String>,
    /// What methods of rounding learn from.
    data: Option<&'a Dataset>,
    /// What they have rounded.
    finished: FinishedLayers,
    run: RunOptions,
}

impl<'a> Planned<'a> {
    /// Plans a model as a recipe does. `observed` keeps what calibration saw, for other plans of
    /// the same model and data, and `finished` what is rounded.
    ///
    /// # Errors
    /// If the model cannot be read or calibrated, or holds nothing to decide about.
    pub fn by_recipe(
        source: &'a Model,
        request: &Request<'a>,
        observed: &mut Observed,
        finished: FinishedLayers,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<Planned<'a>> {
        let least_opset = request.target.opset_for(&request.weights);
        Planned::new(source, least_opset, request.data, finished, run, |prepared, finished| {
            plan_with(prepared, request, observed, finished, run, progress)
        })
    }

    /// Takes a plan that was made before; `data` is what its methods of rounding learn from, if any.
    ///
    /// # Errors
    /// If the model cannot be read, or the plan decides about nothing.
    pub fn by_plan(
        source: &'a Model,
        plan: Plan,
        data: Option<&'a Dataset>,
        finished: FinishedLayers,
        run: &RunOptions,
    ) -> Result<Planned<'a>> {
        let least_opset = plan.least_opset();
        Planned::new(source, least_opset, data, finished, run, |_, _| Ok(plan))
    }

    fn new(
        source: &'a Model,
        least_opset: i64,
        data: Option<&'a Dataset>,
        finished: FinishedLayers,
        run: &RunOptions,
        make: impl FnOnce(&Model, &FinishedLayers) -> Result<Plan>,
    ) -> Result<Planned<'a>> {
        let mut prepared = source.clone();
        let Prepared { lowered, notes } = prepare_for(&mut prepared, least_opset)?;
        let mut plan = make(&prepared, &finished)?;
        if plan.tensors.is_empty() {
            // Nothing to decide about: the weights are out of reach, or there are none.
            let hidden =
                lowered.kept.first().map(|k| format!("{} is a {}: {}", k.node, k.op, k.why));
            let reason = hidden.or(plan.why_nothing()).unwrap_or_default();
            let file = source.path().map_or("the model".into(), |p| p.display().to_string());
            return Err(Error::NothingToQuantize { file, reason });
        }
        plan.reduced_range = reduced(&prepared, &plan)?;
        Ok(Planned { source, prepared, plan, notes, data, finished, run: run.clone() })
    }

    /// Leaves float what measures slower in integers on this machine, and tells what that is:
    /// [`keep_faster`] on a call with the first rows of `data`, or with inputs that are made up. What
    /// cannot be timed stays as it is planned, with a warning.
    pub fn never_slower(
        mut self,
        data: Option<&Dataset>,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> (Planned<'a>, Vec<Slower>) {
        let timed = self.inputs_of_a_call(data).and_then(|inputs| {
            let kept = keep_faster(&self.prepared, self.plan.clone(), &inputs, run, progress);
            kept.and_then(|(mut plan, slower)| {
                plan.reduced_range = reduced(&self.prepared, &plan)?;
                Ok((plan, slower))
            })
            .map_err(|error| error.to_string())
        });
        match timed {
            Ok((plan, slower)) => {
                self.plan = plan;
                (self, slower)
            }
            Err(why) => {
                progress.warn(&format!(
                    "nothing was timed, so some of it may be slower than in float: {why}"
                ));
                (self, Vec::new())
            }
        }
    }

    fn inputs_of_a_call(
        &self,
        data: Option<&Dataset>,
    ) -> std::result::Result<Vec<(String, Tensor)>, String> {
        let specs = input_specs(self.prepared.graph());
        let rows = specs.iter().find_map(|spec| spec.fixed_rows()).unwrap_or(1);
        match data {
            Some(data) => call_of(data, rows).map_err(|error| error.to_string()),
            None => match made_up(&specs, rows) {
                Ok((inputs, _)) => Ok(inputs),
                Err(reason) => Err(format!("{reason}; --calibrate gives it")),
            },
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What preparation could not do, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The quantized model and its plan; the model as it came where nothing is quantized.
    ///
    /// # Errors
    /// Those of [`apply`].
    pub fn carry_out(self, progress: &dyn Progress) -> Result<(Model, Plan)> {
        let Planned { source, prepared, plan, data, finished, run, .. } = self;
        let learning = data.map(|data| Learning { data, run: &run, finished: &finished });
        if plan.why_nothing().is_some() {
            // Lowered without need, the model would only look different.
            return Ok((source.clone(), plan));
        }
        let digest = source.path().map(source_digest).transpose()?;
        Ok((quantized(prepared, &plan, learning, digest.as_deref(), progress)?, plan))
    }
}

/// A prepared model as its plan says, with the digest of the file that it came from.
///
/// # Errors
/// Those of [`apply`].
pub(crate) fn quantized(
    prepared: Model,
    plan: &Plan,
    learning: Option<Learning>,
    source_digest: Option<&str>,
    progress: &dyn Progress,
) -> Result<Model> {
    let mut model = apply(prepared, plan, learning, progress)?;
    if let Some(digest) = source_digest {
        model.set_metadata("fewbits.source", digest);
    }
    Ok(model)
}
