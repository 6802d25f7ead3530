//! Attention of several heads: products, a mask and a softmax.

use super::emit::{Emit, Why, input, without_input, without_output};
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// What onnxruntime adds to the scores of padding where a node does not say.
const MASKED: f32 = -10_000.0;

/// Queries, keys and values, each `[batch, positions, features]`.
struct Projected {
    query: String,
    key: String,
    value: String,
    /// The features of queries.
    width: usize,
    data_type: DataType,
}

/// `Attention`: queries, keys and values are one product with one weight.
pub(super) fn of_weights(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    without_input(node, 4, "a past")?;
    without_input(node, 6, "the length of its past")?;
    without_output(node, 1, "its present")?;
    if node.int("do_rotary", 0) != 0 {
        return Err("it turns positions (do_rotary)".into());
    }
    let (x, weight) = (input(node, 0)?, input(node, 1)?);
    let data_type = emit.type_of(&[weight, x])?;
    let columns = emit.last_size(weight)?;
    let widths = match node.ints("qkv_hidden_sizes") {
        [] => vec![columns / 3; 3],
        given => given.iter().map(|&width| usize::try_from(width).unwrap_or(0)).collect(),
    };
    if widths.len() != 3 || widths.iter().sum::<usize>() != columns || widths[0] != widths[1] {
        return Err("the sizes of its queries, keys and values are wrong".into());
    }
    let mut projected = emit.op("MatMul", &[x, weight]);
    if let Some(bias) = node.given_input(2) {
        projected = emit.op("Add", &[&projected, bias]);
    }
    let [query, key, value] = parts(emit, &projected, [widths[0], widths[1], widths[2]]);
    let projected = Projected { query, key, value, width: widths[0], data_type };
    attend(
        node,
        emit,
        &projected,
        Masks { padding: node.given_input(3), bias: node.given_input(5) },
    )
}

/// `MultiHeadAttention`: queries, keys and values come as they are, with a bias for all of them.
pub(super) fn of_heads(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    for (place, what) in [(6, "a past"), (7, "a past"), (8, "a past"), (9, "beams")] {
        without_input(node, place, what)?;
    }
    for (place, what) in [(1, "its present"), (2, "its present"), (3, "its scores")] {
        without_output(node, place, what)?;
    }
    let query = input(node, 0)?;
    let (Some(key), Some(value)) = (node.given_input(1), node.given_input(2)) else {
        return Err("its queries, keys and values come in one".into());
    };
    if [query, key, value].into_iter().map(|x| emit.rank(x)).collect::<Result<Vec<_>, _>>()?
        != [3; 3]
    {
        return Err("its queries, keys and values do not have three axes".into());
    }
    let data_type = emit.type_of(&[query, key, value])?;
    let (width, values) = (emit.last_size(query)?, emit.last_size(value)?);
    let mut projected =
        Projected { query: query.into(), key: key.into(), value: value.into(), width, data_type };
    if let Some(bias) = node.given_input(3) {
        let [of_query, of_key, of_value] = parts(emit, bias, [width, width, values]);
        projected.query = emit.op("Add", &[query, &of_query]);
        projected.key = emit.op("Add", &[key, &of_key]);
        projected.value = emit.op("Add", &[value, &of_value]);
    }
    attend(
        node,
        emit,
        &projected,
        Masks { padding: node.given_input(4), bias: node.given_input(5) },
    )
}

/// What lies behind each other along the last axis, in parts of these sizes.
fn parts(emit: &mut Emit, value: &str, sizes: [usize; 3]) -> [String; 3] {
    let axis = emit.ints(&[-1]);
    let mut start = 0;
    sizes.map(|size| {
        let (first, last) = (emit.ints(&[start]), emit.ints(&[start + size as i64]));
        start += size as i64;
        emit.op("Slice", &[value, &first, &last, &axis])
    })
}

/// What is added to scores.
struct Masks<'a> {
    padding: Option<&'a str>,
    bias: Option<&'a str>,
}

fn attend(
    node: &NodeProto,
    emit: &mut Emit,
    projected: &Projected,
    masks: Masks,
) -> Result<(), Why> {
    let data_type = projected.data_type;
    let heads = usize::try_from(node.int("num_heads", 0)).unwrap_or(0);
    if heads == 0 || !projected.width.is_multiple_of(heads) {
        return Err("its features are no multiple of its heads".into());
    }
    let scale = match node.float("scale", 0.0) {
        0.0 => 1.0 / ((projected.width / heads) as f32).sqrt(),
        scale => scale,
    };
    let in_heads = |emit: &mut Emit, value: &str, perm: &[i64]| {
        let value = emit.reshape(value, &[0, 0, heads as i64, -1]);
        emit.transpose(&value, perm)
    };
    let query = in_heads(emit, &projected.query, &[0, 2, 1, 3]);
    let key = in_heads(emit, &projected.key, &[0, 2, 3, 1]);
    let value = in_heads(emit, &projected.value, &[0, 2, 1, 3]);
    let scores = emit.op("MatMul", &[&query, &key]);
    let factor = emit.float(scale, data_type)?;
    let mut scores = emit.op("Mul", &[&scores, &factor]);
    if let Some(bias) = masks.bias {
        scores = emit.op("Add", &[&scores, bias]);
    }
    if let Some(mask) = masks.padding {
        let mask = padding(node, emit, mask, data_type)?;
        scores = emit.op("Add", &[&scores, &mask]);
    }
    if node.int("unidirectional", 0) != 0 {
        scores = without_future(emit, &projected.query, &scores, data_type)?;
    }
    let shares = emit.op_with("Softmax", &[&scores], vec![AttributeProto::of_int("axis", -1)]);
    let mixed = emit.op("MatMul", &[&shares, &value]);
    let mixed = emit.transpose(&mixed, &[0, 2, 1, 3]);
    let y = emit.reshape(&mixed, &[0, 0, -1]);
    emit.finish(node, &y)
}

/// What is added to the scores `[batch, heads, queries, keys]`: 0 where the mask is not.
fn padding(
    node: &NodeProto,
    emit: &mut Emit,
    mask: &str,
    data_type: DataType,
) -> Result<String, Why> {
    let axes: &[i64] = match emit.rank(mask)? {
        2 => &[1, 2],
        3 => &[1],
        rank => return Err(format!("its mask has {rank} axes")),
    };
    let zero = emit.add(TensorProto::from_i32("", &[], &[0]));
    let is_kept = emit.op("Greater", &[mask, &zero]);
    let free = emit.float(0.0, data_type)?;
    let masked = emit.float(node.float("mask_filter_value", MASKED), data_type)?;
    let added = emit.op("Where", &[&is_kept, &free, &masked]);
    Ok(emit.op_on("Unsqueeze", &added, axes))
}

/// The scores of what comes later as low as they can be.
fn without_future(
    emit: &mut Emit,
    query: &str,
    scores: &str,
    data_type: DataType,
) -> Result<String, Why> {
    let places = emit.places(query);
    let rows = emit.op_on("Unsqueeze", &places, &[1]);
    let columns = emit.op_on("Unsqueeze", &places, &[0]);
    let is_later = emit.op("Greater", &[&columns, &rows]);
    let lowest = match data_type {
        DataType::Float16 => half::f16::MIN.to_f32(),
        _ => f32::MIN,
    };
    let lowest = emit.float(lowest, data_type)?;
    Ok(emit.op("Where", &[&is_later, &lowest, scores]))
}
