//! `ArgMax` and `ArgMin` answer the first of equal elements, as ONNX asks, by a `TopK` of one.
//!
//! Those of rten 0.27 answer the last, and probabilities that are quantized are often equal. Where the last is
//! asked for, they do without being told.

use super::normal_forms::on_axes;
use crate::Model;
use crate::graph::Names;
use crate::proto::{AttributeProto, NodeProto, TensorProto};

/// Rewrites those of the main graph.
pub fn first_of_equals(model: &mut Model) {
    let opset = model.opset();
    let graph = model.graph_mut();
    let mut names = Names::new(graph);
    for mut node in std::mem::take(&mut graph.node) {
        let largest = node.is("ArgMax");
        let first = node.int("select_last_index", 0) == 0;
        if largest || node.is("ArgMin") {
            node.attribute.retain(|attribute| attribute.name() != "select_last_index");
        }
        let ([input], [output]) = (node.input.as_slice(), node.output.as_slice()) else {
            graph.node.push(node);
            continue;
        };
        if !((largest || node.is("ArgMin")) && first) {
            graph.node.push(node);
            continue;
        }
        let axis = node.int("axis", 0);
        let squeezed = node.int("keepdims", 1) == 0;
        let place = if squeezed { names.fresh("place") } else { output.clone() };
        let (one, value) = (names.fresh("one"), names.fresh("value"));
        graph.initializer.push(TensorProto::from_i64(&one, &[1], &[1]));
        let mut top = NodeProto::new("TopK", &[input, &one], &[&value, &place])
            .with(AttributeProto::of_int("axis", axis))
            .with(AttributeProto::of_int("largest", i64::from(largest)));
        top.name.clone_from(&node.name);
        graph.node.push(top);
        if squeezed {
            let squeeze = NodeProto::new("Squeeze", &[&place], &[output]);
            let squeeze = on_axes(graph, &mut names, opset, squeeze, &[axis]);
            graph.node.push(squeeze);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::GraphProto;

    #[test]
    fn the_last_is_answered_only_where_it_is_asked_for() {
        let int = AttributeProto::of_int;
        let graph = GraphProto {
            node: vec![
                NodeProto::new("ArgMax", &["x"], &["a"]).with(int("keepdims", 0)),
                NodeProto::new("ArgMin", &["x"], &["b"]),
                NodeProto::new("ArgMax", &["x"], &["c"]).with(int("select_last_index", 1)),
            ],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, 17);
        first_of_equals(&mut model);
        let nodes = &model.graph().node;
        let ops: Vec<&str> = nodes.iter().map(NodeProto::op_type).collect();
        assert_eq!(ops, ["TopK", "Squeeze", "TopK", "ArgMax"]);
        assert_eq!((nodes[0].int("largest", 1), nodes[2].int("largest", 1)), (1, 0));
        assert!(nodes[3].attribute.is_empty());
    }
}
