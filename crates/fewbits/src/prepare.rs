//! A model as the quantizer wants it.

use std::collections::{BTreeMap, HashMap, HashSet};

use fewbits_engine::fold_constants;
use fewbits_onnx::facts::{IntegerForm, ReadAs};
use fewbits_onnx::passes::lower_ml::{KeptNode, Lowered};
use fewbits_onnx::passes::single_precision::{compute_in_single, is_other_float};
use fewbits_onnx::passes::{
    cleanup, constants, einsum, fold_batch_norm, hoist, inline, learnt_scales, lower_ml, unfuse,
    unpack, upgrade_opset,
};
use fewbits_onnx::proto::DataType;
use fewbits_onnx::{Model, OnnxError};

use crate::Result;
use crate::layers::{UseForm, constants as constants_of, is_product};
use crate::plan::{IntegerWeights, PlacementExtent, placement};

/// The lowest IR version whose initializers need not be inputs too.
const IR_WITHOUT_INITIALIZER_INPUTS: i64 = 4;

/// The first opset whose `DequantizeLinear` takes a scale for each channel.
const OPSET_OF_CHANNEL_SCALES: i64 = 13;

/// What preparation did, and what it could not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Classical operators: those that standard ones replace now, and those left.
    pub lowered: Lowered,
    /// Weights of quantization-aware training that are integers now, with the scales that were learnt.
    pub learnt: usize,
    /// What a person should know of the rest, a line each.
    pub notes: Vec<String>,
}

/// Inlines functions, lowers classical operators to standard ones, splits fused ones, gathers and folds constants, folds batch
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
    prepare_as(model, least_opset, IntegerWeights::Kept)
}

/// As [`prepare_for`], and makes floats of integers that weights have where they are to become others.
///
/// # Errors
/// Those of [`prepare`].
pub fn prepare_as(
    model: &mut Model,
    least_opset: i64,
    integer_weights: IntegerWeights,
) -> Result<Prepared> {
    let least_opset = least_opset.max(OPSET_OF_CHANNEL_SCALES);
    let mut notes = notes_of(&inline::inline_functions(model));
    let lowered = lower_ml::lower_ml(model)?;
    drop_initializer_inputs(model);
    if (1..least_opset).contains(&model.opset()) {
        // A model that cannot be brought there keeps its opset: weights have a form for every one.
        if let Err(error) = upgrade_opset::upgrade_opset(model, least_opset) {
            notes.push(note_of(model.opset(), &error));
        }
    }
    constants::constants_to_initializers(model.graph_mut());
    notes.extend(notes_of(&unfuse::unfuse(model)));
    einsum::to_products(model.graph_mut());
    hoist::hoist_weights(model.graph_mut());
    let mut learnt = learnt_scales::fold_learnt(model.graph_mut())?;
    if integer_weights == IntegerWeights::Requantized {
        unpack::unpack_weights(model.graph_mut(), unpack::is_of_bytes);
        learnt = 0;
    }
    if learnt > 0 {
        notes.push(format!("{learnt} weights are stored as the integers that training learnt"));
    }
    fold_constants(model)?;
    fold_batch_norm::fold_batch_norm(model.graph_mut());
    cleanup::cleanup(model.graph_mut());
    Ok(Prepared { lowered, learnt, notes })
}

/// Lets products of halves and doubles, and what lies between them, compute in FLOAT, so that their
/// activations can become integers: no operator quantizes doubles, and before opset 19 none halves.
/// Weights that would not pay for scales are left alone.
///
/// # Errors
/// If a constant is damaged.
pub fn products_in_single(model: &mut Model, extent: PlacementExtent) -> Result<()> {
    /// What the operators of a weight take.
    const OPERATOR_BYTES: u64 = 64;
    let graph = model.graph();
    let mut weights: HashMap<String, DataType> = HashMap::new();
    for constant in constants_of(graph) {
        let multiplied = constant.uses.iter().any(|usage| usage.form == UseForm::Integer);
        let Some(tensor) = graph.find_initializer(&constant.tensor).filter(|_| multiplied) else {
            continue;
        };
        let data_type = tensor.element_type()?;
        let elements = constant.shape.iter().product::<usize>() as u64;
        let channels = constant.axes().and_then(|axes| axes.channel);
        let scales = channels.map_or(1, |axis| constant.shape[axis]) as u64;
        let pays = elements + 4 * scales + OPERATOR_BYTES < tensor.stored_bytes();
        if is_other_float(data_type) && pays {
            weights.insert(constant.tensor, data_type);
        }
    }
    if weights.is_empty() {
        return Ok(());
    }
    let names: HashSet<&str> = weights.keys().map(String::as_str).collect();
    let quantized: HashSet<String> =
        placement(graph, &names, extent).values.into_iter().map(|v| v.value).collect();
    // The products and the values beside them, then what hands these on.
    let mut nodes: BTreeMap<usize, DataType> = BTreeMap::new();
    let mut single: HashMap<&str, DataType> = HashMap::new();
    for (position, node) in graph.node.iter().enumerate() {
        let weight = |input: usize| node.input.get(input).and_then(|name| weights.get(name));
        if let Some(&data_type) = weight(1).filter(|_| is_product(node)) {
            nodes.insert(position, data_type);
            single.insert(&node.input[0], data_type);
            single.insert(&node.output[0], data_type);
        } else if let Some(&data_type) = weight(0).filter(|_| ReadAs::of(node, 0).is_looked_up()) {
            nodes.insert(position, data_type);
        }
    }
    for (position, node) in graph.node.iter().enumerate() {
        let Some(form) = IntegerForm::of(node).filter(|_| !nodes.contains_key(&position)) else {
            continue;
        };
        if !quantized.contains(&node.output[0]) {
            continue;
        }
        let values = form.values(node).iter().filter(|name| !name.is_empty());
        let mut read = values.filter(|name| graph.find_initializer(name).is_none());
        let Some(&data_type) = read.next().and_then(|name| single.get(name.as_str())) else {
            continue;
        };
        if read.all(|name| single.get(name.as_str()) == Some(&data_type)) {
            nodes.insert(position, data_type);
            single.insert(&node.output[0], data_type);
        }
    }
    compute_in_single(model.graph_mut(), &nodes)?;
    Ok(())
}

/// A line for each reason why nodes of an operator stay, with the first of them.
fn notes_of(kept: &[KeptNode]) -> Vec<String> {
    let mut alike: Vec<(&KeptNode, usize)> = Vec::new();
    for kept in kept {
        match alike.iter_mut().find(|(first, _)| (&first.op, &first.why) == (&kept.op, &kept.why)) {
            Some((_, count)) => *count += 1,
            None => alike.push((kept, 1)),
        }
    }
    let note = |(kept, count): (&KeptNode, usize)| {
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        format!("{} of '{}'{others} stays as it is: {}", kept.op, kept.node, kept.why)
    };
    alike.into_iter().map(note).collect()
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
