//! Nodes on some axes, which are an attribute in older opsets and an input in newer ones.

use crate::facts::has_axes_input;
use crate::graph::Names;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// The node on these axes, which are put into the graph where they are an input.
pub fn on_axes(
    graph: &mut GraphProto,
    names: &mut Names,
    opset: i64,
    mut node: NodeProto,
    axes: &[i64],
) -> NodeProto {
    if !has_axes_input(node.op_type(), opset) {
        return node.with(AttributeProto::of_ints("axes", axes));
    }
    let name = names.fresh("axes");
    graph.initializer.push(TensorProto::from_i64(&name, &[axes.len()], axes));
    node.input.push(name);
    node
}
