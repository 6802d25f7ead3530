//! The one function that carries out a plan.

mod activations;
mod checkpoint;
mod layers;
mod wide_fixed_point;

use std::collections::HashMap;
use std::path::Path;

pub use checkpoint::Checkpoint;
use fewbits_onnx::passes::float_products::keep_float_products;
use fewbits_onnx::passes::{cleanup, qdq};
use fewbits_onnx::qweight::{QWeightWriter, ReadBy};
use fewbits_onnx::{Model, share_equal_initializers};
use fewbits_quant::{Inputs, QTensor};
pub use layers::LayerRounding;
use rayon::prelude::*;

use crate::adjust::adjust;
use crate::digest::digest_of_file;
use crate::limits::WeightLimits;
use crate::plan::{BiasForm, Plan, PlannedTensor, WeightScheme};
use crate::progress::Progress;
use crate::{Error, Result};

/// Quantizes a prepared model as the plan says. Methods of rounding that look at what weights are
/// multiplied by learn that from `rounding`.
///
/// # Errors
/// If the plan [does not fit](Plan::check_fits) the model or makes no sense for its target; if its
/// methods need data and there are none.
pub fn apply(
    mut model: Model,
    plan: &Plan,
    rounding: Option<LayerRounding>,
    progress: &dyn Progress,
) -> Result<Model> {
    if let Some(reason) = plan.obstacle() {
        return Err(Error::Target { reason });
    }
    plan.check_fits(&model)?;
    progress.start("quantizing", plan.quantized().count() as u64);
    adjust(&mut model, &plan.adjustments)?;
    wide_fixed_point::round(&mut model, plan)?;
    let weights = weights_of(&model, plan, rounding, progress)?;
    let model = write(model, plan, weights)?;
    progress.finish();
    Ok(model)
}

/// Writes an adjusted model with `weights`, the integers of every weight that the plan quantizes, in
/// their places, and what the plan says of activations.
///
/// # Errors
/// If a range or axis of the plan makes no sense for the model.
pub(crate) fn write(
    mut model: Model,
    plan: &Plan,
    mut weights: HashMap<String, QTensor>,
) -> Result<Model> {
    let params = plan.activation_params()?;
    activations::check_axes(&model, &weights, &params)?;
    if plan.target.bias() == BiasForm::Integer {
        activations::integer_biases(&mut model, &weights, &params)?;
    }
    let in_products = activations::dynamic_products(&mut model, plan, &weights);
    cleanup::drop_dead(model.graph_mut());
    let shapes = activations::shapes_of_weights(model.graph());
    let beside_quantized = activations::beside_quantized(model.graph(), &params);
    let mut writer = QWeightWriter::new(&mut model, plan.target.weights(plan.activation_use()));
    for (planned, _) in plan.quantized() {
        // A weight that only dynamic products read is written with them.
        if let Some(weight) = weights.remove(planned.tensor.as_str())
            && writer.has(&planned.tensor)
        {
            // Others read it, too: the same integers, shared below.
            let in_bytes = in_products
                .contains(&planned.tensor)
                .then(|| activations::in_bytes(&weight))
                .flatten();
            let read_by = match beside_quantized.contains(&planned.tensor) {
                true => ReadBy::Integers,
                false => ReadBy::Floats,
            };
            writer.replace(&planned.tensor, in_bytes.unwrap_or(weight), read_by)?;
        }
    }
    writer.finish();
    if !params.is_empty() {
        qdq::quantize_activations(model.graph_mut(), &params);
        if plan.target.bias() == BiasForm::Integer {
            keep_float_products(model.graph_mut(), &shapes);
        }
        qdq::write_zero_points_of_gemm(model.graph_mut());
    }
    cleanup::cleanup(model.graph_mut());
    share_equal_initializers(model.graph_mut());
    model.set_metadata("fewbits.version", env!("CARGO_PKG_VERSION"));
    model.set_metadata("fewbits.plan", &plan.digest());
    Ok(model)
}

/// The integers of every planned weight of an adjusted model.
///
/// # Errors
/// If a planned tensor is not there, has another shape, or is to be rounded by data that is not given.
pub(crate) fn weights_of(
    model: &Model,
    plan: &Plan,
    rounding: Option<LayerRounding>,
    progress: &dyn Progress,
) -> Result<HashMap<String, QTensor>> {
    let limits = WeightLimits::new(model, plan)?;
    let mut planned: Vec<(&PlannedTensor, WeightScheme)> = Vec::new();
    for (tensor, integers) in plan.tensors.iter().filter_map(|t| Some((t, t.integers()?))) {
        if !wide_fixed_point::is_wide(model, tensor, integers.scheme)? {
            planned.push((tensor, integers));
        }
    }
    match (planned.iter().find(|(_, integers)| integers.rounding.needs_inputs()), rounding) {
        (None, _) => planned
            .par_iter()
            .map(|&(planned, integers)| {
                let weight = quantize_one(model, planned, integers, None, &limits)?;
                progress.advance(1);
                Ok((planned.tensor.clone(), weight))
            })
            .collect(),
        (Some(_), Some(LayerRounding { learning, checkpoint })) => {
            let checkpoint = checkpoint.of_plan(plan, &limits);
            layers::layer_by_layer(model, &planned, &limits, learning, &checkpoint, progress)
        }
        (Some((planned, integers)), None) => {
            Err(Error::NeedsData { tensor: planned.tensor.clone(), rounding: integers.rounding })
        }
    }
}

/// The integers of one weight within its limits; without inputs a method that needs them rounds to nearest.
fn quantize_one(
    model: &Model,
    planned: &PlannedTensor,
    integers: WeightScheme,
    inputs: Option<Inputs>,
    limits: &WeightLimits,
) -> Result<QTensor> {
    let tensor = model.graph().find_initializer(&planned.tensor);
    let values = model.floats_released(tensor.expect("the plan fits the model"))?;
    integers
        .quantize(&values, &planned.shape, inputs, limits.of(&planned.tensor))
        .map_err(|source| Error::Quant { tensor: planned.tensor.clone(), source })
}

/// Identifies the file of a model; one that was read from none has no digest.
///
/// # Errors
/// If the file cannot be read again.
pub(crate) fn source_digest(model: &Model) -> Result<Option<String>> {
    let of = |path: &Path| {
        digest_of_file(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
    };
    model.path().map(of).transpose()
}
