//! Recipes: from a prepared model, and data where they need it, to a plan.

mod choose;
mod choose_rounding;
mod choose_widths;
mod trial;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_quant::{Bits, RangeMethod, Rounding, Scheme, is_below_scales, symmetric_max};
use fewbits_runtime::RunOptions;

use crate::apply::{FinishedLayers, Learning, adjust};
use crate::calibrate::{Calibration, Channels, Padding, Wanted, calibrate};
use crate::data::Dataset;
use crate::error::file_of;
use crate::methods::{
    Allowance, Methods, PerOutput, Product, Proposal, WeightSteps, Without, awq, bias_correction,
    equalization, products, smoothquant,
};
use crate::not_finite::{Reach, not_finite};
use crate::plan::{
    ActivationScheme, ActivationUse, Adjustment, Becomes, Edit, GranularityKind, Inputs, Method,
    Plan, ReduceRange, Target, Tried, WeightOptions, WeightScheme, plan_weights,
};
use crate::progress::Progress;
use crate::{Error, Result};
pub(crate) use trial::Trial;

/// What activations are to become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activations {
    /// They stay float.
    Float,
    /// Integers with a scale measured at every call.
    Dynamic,
    /// Integers with a scale from calibration data.
    Static {
        /// How a range follows from it.
        range: RangeChoice,
        /// How many bits of the integers are used.
        bits: Bits,
    },
}

impl Activations {
    /// The same without how.
    pub fn activation_use(self) -> ActivationUse {
        match self {
            Activations::Float => ActivationUse::Float,
            Activations::Dynamic => ActivationUse::Dynamic,
            Activations::Static { .. } => ActivationUse::Static,
        }
    }

    /// Why a model of this opset cannot have such activations.
    ///
    /// Preparation brings every model to an opset that can, but for some with operators of old.
    fn obstacle(&self, opset: i64) -> Option<String> {
        let needed = match self {
            Activations::Float => return None,
            // DynamicQuantizeLinear.
            Activations::Dynamic => 11,
            // DequantizeLinear with a scale a channel, for the weights and biases beside them.
            Activations::Static { .. } => 13,
        };
        (opset < needed).then(|| {
            format!("they need opset {needed}, the model has {opset}; export it with a newer opset")
        })
    }
}

/// A method that is asked for, or the best of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MethodChoice<T> {
    /// The one that gives the smallest error of the outputs.
    #[default]
    Measured,
    /// This one.
    Only(T),
}

/// How the ranges of activations are found; of [`RangeChoice::TRIED`] where that is measured.
pub type RangeChoice = MethodChoice<RangeMethod>;

/// How the values of weights become integers; measured where only weights become integers, of fewer
/// than 8 bits, and there is data to measure on, otherwise to nearest.
pub type RoundingChoice = MethodChoice<Rounding>;

impl RangeChoice {
    /// The methods that are measured; the first one where nothing can be.
    pub const TRIED: [RangeMethod; 2] = [RangeMethod::MinMax, RangeMethod::Mse];

    fn first(self) -> RangeMethod {
        match self {
            RangeChoice::Measured => RangeChoice::TRIED[0],
            RangeChoice::Only(method) => method,
        }
    }
}

impl<T: FromStr> FromStr for MethodChoice<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> std::result::Result<Self, T::Err> {
        match text {
            "auto" => Ok(MethodChoice::Measured),
            method => method.parse().map(MethodChoice::Only),
        }
    }
}

impl<T: fmt::Display> fmt::Display for MethodChoice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MethodChoice::Measured => f.write_str("auto"),
            MethodChoice::Only(method) => method.fmt(f),
        }
    }
}

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The runtime that the file is for.
    pub target: Target,
    /// Of weights.
    pub weights: WeightOptions,
    /// How their values become integers.
    pub rounding: RoundingChoice,
    /// Which of them are left out.
    pub reduce_range: ReduceRange,
    /// Of activations.
    pub activations: Activations,
    /// Of the methods that make both lose less.
    pub methods: Methods,
    /// Data to calibrate on; a static recipe needs it.
    pub data: Option<&'a Dataset>,
}

impl Request<'_> {
    /// What of it does not go together, and what does.
    pub fn contradiction(&self) -> Option<String> {
        let scheme = self.weights.scheme();
        match self.rounding {
            RoundingChoice::Only(rounding)
                if rounding != Rounding::Nearest && scheme.float_format().is_some() =>
            {
                Some(format!(
                    "{rounding} rounds to integers, not to {scheme}; use --rounding nearest"
                ))
            }
            _ => self.weights.obstacle(self.activations.activation_use()),
        }
    }
}

/// Plans a prepared model.
///
/// # Errors
/// If what is asked for does not go together, a weight cannot be read, or the model cannot be run on the data.
pub fn plan(
    model: &Model,
    request: &Request,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Plan> {
    let finished = FinishedLayers::default();
    plan_with(model, request, &mut Observed::default(), &finished, run, progress)
}

/// Keeps what holds NaN or an infinity float, and says so.
///
/// # Errors
/// If activations that are to be calibrated cannot be anything else.
fn tell_not_finite(
    model: &Model,
    plan: &mut Plan,
    request: &Request,
    progress: &dyn Progress,
) -> Result<()> {
    // What becomes integers has been looked at.
    let float: HashSet<String> = plan.kept_float().map(|(t, _)| t.tensor.clone()).collect();
    for constant in not_finite(model, |name| float.contains(name))? {
        let certain = constant.reach == Reach::Everything;
        if certain && matches!(request.activations, Activations::Static { .. }) {
            return Err(Error::NotFinite { file: file_of(model), constant: constant.to_string() });
        }
        progress.warn(&format!(
            "{constant}: it stays float, and what is computed from it is no better than in the \
             original; mend the model"
        ));
        for planned in plan.tensors.iter_mut().filter(|t| t.tensor == constant.tensor) {
            planned.becomes = Becomes::Float(constant.to_string());
        }
    }
    Ok(())
}

/// What was observed of a float model on its calibration data, for further plans of both: it does
/// not depend on what weights become.
#[derive(Default)]
pub struct Observed {
    seen: Vec<(Wanted, Calibration)>,
    /// The channels of what the products of the last model read that was planned, with its edits.
    channels: Channels,
    /// By the rows of their samples.
    trials: Vec<(usize, Rc<Trial>)>,
}

impl Observed {
    /// What was seen of the channels that the products of the last planned model read: what corrects its
    /// biases, should its plan change.
    pub fn take_channels(&mut self) -> Channels {
        std::mem::take(&mut self.channels)
    }

    /// What is wanted, observed now if it was not before.
    fn of(
        &mut self,
        model: &Model,
        data: &Dataset,
        wanted: Wanted,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<Calibration> {
        if let Some((_, seen)) = self.seen.iter().find(|(known, _)| *known == wanted) {
            return Ok(seen.clone());
        }
        let seen = calibrate(model, data, &wanted, run, progress)?;
        self.seen.push((wanted, seen.clone()));
        Ok(seen)
    }

    /// The float model's outputs on a sample of the data; `None`, with a warning that ends in what
    /// is done `instead`, where it cannot be run as a whole.
    fn trial(
        &mut self,
        model: &Model,
        sample: &Dataset,
        run: &RunOptions,
        instead: &str,
        progress: &dyn Progress,
    ) -> Option<Rc<Trial>> {
        let rows = sample.rows();
        if let Some((_, trial)) = self.trials.iter().find(|(known, _)| *known == rows) {
            return Some(trial.clone());
        }
        match Trial::new(model, sample.clone(), run) {
            Ok(trial) => {
                let trial = Rc::new(trial);
                self.trials.push((rows, trial.clone()));
                Some(trial)
            }
            Err(why) => {
                progress.warn(&format!(
                    "nothing was tried on the data, which the float model does not run on here: \
                     {instead}: {why}"
                ));
                None
            }
        }
    }
}

/// As [`plan`], with what earlier plans of the same model and data observed and rounded; what is rounded
/// to try it is kept for [`apply`](crate::apply::apply).
///
/// # Errors
/// Those of [`plan`].
pub fn plan_with(
    model: &Model,
    request: &Request,
    observed: &mut Observed,
    finished: &FinishedLayers,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Plan> {
    let activations = request.activations.activation_use();
    if let Some(reason) = request.contradiction() {
        return Err(Error::Request { reason });
    }
    if let Some(reason) = request.target.obstacle(&request.weights, activations) {
        return Err(Error::Target { reason });
    }
    if let Some(warning) = request.target.warning(activations) {
        progress.warn(warning);
    }
    let weights = plan_weights(model, &request.weights, activations, request.target, progress)?;
    let mut weights = weights.with_reduced_range(request.reduce_range);
    tell_not_finite(model, &mut weights, request, progress)?;
    if weights.quantized().next().is_none() {
        return Ok(weights);
    }
    if let RoundingChoice::Only(rounding) = request.rounding {
        weights = weights.rounded_by(rounding);
    }
    if let Some(why) = request.activations.obstacle(model.opset()) {
        let regions = weights.regions(model);
        if !regions.values.is_empty() {
            progress.warn(&format!("activations stay float: {why}"));
        }
        return Ok(weights.with_float_activations(&regions, &why));
    }
    // Without a product that could read them all is as for weights alone.
    let regions = weights.regions(model);
    let weights_only = Request { activations: Activations::Float, ..request.clone() };
    let request = if regions.values.is_empty() { &weights_only } else { request };
    let recipe = Recipe { model, request, weights, run, finished };
    let mut plan = match request.data {
        Some(data) => recipe.with_data(data, observed, progress)?,
        None => recipe.without_data(progress)?,
    };
    if activations != ActivationUse::Float {
        if regions.values.is_empty() {
            plan = plan.with_float_products(&regions);
        }
        if let Some(why) = plan.why_float_activations() {
            progress.warn(&format!("activations stay float, only weights are quantized: {why}"));
        }
    }
    Ok(plan)
}

/// What was chosen and why.
struct Chosen {
    choice: Choice,
    /// What is known of the model after the choice's edits.
    seen: Calibration,
    tried: Vec<Tried>,
}

/// Makes plans for one model and request.
struct Recipe<'a> {
    model: &'a Model,
    request: &'a Request<'a>,
    /// The plan of the weights alone.
    weights: Plan,
    run: &'a RunOptions,
    finished: &'a FinishedLayers,
}

/// What there is to choose.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    /// Edits that leave the float model's outputs as they are.
    edits: Vec<Adjustment>,
    range: RangeMethod,
    bias: Bias,
}

/// Whether biases are corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bias {
    Corrected,
    AsItIs,
}

/// Whether so few bits are left that what rounding does is worth a search. One bit is a sign.
fn is_narrow(scheme: Scheme) -> bool {
    match scheme {
        Scheme::Affine { bits, .. } | Scheme::Symmetric { bits, .. } => {
            (2..8).contains(&bits.get())
        }
        Scheme::FixedPoint { .. }
        | Scheme::Float { .. }
        | Scheme::Mx { .. }
        | Scheme::NvFp4 { .. } => false,
    }
}

impl Recipe<'_> {
    /// The model with some edits carried out.
    fn adjusted(&self, edits: &[Adjustment]) -> Result<Model> {
        let mut model = self.model.clone();
        adjust(&mut model, edits)?;
        Ok(model)
    }

    /// What methods of rounding learn from.
    fn learning(&self) -> Option<Learning<'_>> {
        let finished = self.finished;
        self.request.data.map(|data| Learning { data, run: self.run, finished })
    }

    /// What must be seen of a model to plan it.
    fn wanted(&self, model: &Model) -> Wanted {
        let values = match self.request.activations {
            Activations::Static { .. } => {
                self.weights.regions(model).values.into_iter().map(|v| v.value).collect()
            }
            _ => Vec::new(),
        };
        let mut channels = Vec::new();
        let products = self.products(model);
        let graph = model.graph();
        let pairs = equalization::pairs(graph, &Index::new(graph), &products);
        let clipped = pairs.into_iter().filter_map(|pair| pair.ceiling).map(|c| (c.value, c.axis));
        let read = products.iter().map(|product| (product.value.clone(), product.channel_axis()));
        for channel in read.chain(clipped) {
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        }
        // A scale that is measured at every call covers padding, too.
        let padding = match self.request.activations {
            Activations::Dynamic => Padding::Observed,
            _ => Padding::LeftOut,
        };
        Wanted { values, channels, padding }
    }

    fn products(&self, model: &Model) -> Vec<Product> {
        let graph = model.graph();
        let quantized: HashSet<&str> =
            self.weights.quantized().map(|(t, _)| t.tensor.as_str()).collect();
        products(graph, &Index::new(graph), &quantized)
    }

    /// The plan of a choice for the model with its edits.
    fn plan(&self, adjusted: &Model, choice: &Choice, seen: &Calibration) -> Result<Plan> {
        let mut plan = self.weights.clone();
        plan.adjustments = choice.edits.clone();
        let plan = match self.request.activations {
            Activations::Float => plan,
            Activations::Dynamic => {
                let inputs = if seen.rows > 0 { Inputs::Seen } else { Inputs::Unseen };
                plan.with_dynamic_activations(adjusted, inputs)
            }
            Activations::Static { bits, .. } => {
                let regions = plan.regions(adjusted);
                let scheme = self.activation_scheme(bits);
                plan.with_static_activations(&regions, seen, choice.range, scheme)
            }
        };
        match choice.bias {
            Bias::Corrected => bias_correction::corrected(adjusted, plan, &seen.channels),
            Bias::AsItIs => Ok(plan),
        }
    }

    fn activation_scheme(&self, bits: Bits) -> ActivationScheme {
        ActivationScheme { kind: self.request.target.activations(), bits }
    }

    /// A plan by what the calibration data shows.
    fn with_data(
        &self,
        data: &Dataset,
        observed: &mut Observed,
        progress: &dyn Progress,
    ) -> Result<Plan> {
        let seen = observed.of(self.model, data, self.wanted(self.model), self.run, progress)?;
        let Chosen { choice, seen, tried } = self.choose(data, seen, observed, progress)?;
        let adjusted = self.adjusted(&choice.edits)?;
        // What lies between two equalized layers was seen on a sample only.
        let seen = match choice.edits.iter().any(|e| e.method == Method::Equalization) {
            true => calibrate(&adjusted, data, &self.wanted(&adjusted), self.run, progress)?,
            false => seen,
        };
        let mut plan = self.plan(&adjusted, &choice, &seen)?;
        plan.tried = tried;
        observed.channels = seen.channels;
        let plan = match self.request.activations {
            Activations::Float => self.choose_rounding(plan, data, observed, progress)?,
            _ => plan,
        };
        self.choose_widths(plan, data, observed, progress)
    }

    /// A plan for which nothing is known but the model.
    fn without_data(&self, progress: &dyn Progress) -> Result<Plan> {
        let mut choice = self.plainest();
        if self.request.methods.allow(Method::SmoothQuant) {
            let unseen = Channels::new();
            choice.edits =
                self.propose(Method::SmoothQuant, &unseen, Without::Well, progress)?.edits;
        }
        let adjusted = self.adjusted(&choice.edits)?;
        self.plan(&adjusted, &choice, &Calibration::default())
    }

    fn plainest(&self) -> Choice {
        let range = match self.request.activations {
            Activations::Static { range, .. } => range.first(),
            _ => RangeMethod::MinMax,
        };
        Choice { edits: Vec::new(), range, bias: Bias::AsItIs }
    }

    /// What a method would do that leaves the outputs as they are: AWQ where activations stay float,
    /// the others where they become integers.
    /// Nothing where a weight could not be quantized any more afterwards.
    fn propose(
        &self,
        method: Method,
        channels: &Channels,
        without: Without,
        progress: &dyn Progress,
    ) -> Result<Proposal> {
        let proposal = self.proposed(method, channels, without)?;
        if let Some(why) = self.spoiled_by(&proposal)? {
            progress.warn(&format!("{method} is left out: {why}"));
            return Ok(Proposal::default());
        }
        Ok(proposal)
    }

    /// Which weight a proposal makes one that cannot be quantized, and why.
    fn spoiled_by(&self, proposal: &Proposal) -> Result<Option<String>> {
        if proposal.edits.is_empty() {
            return Ok(None);
        }
        let adjusted = self.adjusted(&proposal.edits)?;
        let graph = adjusted.graph();
        let index = Index::new(graph);
        for adjustment in &proposal.edits {
            let Edit::Multiply { tensor: name, .. } = &adjustment.edit else { continue };
            let Some(tensor) = index.initializer(name) else { continue };
            let values = adjusted.floats_released(tensor)?;
            if let Some(element) = values.iter().position(|value| !value.is_finite()) {
                return Ok(Some(format!("element {element} of '{name}' would be infinite")));
            }
            let planned = self.weights.quantized().any(|(planned, _)| planned.tensor == *name);
            let magnitude = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            if planned && is_below_scales((-magnitude, magnitude)) {
                return Ok(Some(format!("'{name}' would be so small that no scale holds it")));
            }
        }
        Ok(None)
    }

    fn proposed(&self, method: Method, channels: &Channels, without: Without) -> Result<Proposal> {
        // Digits after the point are those of the weights as they are.
        let Some(bits) = self.request.weights.bits() else { return Ok(Proposal::default()) };
        let levels = match self.request.activations {
            Activations::Float if method == Method::Awq => return self.propose_awq(without),
            Activations::Float => return Ok(Proposal::default()),
            Activations::Dynamic => ActivationScheme::UNSIGNED.levels(),
            Activations::Static { bits, .. } => self.activation_scheme(bits).levels(),
        };
        let steps = WeightSteps {
            // One bit: the mean magnitude with a sign. Half the widest weight is taken for it, so
            // that the integers lie as far apart as the widest weight is from zero.
            steps: f32::from(symmetric_max(bits)),
            per_output: match self.request.weights.granularity() {
                GranularityKind::Tensor => PerOutput::Shared,
                _ => PerOutput::Own,
            },
        };
        let products = self.products(self.model);
        match method {
            Method::Equalization => {
                equalization::equalize(self.model, &products, channels, levels, steps)
            }
            Method::SmoothQuant => {
                let graph = self.model.graph();
                let index = Index::new(graph);
                let pairs = equalization::pairs(graph, &index, &products);
                let equalized = pairs.iter().map(|p| p.value.as_str()).collect();
                smoothquant::smooth(
                    self.model,
                    &products,
                    channels,
                    &equalized,
                    levels,
                    steps,
                    &self.allowance(without),
                )
            }
            Method::Awq | Method::BiasCorrection => Ok(Proposal::default()),
        }
    }

    /// What a method may add.
    fn allowance(&self, without: Without) -> Allowance<'_> {
        let activations = self.request.activations.activation_use();
        match self.request.methods {
            Methods::Only(_) => Allowance::Any,
            Methods::Measured => Allowance::of(&self.weights, self.model, activations, without),
        }
    }

    /// At 8 bits little is lost by rounding: AWQ must be asked for.
    fn propose_awq(&self, without: Without) -> Result<Proposal> {
        let planned = self.weights.tensors.iter();
        let integers = planned.filter_map(|t| Some((t.tensor.as_str(), t.integers()?)));
        let asked = matches!(self.request.methods, Methods::Only(_));
        let integers: HashMap<&str, WeightScheme> =
            integers.filter(|(_, integers)| asked || is_narrow(integers.scheme)).collect();
        match self.learning() {
            Some(learning) if !integers.is_empty() => {
                awq::scale(self.model, &integers, learning, &self.allowance(without))
            }
            _ => Ok(Proposal::default()),
        }
    }
}
