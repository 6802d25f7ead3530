//! Operators on signals.

use std::f32::consts::TAU;

use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto};

/// `HannWindow`, `HammingWindow` and `BlackmanWindow`: sums of cosines.
pub(super) fn window(node: &NodeProto, _: &Known, emit: &mut Emit) -> Option<()> {
    let size = node.given_input(0)?;
    let single = DataType::Float as i64;
    (node.int("output_datatype", single) == single).then_some(())?;
    let [offset, first, second] = match node.op_type() {
        "HannWindow" => [0.5, 0.5, 0.0],
        "HammingWindow" => [25.0 / 46.0, 21.0 / 46.0, 0.0],
        _ => [0.42, 0.5, 0.08],
    };
    let size = emit.cast(size, DataType::Float);
    let (zero, one, turn) = (emit.float(0.0), emit.float(1.0), emit.float(TAU));
    let length = match node.int("periodic", 1) {
        0 => emit.op("Sub", &[&size, &one]),
        _ => size.clone(),
    };
    let step = emit.op("Div", &[&turn, &length]);
    let places = emit.op("Range", &[&zero, &size, &one]);
    let angles = emit.op("Mul", &[&places, &step]);
    let two = emit.float(2.0);
    let twice = emit.op("Mul", &[&angles, &two]);
    let mut sum = emit.float(offset);
    for (angles, by) in [(&angles, -first), (&twice, second)] {
        let (cosine, by) = (emit.op("Cos", &[angles]), emit.float(by));
        let term = emit.op("Mul", &[&cosine, &by]);
        sum = emit.op("Add", &[&sum, &term]);
    }
    emit.finish(node);
    Some(())
}

/// `CausalConvWithState`: a convolution of each channel, in front of which lies what came before.
pub(super) fn causal_convolution(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (x, weight) = (node.given_input(0)?, node.given_input(1)?);
    let [channels, Some(1), kernel] = *known.dims(weight)?.as_slice() else { return None };
    let (channels, kernel) = (i64::try_from(channels?).ok()?, i64::try_from(kernel?).ok()?);
    let padded = match node.given_input(3) {
        Some(state) => emit.op_with("Concat", &[state, x], along(2)),
        None => {
            let zero = known.number(0.0, x, emit)?;
            let pads = emit.ints(&[0, 0, kernel - 1, 0, 0, 0]);
            emit.op("Pad", &[x, &pads, &zero])
        }
    };
    let mut inputs = vec![padded.as_str(), weight];
    inputs.extend(node.given_input(2));
    let groups = vec![
        AttributeProto::of_int("group", channels),
        AttributeProto::of_ints("kernel_shape", &[kernel]),
    ];
    let sums = emit.op_with("Conv", &inputs, groups);
    let result = node.given_output(0)?;
    match node.string("activation", "none").as_str() {
        "none" => emit.op_as("Identity", &[&sums], vec![], result),
        "silu" | "swish" => {
            let gate = emit.op("Sigmoid", &[&sums]);
            emit.op_as("Mul", &[&sums, &gate], vec![], result);
        }
        _ => return None,
    }
    if let Some(state) = node.given_output(1) {
        let (end, axis) = (emit.ints(&[i64::from(i32::MAX)]), emit.ints(&[2]));
        // Nothing is kept of a kernel of one element.
        let shape = emit.op("Shape", &[&padded]);
        let at = emit.ints(&[2]);
        let length = emit.op_with("Gather", &[&shape, &at], along(0));
        let kept = emit.ints(&[kernel - 1]);
        let start = emit.op("Sub", &[&length, &kept]);
        emit.op_as("Slice", &[&padded, &start, &end, &axis], vec![], state);
    }
    Some(())
}
