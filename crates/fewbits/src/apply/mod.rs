//! The one function that carries out a plan.

mod activations;
mod adjust;
mod finished;
mod layers;

use std::collections::HashMap;
use std::path::Path;

pub(crate) use adjust::adjust;
use fewbits_onnx::Model;
use fewbits_onnx::passes::{cleanup, qdq};
use fewbits_onnx::qweight::QWeightWriter;
use fewbits_quant::{Inputs, QTensor};
pub use finished::FinishedLayers;
pub use layers::Learning;
use rayon::prelude::*;

use crate::plan::{BiasForm, Plan, PlannedTensor, WeightScheme, short_digest};
use crate::progress::Progress;
use crate::{Error, Result};

/// Quantizes a prepared model as the plan says. Methods of rounding that look at what weights are
/// multiplied by learn that from `learning`.
///
/// # Errors
/// If the plan names a tensor that the model does not have, or one of another shape, or makes no
/// sense for its target; if its methods need data and there are none.
pub fn apply(
    mut model: Model,
    plan: &Plan,
    learning: Option<Learning>,
    progress: &dyn Progress,
) -> Result<Model> {
    if let Some(reason) = plan.obstacle() {
        return Err(Error::Target { reason });
    }
    progress.start("quantizing", plan.quantized().count() as u64);
    adjust(&mut model, &plan.adjustments)?;
    let weights = weights_of(&model, plan, learning, progress)?;
    let model = write(model, plan, weights)?;
    progress.finish();
    Ok(model)
}

/// Writes an adjusted model with `weights`, the integers of every weight that the plan quantizes, in
/// their places, and what the plan says of activations.
///
/// # Errors
/// If the plan names a value that the model does not have.
pub(crate) fn write(
    mut model: Model,
    plan: &Plan,
    mut weights: HashMap<String, QTensor>,
) -> Result<Model> {
    let params = activations::params(&model, plan)?;
    activations::check_axes(&model, &weights, &params)?;
    if plan.target.bias() == BiasForm::Integer {
        activations::integer_biases(&mut model, &weights, &params)?;
    }
    let in_products = activations::dynamic_products(&mut model, plan, &weights);
    cleanup::drop_dead(model.graph_mut());
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
            writer.replace(&planned.tensor, in_bytes.unwrap_or(weight))?;
        }
    }
    writer.finish();
    if !params.is_empty() {
        qdq::quantize_activations(model.graph_mut(), &params);
        qdq::write_zero_points_of_gemm(model.graph_mut());
    }
    cleanup::cleanup(model.graph_mut());
    cleanup::share_equal_initializers(model.graph_mut());
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
    learning: Option<Learning>,
    progress: &dyn Progress,
) -> Result<HashMap<String, QTensor>> {
    let planned: Vec<(&PlannedTensor, WeightScheme)> =
        plan.tensors.iter().filter_map(|t| Some((t, t.integers()?))).collect();
    match (planned.iter().find(|(_, integers)| integers.rounding.needs_inputs()), learning) {
        (None, _) => planned
            .par_iter()
            .map(|&(planned, integers)| {
                let weight = quantize_one(model, planned, integers, None)?;
                progress.advance(1);
                Ok((planned.tensor.clone(), weight))
            })
            .collect(),
        (Some(_), Some(learning)) => {
            let finished = learning.finished.of_plan(plan);
            layers::layer_by_layer(model, &planned, learning, &finished, progress)
        }
        (Some((planned, integers)), None) => {
            Err(Error::NeedsData { tensor: planned.tensor.clone(), rounding: integers.rounding })
        }
    }
}

/// The integers of one weight; without inputs a method that needs them rounds to nearest.
fn quantize_one(
    model: &Model,
    planned: &PlannedTensor,
    integers: WeightScheme,
    inputs: Option<Inputs>,
) -> Result<QTensor> {
    let mismatch = |reason: String| Error::PlanMismatch { reason };
    let tensor = model.graph().find_initializer(&planned.tensor).ok_or_else(|| {
        mismatch(format!("the model has no constant tensor '{}'", planned.tensor))
    })?;
    let shape = tensor.shape()?;
    if shape != planned.shape {
        return Err(mismatch(format!(
            "tensor '{}' has shape {shape:?}, the plan says {:?}",
            planned.tensor, planned.shape
        )));
    }
    let values = model.floats_released(tensor)?;
    integers
        .quantize(&values, &shape, inputs)
        .map_err(|source| Error::Quant { tensor: planned.tensor.clone(), source })
}

/// Identifies a model file: the first 64 bits of its BLAKE3 hash, in hexadecimal.
pub fn source_digest(path: &Path) -> Result<String> {
    let unreadable = |source| Error::Io { path: path.to_path_buf(), source };
    let mut hasher = blake3::Hasher::new();
    // Read, not mapped: mapped pages would count as this process's memory.
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    hasher.update_reader(&mut file).map_err(unreadable)?;
    Ok(short_digest(&hasher.finalize()))
}
