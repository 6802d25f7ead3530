//! A model as the quantizer wants it.

use fewbits_onnx::passes::lower_ml::Lowered;
use fewbits_onnx::passes::{cleanup, constants, fold_batch_norm, lower_ml, upgrade_opset};
use fewbits_onnx::{Model, OnnxError};
use fewbits_runtime::fold_constants;

use crate::Result;

/// The lowest IR version whose initializers need not be inputs too.
const IR_WITHOUT_INITIALIZER_INPUTS: i64 = 4;

/// The first opset whose `DequantizeLinear` takes a scale for each channel.
const OPSET_OF_CHANNEL_SCALES: i64 = 13;

/// What preparation did, and what it could not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Classical operators: those that standard ones replace now, and those left.
    pub lowered: Lowered,
    /// What a person should know of the rest, a line each.
    pub notes: Vec<String>,
}

/// Lowers classical operators to standard ones, gathers and folds constants, folds batch
/// norms, brings an old opset to the one that quantized weights need, and drops what changes
/// nothing. The outputs stay the same.
///
/// # Errors
/// If a tensor is damaged, or an operator's attributes contradict each other.
pub fn prepare(model: &mut Model) -> Result<Prepared> {
    prepare_for(model, OPSET_OF_CHANNEL_SCALES)
}

/// As [`prepare`], and brings an opset below `least_opset` to that one.
///
/// # Errors
/// Those of [`prepare`].
pub fn prepare_for(model: &mut Model, least_opset: i64) -> Result<Prepared> {
    let least_opset = least_opset.max(OPSET_OF_CHANNEL_SCALES);
    let mut notes = Vec::new();
    let lowered = lower_ml::lower_ml(model)?;
    drop_initializer_inputs(model);
    if (1..least_opset).contains(&model.opset()) {
        // A model that cannot be brought there keeps its opset: weights have a form for every one.
        if let Err(error) = upgrade_opset::upgrade_opset(model, least_opset) {
            notes.push(note_of(model.opset(), &error));
        }
    }
    constants::constants_to_initializers(model.graph_mut());
    fold_constants(model)?;
    fold_batch_norm::fold_batch_norm(model.graph_mut());
    cleanup::cleanup(model.graph_mut());
    Ok(Prepared { lowered, notes })
}

fn note_of(opset: i64, error: &OnnxError) -> String {
    let why = match error {
        OnnxError::Opset { reason, .. } => reason.clone(),
        error => error.to_string(),
    };
    format!("the model stays at opset {opset}, which has fewer quantized forms: {why}")
}

/// Old models list every initializer as an input too. Newer ones do so only for defaults that a
/// caller may replace.
fn drop_initializer_inputs(model: &mut Model) {
    if model.proto().ir_version() >= IR_WITHOUT_INITIALIZER_INPUTS {
        return;
    }
    model.proto_mut().ir_version = Some(IR_WITHOUT_INITIALIZER_INPUTS);
    let graph = model.graph_mut();
    let required: Vec<_> = graph.required_inputs().cloned().collect();
    graph.input = required;
}
