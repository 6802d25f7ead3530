//! From a model to a smaller one: prepared, planned and carried out, the same way for every command.

use fewbits_engine::{RunOptions, Tensor, input_specs};
use fewbits_onnx::Model;
use fewbits_onnx::facts::{Mismatch, mismatches};
use fewbits_onnx::passes::lower_opset::lower_opset;
use fewbits_onnx::passes::single_precision::{constant_types, store_as_before};
use fewbits_onnx::qweight::WeightReader;

use crate::adjust::adjust;
use crate::apply::{Checkpoint, LayerRounding, apply, source_digest};
use crate::bench::made_up;
use crate::calibrate::Channels;
use crate::data::Dataset;
use crate::error::file_of;
use crate::growth::{most_bytes, source_bytes, without_growth};
use crate::guard::{Guarded, Limits, guard};
use crate::hint::Setting;
use crate::inputs::Learning;
use crate::layers::{Constant, Role, constants};
use crate::limits::reduced;
use crate::methods::bias_correction;
use crate::never_slower::{Slower, keep_faster};
use crate::plan::{ActivationUse, IntegerWeights, PlacementExtent, Plan, SchemeKind};
use crate::prepare::{Prepared, prepare_as, products_in_single};
use crate::progress::{Progress, Silent};
use crate::recipe::{Made, Observed, Request, plan_with};
use crate::run::call_of;
use crate::{Error, Result};

/// Whether a plan is held to the speed of the float model.
#[derive(Clone, Copy)]
pub enum Speed<'a> {
    /// It stays as it is planned.
    AsPlanned,
    /// What measures slower in integers on this machine stays float.
    NeverSlower {
        /// The rows that are timed; inputs that are made up without.
        timed_on: Option<&'a Dataset>,
    },
}

/// What stays float of what a plan would quantize.
pub struct Settled {
    /// For its accuracy, and what was measured of it.
    pub guarded: Guarded,
    /// For its speed.
    pub slower: Vec<Slower>,
}

/// A model, and what is to become of it.
pub struct Planned<'a> {
    source: &'a Model,
    prepared: Model,
    /// How many weights of it are integers that training learnt.
    learnt: usize,
    plan: Plan,
    asked: Asked,
    notes: Vec<String>,
    /// By which biases are corrected.
    channels: Channels,
    /// What methods of rounding learn from.
    data: Option<&'a Dataset>,
    /// What they have rounded.
    checkpoint: Checkpoint,
    run: RunOptions,
}

/// What a plan asks of preparation.
struct Preparation {
    least_opset: i64,
    integer_weights: IntegerWeights,
    /// How far integers reach, where activations may become some.
    on_integers: Option<PlacementExtent>,
}

/// How a plan was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// By a recipe or a width: what would make the file larger than its source is left float.
    Loosely,
    /// Tensor by tensor, or as fixed-point integers: it is carried out whatever comes of it.
    Exactly,
}

impl<'a> Planned<'a> {
    /// Plans a model as a recipe does. `observed` keeps what calibration saw, for other plans of
    /// the same model and data, and `checkpoint` what is rounded.
    ///
    /// # Errors
    /// If the model cannot be read or calibrated, or holds nothing to decide about.
    pub fn by_recipe(
        source: &'a Model,
        request: &Request<'a>,
        observed: &mut Observed,
        checkpoint: Checkpoint,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<Planned<'a>> {
        let on_integers = request.activations.activation_use() != ActivationUse::Float;
        let preparation = Preparation {
            least_opset: request.target.opset_for(&request.weights),
            integer_weights: request.integer_weights,
            on_integers: on_integers.then(|| request.target.extent()),
        };
        let asked = match request.weights.scheme() {
            SchemeKind::FixedPoint => Asked::Exactly,
            _ => Asked::Loosely,
        };
        let make = |prepared: &Model, checkpoint: &Checkpoint| {
            plan_with(prepared, request, observed, checkpoint, run, progress)
        };
        Planned::new(source, preparation, asked, request.data, checkpoint, run, make)?.fitted()
    }

    /// Takes a plan that was made before; `data` is what its methods of rounding learn from, if any.
    ///
    /// # Errors
    /// If the model cannot be read, or the plan does not fit it or decides about nothing.
    pub fn by_plan(
        source: &'a Model,
        plan: Plan,
        data: Option<&'a Dataset>,
        checkpoint: Checkpoint,
        run: &RunOptions,
    ) -> Result<Planned<'a>> {
        let preparation = Preparation {
            least_opset: plan.least_opset(),
            integer_weights: plan.integer_weights,
            on_integers: (!plan.activations.is_empty()).then(|| plan.target.extent()),
        };
        let make = |prepared: &Model, _: &Checkpoint| {
            if plan.tensors.is_empty() {
                let reason = "it decides about no tensor".to_string();
                return Err(Error::PlanMismatch { reason });
            }
            plan.check_fits(prepared)?;
            Ok(plan.into())
        };
        Planned::new(source, preparation, Asked::Exactly, data, checkpoint, run, make)
    }

    fn new(
        source: &'a Model,
        preparation: Preparation,
        asked: Asked,
        data: Option<&'a Dataset>,
        checkpoint: Checkpoint,
        run: &RunOptions,
        make: impl FnOnce(&Model, &Checkpoint) -> Result<Made>,
    ) -> Result<Planned<'a>> {
        let mut prepared = source.clone();
        let Prepared { lowered, learnt, notes } =
            prepare_as(&mut prepared, preparation.least_opset, preparation.integer_weights)?;
        if let Some(extent) = preparation.on_integers {
            products_in_single(&mut prepared, extent)?;
        }
        let Made { mut plan, channels } = make(&prepared, &checkpoint)?;
        plan.integer_weights = preparation.integer_weights;
        let is_weight = |constant: &Constant| matches!(constant.role, Role::Weight(_));
        let quantized = match constants(prepared.graph()).iter().any(is_weight) {
            true => 0,
            false => WeightReader::new(prepared.graph()).weights().count(),
        };
        let done = quantized > 0;
        if learnt == 0 && (done || plan.tensors.is_empty()) {
            // Nothing to decide about: the weights are out of reach, or done, or there are none.
            let hidden =
                lowered.kept.first().map(|k| format!("{} is a {}: {}", k.node, k.op, k.why));
            let done = done.then(|| {
                format!(
                    "its {quantized} weights are quantized already; {} brings those of 8 bits to fewer",
                    Setting::Requantize
                )
            });
            let reason = hidden.or(done).or(plan.why_nothing()).unwrap_or_default();
            let file = file_of(source);
            return Err(Error::NothingToQuantize { file, reason });
        }
        let run = run.clone();
        let mut planned = Planned {
            source,
            prepared,
            learnt,
            plan,
            asked,
            notes,
            channels,
            data,
            checkpoint,
            run,
        };
        planned.tell_reduced_range()?;
        Ok(planned)
    }

    /// Takes another plan.
    fn decide(&mut self, plan: Plan) -> Result<()> {
        if plan != self.plan {
            self.plan = self.corrected(plan)?;
            self.tell_reduced_range()?;
        }
        Ok(())
    }

    /// A plan with the biases corrected for what it makes of the weights, if those of this one are.
    fn corrected(&self, plan: Plan) -> Result<Plan> {
        let others = bias_correction::others(&plan.adjustments);
        if self.channels.is_empty() || others.len() == plan.adjustments.len() {
            return Ok(plan);
        }
        let mut adjusted = self.prepared.clone();
        adjust(&mut adjusted, &others)?;
        bias_correction::corrected(&adjusted, plan, &self.channels)
    }

    fn tell_reduced_range(&mut self) -> Result<()> {
        self.plan.reduced_range = reduced(&self.prepared, &self.plan)?;
        Ok(())
    }

    /// Leaves float what would make the file larger than its source, unless it was asked for.
    fn fitted(mut self) -> Result<Planned<'a>> {
        let before = in_integers(&self.plan);
        self.decide(self.without_growth(most_bytes(source_bytes(self.source)))?)?;
        let after = in_integers(&self.plan);
        if after < before {
            self.notes.push(format!(
                "{} of {before} weights and activations stay float: they would make the file larger than \
                 the model's {} bytes",
                before - after,
                source_bytes(self.source),
            ));
        }
        Ok(self)
    }

    fn without_growth(&self, most: u64) -> Result<Plan> {
        match self.asked {
            Asked::Exactly => Ok(self.plan.clone()),
            Asked::Loosely => without_growth(self.source, &self.prepared, self.plan.clone(), most),
        }
    }

    /// Leaves float what costs too much accuracy, as [`guard`] does, and with [`Speed::NeverSlower`] what
    /// measures slower in integers on this machine, and tells what that is.
    ///
    /// # Errors
    /// Those of [`guard`].
    pub fn settled(
        self,
        limits: &Limits,
        speed: Speed,
        progress: &dyn Progress,
    ) -> Result<(Planned<'a>, Settled)> {
        let (planned, guarded) = self.guarded(limits, progress)?;
        let Speed::NeverSlower { timed_on } = speed else {
            return Ok((planned, Settled { guarded, slower: Vec::new() }));
        };
        let within = planned.plan.clone();
        let run = planned.run.clone();
        let (planned, slower) = planned.never_slower(timed_on, &run, progress)?;
        if slower.is_empty() {
            return Ok((planned, Settled { guarded, slower }));
        }
        // More floats seldom make a model worse, but what is told of it must be measured.
        match planned.guard(&limits.told(), progress) {
            Ok((_, again)) => {
                Ok((planned, Settled { guarded: guarded.measured_again(again), slower }))
            }
            Err(Error::Worse { .. }) => {
                let planned = Planned { plan: within, ..planned };
                Ok((planned, Settled { guarded, slower: Vec::new() }))
            }
            Err(error) => Err(error),
        }
    }

    fn guarded(
        mut self,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<(Planned<'a>, Guarded)> {
        let (plan, guarded) = self.guard(limits, progress)?;
        if guarded.left_float.is_empty() {
            return Ok((self, guarded));
        }
        self.decide(plan)?;
        Ok((self.fitted()?, guarded))
    }

    fn guard(&self, limits: &Limits, progress: &dyn Progress) -> Result<(Plan, Guarded)> {
        let write = |plan: &Plan| {
            let (prepared, plan) = (self.prepared.clone(), self.corrected(plan.clone())?);
            quantized(self.source, prepared, &plan, self.rounding(), None, &Silent)
        };
        let plan = self.plan.clone();
        guard(self.source, &self.prepared, plan, limits, &write, &self.run, progress)
    }

    /// What weights are rounded by.
    fn rounding(&self) -> Option<LayerRounding<'_>> {
        let (run, checkpoint) = (&self.run, &self.checkpoint);
        self.data.map(|data| LayerRounding { learning: Learning { data, run }, checkpoint })
    }

    /// Leaves float what measures slower in integers on this machine, and tells what that is:
    /// [`keep_faster`] on a call with the first rows of `data`, or with inputs that are made up. What
    /// cannot be timed stays as it is planned, with a warning.
    ///
    /// # Errors
    /// If the plan does not fit the model.
    fn never_slower(
        mut self,
        data: Option<&Dataset>,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<(Planned<'a>, Vec<Slower>)> {
        let timed = self.inputs_of_a_call(data).and_then(|inputs| {
            keep_faster(&self.prepared, self.plan.clone(), &inputs, run, progress)
                .map_err(|error| error.to_string())
        });
        Ok(match timed {
            Ok((plan, slower)) => {
                self.decide(plan)?;
                (self.fitted()?, slower)
            }
            Err(why) => {
                progress.warn(&format!(
                    "nothing was timed, so some of it may be slower than in float: {why}"
                ));
                (self, Vec::new())
            }
        })
    }

    fn inputs_of_a_call(
        &self,
        data: Option<&Dataset>,
    ) -> std::result::Result<Vec<(String, Tensor)>, String> {
        let specs = input_specs(self.prepared.graph());
        let rows = specs.iter().find_map(|spec| spec.fixed_rows()).unwrap_or(1);
        match data {
            Some(data) => Ok(call_of(data, rows)),
            None => match made_up(&specs, rows) {
                Ok((inputs, _)) => Ok(inputs),
                Err(reason) => Err(format!("{reason}; {} gives it", Setting::Calibration)),
            },
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Warns that the model stays as it is, and says why; none if anything of it changes.
    pub fn warning_of_nothing(&self) -> Option<String> {
        let why = self.plan.why_nothing().filter(|_| self.learnt == 0)?;
        Some(format!("nothing is quantized, the model stays as it is: {why}"))
    }

    /// What preparation could not do, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The quantized model and its plan; the model as it came where nothing is quantized.
    ///
    /// # Errors
    /// Those of [`apply`].
    pub fn carry_out(mut self, progress: &dyn Progress) -> Result<(Model, Plan)> {
        let source = self.source;
        let digest = source_digest(source)?;
        let float_bytes = source_bytes(source);
        let most = most_bytes(float_bytes);
        let mut allowed = most;
        loop {
            if self.warning_of_nothing().is_some() {
                // Lowered without need, the model would only look different.
                return Ok((source.clone(), self.plan));
            }
            let (prepared, rounding) = (self.prepared.clone(), self.rounding());
            let digest = digest.as_deref();
            let model = quantized(source, prepared, &self.plan, rounding, digest, progress)?;
            let bytes = model.encoded_bytes();
            if self.asked == Asked::Exactly && bytes > float_bytes {
                progress.warn(&format!(
                    "the file takes {bytes} bytes, more than the model's {float_bytes}"
                ));
            }
            if self.asked == Asked::Exactly || bytes <= most {
                return Ok((model, self.plan));
            }
            // What was rounded otherwise than to try its size may take more.
            allowed = allowed.saturating_sub(bytes - most);
            self.decide(self.without_growth(allowed)?)?;
        }
    }
}

/// How many weights and activations a plan makes integers.
fn in_integers(plan: &Plan) -> usize {
    plan.quantized().count() + plan.activations.len() - plan.float_activations().count()
}

/// A prepared model as its plan says, with the digest of the file that it came from. Its element types
/// are checked: a file that no runtime opens is never written.
///
/// # Errors
/// Those of [`apply`]; if element types contradict each other that did not in `source`.
pub(crate) fn quantized(
    source: &Model,
    prepared: Model,
    plan: &Plan,
    rounding: Option<LayerRounding>,
    source_digest: Option<&str>,
    progress: &dyn Progress,
) -> Result<Model> {
    let mut model = apply(prepared, plan, rounding, progress)?;
    store_as_before(model.graph_mut(), &constant_types(source.graph()))?;
    if plan.target.prefers_older_opset(plan.activation_use()) {
        lower_opset(&mut model);
    }
    if let Some(digest) = source_digest {
        model.set_metadata("fewbits.source", digest);
    }
    let before = mismatches(source.graph(), source.opset());
    let found = mismatches(model.graph(), model.opset());
    match found.into_iter().find(|found| !before.contains(found)) {
        Some(Mismatch { place, reason }) => Err(Error::Invalid { place, reason }),
        None => Ok(model),
    }
}

#[cfg(test)]
mod tests {
    use fewbits_engine::Runner;
    use fewbits_onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
    use fewbits_quant::Bits;

    use super::*;
    use crate::data::DataOptions;
    use crate::methods::Methods;
    use crate::plan::ActivationBecomes;
    use crate::plan::Method;
    use crate::recipe::{Activations, RangeChoice};
    use crate::run::runner;

    const INPUTS: usize = 64;
    const ROWS: usize = 32;

    /// A product whose weights, neighbours of one sign, could saturate pairs: what becomes of them depends on
    /// its activations.
    fn product() -> Model {
        let weight: Vec<f32> =
            (0..INPUTS * 4).map(|i| 0.7 + 0.3 * (i as f32 * 0.37).sin()).collect();
        let value = |name: &str, columns: usize| {
            ValueInfoProto::tensor(name, 1, &[None, Some(columns as i64)])
        };
        Model::from_graph(
            GraphProto {
                node: vec![NodeProto::new("Gemm", &["x", "w", "b"], &["y"])],
                input: vec![value("x", INPUTS)],
                output: vec![value("y", 4)],
                initializer: vec![
                    TensorProto::from_f32("w", &[INPUTS, 4], &weight),
                    TensorProto::from_f32("b", &[4], &[0.5; 4]),
                ],
                ..GraphProto::default()
            },
            17,
        )
    }

    fn rows(model: &Model) -> (Dataset, Tensor) {
        let x: Vec<f32> = (0..ROWS * INPUTS).map(|i| 1.0 + (i as f32 * 0.71).cos()).collect();
        let x = Tensor::new(vec![ROWS, INPUTS], x).unwrap();
        let arrays = vec![("x".to_string(), x.clone())];
        let options = DataOptions::default();
        let specs = input_specs(model.graph());
        (Dataset::from_arrays(&specs, arrays, None, &options).unwrap(), x)
    }

    /// The mean of each output.
    fn means(model: &Model, x: &Tensor) -> Vec<f64> {
        let runner = runner(model, &RunOptions::default()).unwrap();
        let y = runner.run(&[("x".to_string(), x.clone())]).unwrap().remove(0).1.to_f64().unwrap();
        (0..4).map(|i| y.iter().skip(i).step_by(4).sum::<f64>() / ROWS as f64).collect()
    }

    #[test]
    fn biases_are_corrected_for_the_weights_that_are_written() {
        let model = product();
        let (data, x) = rows(&model);
        let request = Request {
            target: Default::default(),
            weights: Default::default(),
            rounding: Default::default(),
            reduce_range: Default::default(),
            integer_weights: Default::default(),
            activations: Activations::Static { range: RangeChoice::default(), bits: Bits::EIGHT },
            methods: Methods::Only(vec![Method::BiasCorrection]),
            data: Some(&data),
        };
        let run = RunOptions::default();
        let (mut observed, checkpoint) = (Observed::default(), Checkpoint::default());
        let mut planned =
            Planned::by_recipe(&model, &request, &mut observed, checkpoint, &run, &Silent).unwrap();
        assert!(!planned.plan.reduced_range.is_empty());
        let before = planned.plan.adjustments.clone();
        let mut plan = planned.plan.clone();
        for activation in &mut plan.activations {
            activation.becomes = ActivationBecomes::Float("a test".into());
        }
        planned.decide(plan).unwrap();
        assert!(planned.plan.reduced_range.is_empty());
        assert_eq!(planned.plan.adjustments.len(), before.len());
        assert_ne!(planned.plan.adjustments, before);
        let (written, _) = planned.carry_out(&Silent).unwrap();
        for (expected, given) in means(&model, &x).into_iter().zip(means(&written, &x)) {
            assert!((expected - given).abs() < 1e-4, "{expected} {given}");
        }
    }
}
