//! Recipes: from a prepared model, and data where they need it, to a plan.

mod choose;
mod choose_rounding;
mod trial;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_quant::{Bits, RangeMethod, Rounding, Scheme, symmetric_max};
use fewbits_runtime::RunOptions;

use crate::apply::{FinishedLayers, Learning, adjust};
use crate::calibrate::{Calibration, Channels, Padding, Wanted, calibrate};
use crate::data::Dataset;
use crate::methods::{
    Methods, PerOutput, Product, Proposal, WeightSteps, awq, bias_correction, equalization,
    products, smoothquant,
};
use crate::plan::{
    ActivationScheme, ActivationUse, Adjustment, GranularityKind, Inputs, Method, Plan, Target,
    Tried, WeightOptions, WeightScheme, plan_weights,
};
use crate::progress::Progress;
use crate::{Error, Result};
use trial::Trial;

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

/// What was observed of a float model on its calibration data, for further plans of both: it does
/// not depend on what weights become.
#[derive(Default)]
pub struct Observed {
    seen: Vec<(Wanted, Calibration)>,
    /// By the rows of their samples.
    trials: Vec<(usize, Rc<Trial>)>,
}

impl Observed {
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

    /// The float model's outputs on a sample of the data; `None` where it cannot be run as a whole.
    fn trial(&mut self, model: &Model, sample: &Dataset, run: &RunOptions) -> Option<Rc<Trial>> {
        let rows = sample.rows();
        if let Some((_, trial)) = self.trials.iter().find(|(known, _)| *known == rows) {
            return Some(trial.clone());
        }
        let trial = Rc::new(Trial::new(model, sample.clone(), run).ok()?);
        self.trials.push((rows, trial.clone()));
        Some(trial)
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
    let mut weights = plan_weights(model, &request.weights, activations, request.target, progress)?;
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
    let recipe = Recipe { model, request, weights, run, finished };
    let Some(data) = request.data else {
        return recipe.without_data();
    };
    let seen = observed.of(model, data, recipe.wanted(model), run, progress)?;
    let Chosen { choice, seen, tried } = recipe.choose(data, seen, observed, progress)?;
    let adjusted = recipe.adjusted(&choice.edits)?;
    // What lies between two equalized layers was seen on a sample only.
    let seen = match choice.edits.iter().any(|e| e.method == Method::Equalization) {
        true => calibrate(&adjusted, data, &recipe.wanted(&adjusted), run, progress)?,
        false => seen,
    };
    let mut plan = recipe.plan(&adjusted, &choice, &seen)?;
    plan.tried = tried;
    match request.activations {
        Activations::Float => recipe.choose_rounding(plan, data, observed, progress),
        _ => Ok(plan),
    }
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
        if choice.bias == Bias::Corrected {
            let schemes: HashMap<&str, Scheme> =
                self.weights.quantized().map(|(t, scheme)| (t.tensor.as_str(), scheme)).collect();
            let products = self.products(adjusted);
            let edits = bias_correction::correct(adjusted, &products, &seen.channels, &schemes)?;
            plan.adjustments.extend(edits);
        }
        Ok(match self.request.activations {
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
        })
    }

    fn activation_scheme(&self, bits: Bits) -> ActivationScheme {
        ActivationScheme { kind: self.request.target.activations(), bits }
    }

    /// A plan for which nothing is known but the model.
    fn without_data(&self) -> Result<Plan> {
        let mut choice = self.plainest();
        if self.request.methods.allow(Method::SmoothQuant) {
            choice.edits = self.propose(Method::SmoothQuant, &Channels::new())?.edits;
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
    fn propose(&self, method: Method, channels: &Channels) -> Result<Proposal> {
        let levels = match self.request.activations {
            Activations::Float if method == Method::Awq => return self.propose_awq(),
            Activations::Float => return Ok(Proposal::default()),
            Activations::Dynamic => ActivationScheme::UNSIGNED.levels(),
            Activations::Static { bits, .. } => self.activation_scheme(bits).levels(),
        };
        let steps = WeightSteps {
            // One bit: the mean magnitude with a sign. Half the widest weight is taken for it, so
            // that the integers lie as far apart as the widest weight is from zero.
            steps: f32::from(symmetric_max(self.request.weights.bits())),
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
                smoothquant::smooth(self.model, &products, channels, &equalized, levels, steps)
            }
            Method::Awq | Method::BiasCorrection => Ok(Proposal::default()),
        }
    }

    /// At 8 bits little is lost by rounding: AWQ must be asked for.
    fn propose_awq(&self) -> Result<Proposal> {
        let planned = self.weights.tensors.iter();
        let integers = planned.filter_map(|t| Some((t.tensor.as_str(), t.integers()?)));
        let asked = matches!(self.request.methods, Methods::Only(_));
        let integers: HashMap<&str, WeightScheme> =
            integers.filter(|(_, integers)| asked || is_narrow(integers.scheme)).collect();
        match self.learning() {
            Some(learning) if !integers.is_empty() => awq::scale(self.model, &integers, learning),
            _ => Ok(Proposal::default()),
        }
    }
}
