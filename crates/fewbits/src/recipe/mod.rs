//! Recipes: from a prepared model, and data where they need it, to a plan.

mod choose;
mod choose_rounding;
mod choose_widths;
mod name;
mod observed;
mod propose;
mod request;
mod trial;

use std::collections::HashSet;

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_quant::{Bits, RangeMethod};

use crate::adjust::adjust;
use crate::apply::{Checkpoint, LayerRounding};
use crate::calibrate::{Calibration, Channels, Padding, Wanted, calibrate};
use crate::data::Dataset;
use crate::error::file_of;
use crate::inputs::Learning;
use crate::methods::{Without, bias_correction, equalization};
use crate::not_finite::{Reach, not_finite};
use crate::plan::{
    ActivationScheme, ActivationUse, Adjustment, Becomes, Method, ModelInputs, Plan, Tried,
    plan_weights,
};
use crate::progress::Progress;
use crate::{Error, Result};
pub use name::{Recipe, RecipeChoice, activation_bits};
pub use observed::Observed;
use propose::is_narrow;
pub use request::{Activations, MethodChoice, RangeChoice, Request, RoundingChoice};
pub(crate) use trial::Trial;

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
    let checkpoint = Checkpoint::default();
    let made = plan_with(model, request, &mut Observed::default(), &checkpoint, run, progress)?;
    Ok(made.plan)
}

/// A plan, and what changes with it.
pub struct Made {
    /// The plan.
    pub plan: Plan,
    /// What was seen of the channels that its products read, by which biases are corrected; nothing where
    /// there is no data.
    pub channels: Channels,
}

impl From<Plan> for Made {
    fn from(plan: Plan) -> Made {
        Made { plan, channels: Channels::new() }
    }
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
    let integers: HashSet<String> = plan.quantized().map(|(t, _)| t.tensor.clone()).collect();
    for constant in not_finite(model, |name| !integers.contains(name))? {
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

/// As [`plan`], with what earlier plans of the same model and data observed and rounded; what is rounded
/// to try it is kept for [`apply`](crate::apply::apply).
///
/// # Errors
/// Those of [`plan`].
pub fn plan_with(
    model: &Model,
    request: &Request,
    observed: &mut Observed,
    checkpoint: &Checkpoint,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Made> {
    let activations = request.activations.activation_use();
    if let Some(reason) = request.contradiction() {
        return Err(Error::Request { reason });
    }
    if let Some(reason) = request.target.obstacle(&request.weights, activations) {
        return Err(Error::Target { reason });
    }
    if let Some(warning) = request.target.warning(activations) {
        progress.warn(&warning);
    }
    let weights = plan_weights(model, &request.weights, activations, request.target, progress)?;
    let mut weights = weights.with_reduced_range(request.reduce_range);
    tell_not_finite(model, &mut weights, request, progress)?;
    if weights.quantized().next().is_none() {
        return Ok(weights.into());
    }
    if let RoundingChoice::Only(rounding) = request.rounding {
        weights = weights.rounded_by(rounding);
    }
    if let Some(why) = request.activations.obstacle(model.opset()) {
        let placement = weights.placement(model);
        if !placement.values.is_empty() {
            progress.warn(&format!("activations stay float: {why}"));
        }
        return Ok(weights.with_float_activations(&placement, &why).into());
    }
    // Without a product that could read them all is as for weights alone.
    let placement = weights.placement(model);
    let weights_only = Request { activations: Activations::Float, ..request.clone() };
    let request = if placement.values.is_empty() { &weights_only } else { request };
    let recipe = Planner { model, request, weights, run, checkpoint };
    let Made { mut plan, channels } = match request.data {
        Some(data) => recipe.with_data(data, observed, progress)?,
        None => recipe.without_data(progress)?.into(),
    };
    if activations != ActivationUse::Float {
        if placement.values.is_empty() {
            plan = plan.with_float_products(&placement);
        }
        if let Some(why) = plan.why_float_activations() {
            progress.warn(&format!("activations stay float, only weights are quantized: {why}"));
        }
    }
    Ok(Made { plan, channels })
}

/// What was chosen and why.
struct Chosen {
    choice: Choice,
    /// What is known of the model after the choice's edits.
    seen: Calibration,
    tried: Vec<Tried>,
}

/// Makes plans for one model and request.
struct Planner<'a> {
    model: &'a Model,
    request: &'a Request<'a>,
    /// The plan of the weights alone.
    weights: Plan,
    run: &'a RunOptions,
    checkpoint: &'a Checkpoint,
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

impl Planner<'_> {
    /// The model with some edits carried out.
    fn adjusted(&self, edits: &[Adjustment]) -> Result<Model> {
        let mut model = self.model.clone();
        adjust(&mut model, edits)?;
        Ok(model)
    }

    /// What methods of rounding learn from.
    fn learning(&self) -> Option<Learning<'_>> {
        self.request.data.map(|data| Learning { data, run: self.run })
    }

    /// What weights are rounded by.
    fn rounding(&self) -> Option<LayerRounding<'_>> {
        self.learning().map(|learning| LayerRounding { learning, checkpoint: self.checkpoint })
    }

    /// What must be seen of a model to plan it.
    fn wanted(&self, model: &Model) -> Wanted {
        let values = match self.request.activations {
            Activations::Static { .. } => {
                self.weights.placement(model).values.into_iter().map(|v| v.value).collect()
            }
            _ => Vec::new(),
        };
        let mut channels = Vec::new();
        let products = self.weights.products(model);
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

    /// The plan of a choice for the model with its edits.
    fn plan(&self, adjusted: &Model, choice: &Choice, seen: &Calibration) -> Result<Plan> {
        let mut plan = self.weights.clone();
        plan.adjustments = choice.edits.clone();
        let plan = match self.request.activations {
            Activations::Float => plan,
            Activations::Dynamic => {
                let inputs = if seen.rows > 0 { ModelInputs::Seen } else { ModelInputs::Unseen };
                plan.with_dynamic_activations(adjusted, inputs)
            }
            Activations::Static { bits, .. } => {
                let placement = plan.placement(adjusted);
                let scheme = self.activation_scheme(bits);
                plan.with_static_activations(&placement, seen, choice.range, scheme)
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
    ) -> Result<Made> {
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
        let plan = match self.request.activations {
            Activations::Float => self.choose_rounding(plan, data, observed, progress)?,
            _ => plan,
        };
        let plan = self.choose_widths(plan, data, observed, progress)?;
        Ok(Made { plan, channels: seen.channels })
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
}
