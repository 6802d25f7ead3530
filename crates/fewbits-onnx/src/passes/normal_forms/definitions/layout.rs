//! What chooses, moves and pads elements.

use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, NodeProto};

/// `Compress`: what a condition is true for, along an axis or of all elements in a row.
pub(super) fn compress(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    (known.opset >= 13).then_some(())?;
    let (x, condition) = (node.given_input(0)?, node.given_input(1)?);
    let places = emit.op("NonZero", &[condition]);
    let first = emit.ints(&[0]);
    let places = emit.op("Squeeze", &[&places, &first]);
    match node.attr("axis") {
        Some(axis) => emit.op_with("Gather", &[x, &places], along(axis.i())),
        None => {
            let flat = emit.reshape(x, &[-1]);
            emit.op_with("Gather", &[&flat, &places], along(0))
        }
    };
    emit.finish(node);
    Some(())
}

/// A `Pad` of some axes: one of all, the others by nothing.
pub(super) fn pad(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (x, pads) = (node.given_input(0)?, node.given_input(1)?);
    let axes = known.ints(node.given_input(3)?)?;
    let rank = known.rank(x)?;
    let places: Vec<i64> = axes.iter().map(|&a| if a < 0 { a + rank } else { a }).collect();
    places.iter().all(|axis| (0..rank).contains(axis)).then_some(())?;
    // The pads of each axis, and nothing behind them for the other axes to find.
    let nothing = emit.ints(&[0]);
    let pads = emit.op_with("Concat", &[pads, &nothing], along(0));
    let count = i64::try_from(places.len()).ok()?;
    let side = |first: i64| {
        let place = |axis: i64| places.iter().position(|&a| a == axis);
        let found = move |axis| place(axis).map_or(2 * count, |place| first + place as i64);
        (0..rank).map(found).collect::<Vec<i64>>()
    };
    let places = emit.ints(&[side(0), side(count)].concat());
    let pads = emit.op_with("Gather", &[&pads, &places], along(0));
    let value = node.given_input(2).unwrap_or_default();
    let mode = AttributeProto::of_string("mode", &node.string("mode", "constant"));
    emit.op_with("Pad", &[x, &pads, value], vec![mode]);
    emit.finish(node);
    Some(())
}

/// `SpaceToDepth`: blocks of an image as channels.
pub(super) fn space_to_depth(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let [_, channels, height, width] = *known.dims(x)?.as_slice() else { return None };
    let block = usize::try_from(node.attr("blocksize")?.i()).ok()?;
    let (height, width) = (height?.checked_div(block)?, width?.checked_div(block)?);
    let sizes = [channels?, height, block, width, block, channels? * block * block];
    let [channels, height, block, width, _, deep] = sizes.map(|size| size as i64);
    let order = match node.string("mode", "DCR").as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        _ => return None,
    };
    let blocks = emit.reshape(x, &[-1, channels, height, block, width, block]);
    let order = vec![AttributeProto::of_ints("perm", &order)];
    let moved = emit.op_with("Transpose", &[&blocks], order);
    emit.reshape(&moved, &[-1, deep, height, width]);
    emit.finish(node);
    Some(())
}
