//! Conditions, and what is chosen by them.

use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// A `Dropout` at inference whose mask is read: everything passes.
pub(super) fn dropout(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let is_off =
        |tensor: &TensorProto| tensor.ints().is_ok_and(|ints| ints.iter().all(|&i| i == 0));
    let trains = node.given_input(2).is_some_and(|mode| !known.constant(mode).is_some_and(is_off));
    // Before opset 10 the mask had the type of the input.
    (!trains && known.opset >= 10).then_some(())?;
    let mask = node.given_output(1)?;
    if let Some(same) = node.given_output(0) {
        emit.op_as("Identity", &[x], vec![], same);
    }
    let shape = emit.op("Shape", &[x]);
    let zero = AttributeProto::of_tensor("value", TensorProto::from_i32("", &[1], &[0]));
    let zeros = emit.op_with("ConstantOfShape", &[&shape], vec![zero]);
    let zero = emit.int32(0);
    emit.op_as("Equal", &[&zeros, &zero], vec![], mask);
    Some(())
}

/// An `IsInf` of one sign.
pub(super) fn is_infinite(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let side = match (node.int("detect_negative", 1) != 0, node.int("detect_positive", 1) != 0) {
        (true, false) => "Less",
        (false, true) => "Greater",
        _ => return None,
    };
    let zero = known.number(0.0, x, emit)?;
    let infinite = emit.op("IsInf", &[x]);
    let on_side = emit.op(side, &[x, &zero]);
    emit.op("And", &[&infinite, &on_side]);
    emit.finish(node);
    Some(())
}

/// A `OneHot` whose positions, depth or values are of types that executors do not take there.
pub(super) fn one_hot(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (places, depth, values) =
        (node.given_input(0)?, node.given_input(1)?, node.given_input(2)?);
    let types = [places, depth].map(|name| known.data_type(name));
    let is_index = |data_type| matches!(data_type, Some(DataType::Int64 | DataType::Int32));
    (types.iter().all(Option::is_some) && !types.into_iter().all(is_index)).then_some(())?;
    let places = emit.cast(places, DataType::Int64);
    let depth = emit.cast(depth, DataType::Int64);
    emit.op_with("OneHot", &[&places, &depth, values], along(node.int("axis", -1)));
    emit.finish(node);
    Some(())
}
