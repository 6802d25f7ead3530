//! Recipes: from a prepared model, and data where they need it, to a plan.

use fewbits_onnx::Model;
use fewbits_quant::RangeMethod;
use fewbits_runtime::RunOptions;

use crate::Result;
use crate::calibrate::calibrate;
use crate::data::Dataset;
use crate::plan::{ActivationScheme, Plan, WeightOptions, plan_weights};
use crate::progress::Progress;

/// What activations are to become.
pub enum Activations<'a> {
    /// They stay float.
    Float,
    /// Integers with a scale measured at every call.
    Dynamic,
    /// Integers with a scale from calibration data.
    Static {
        /// The data.
        data: &'a Dataset,
        /// How a range follows from it.
        range: RangeMethod,
        /// The kind of integers.
        scheme: ActivationScheme,
    },
}

impl Activations<'_> {
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

/// Plans a prepared model.
pub fn plan(
    model: &Model,
    weights: &WeightOptions,
    activations: &Activations,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Plan> {
    let plan = plan_weights(model, weights, progress)?;
    if let Some(why) = activations.obstacle(model.opset()) {
        let regions = plan.regions(model);
        if !regions.values.is_empty() {
            progress.warn(&format!("activations stay float: {why}"));
        }
        return Ok(plan.with_float_activations(&regions, &why));
    }
    match activations {
        Activations::Float => Ok(plan),
        Activations::Dynamic => Ok(plan.with_dynamic_activations(model)),
        Activations::Static { data, range, scheme } => {
            let regions = plan.regions(model);
            let values: Vec<String> = regions.values.iter().map(|v| v.value.clone()).collect();
            let calibration = calibrate(model, data, &values, run, progress)?;
            Ok(plan.with_static_activations(&regions, &calibration, *range, *scheme))
        }
    }
}
