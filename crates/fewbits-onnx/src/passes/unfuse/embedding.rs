//! The look-ups of a language model's tokens, positions and segments, and the norm behind their sum.

use super::emit::{Emit, Why, input};
use super::norms::layer_norm;
use crate::proto::{AttributeProto, DataType, NodeProto};

pub(super) fn with_norm(node: &NodeProto, emit: &mut Emit) -> Result<(), Why> {
    let ids = input(node, 0)?;
    let (words, positions) = (input(node, 2)?, input(node, 3)?);
    let words = emit.op("Gather", &[words, ids]);
    let positions = match node.given_input(8) {
        Some(places) => emit.op("Gather", &[positions, places]),
        None => {
            // The first rows, as many as there are tokens.
            let places = emit.places(ids);
            emit.op("Gather", &[positions, &places])
        }
    };
    let mut sum = emit.op("Add", &[&words, &positions]);
    if let (Some(ids), Some(table)) = (node.given_input(1), node.given_input(4)) {
        let segments = emit.op("Gather", &[table, ids]);
        sum = emit.op("Add", &[&sum, &segments]);
    }
    let y = layer_norm(emit, node, &sum, input(node, 5)?, Some(input(node, 6)?))?;
    if let Some(name) = node.given_output(1) {
        let lengths = lengths(node, emit, ids);
        emit.rename(&lengths, name);
    }
    if let Some(name) = node.given_output(2) {
        emit.rename(&sum, name);
    }
    emit.finish(node, &y)
}

/// How many tokens of each row the mask lets through, as INT32; 0 without a mask.
fn lengths(node: &NodeProto, emit: &mut Emit, ids: &str) -> String {
    let to = vec![AttributeProto::of_int("to", DataType::Int32 as i64)];
    let axes = emit.ints(&[1]);
    let keepdims = vec![AttributeProto::of_int("keepdims", 0)];
    let counted = match node.given_input(7) {
        Some(mask) => mask.to_string(),
        None => emit.op("Sub", &[ids, ids]),
    };
    let counted = emit.op_with("Cast", &[&counted], to);
    emit.op_with("ReduceSum", &[&counted, &axes], keepdims)
}
