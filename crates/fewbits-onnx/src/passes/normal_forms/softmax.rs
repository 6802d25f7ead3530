//! A `Softmax` along the last axis says so by -1: before opset 13 it goes over all axes from one on, which is
//! the same for the last.

use std::collections::HashMap;

use crate::facts::Dims;
use crate::proto::{AttributeProto, GraphProto, NodeProto};

/// Names the axis of every Softmax, LogSoftmax and Hardmax of before opset 13 that is known to be the last.
pub(super) fn name_last_axis(graph: &mut GraphProto, sizes: &HashMap<String, Dims>) {
    let is_one =
        |node: &NodeProto| ["Softmax", "LogSoftmax", "Hardmax"].iter().any(|op| node.is(op));
    for node in graph.node.iter_mut().filter(|node| is_one(node)) {
        let rank = node.input.first().and_then(|name| sizes.get(name)).map(Vec::len);
        let axis = node.int("axis", 1);
        if rank.is_some_and(|rank| axis + 1 == rank as i64) {
            node.attribute.retain(|attribute| attribute.name() != "axis");
            node.attribute.push(AttributeProto::of_int("axis", -1));
        }
    }
}
