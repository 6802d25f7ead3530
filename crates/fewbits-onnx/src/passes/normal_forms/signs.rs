//! `Sign` is the difference of two comparisons with 0: executors differ in the sign of 0.

use crate::facts::ElementTypes;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Rewrites every Sign of floats.
pub(super) fn by_comparisons(graph: &mut GraphProto, types: &ElementTypes) {
    if !graph.node.iter().any(|node| node.is("Sign")) {
        return;
    }
    let mut names = Names::new(graph);
    for node in std::mem::take(&mut graph.node) {
        let is_float = node.input.first().is_some_and(|x| types.get(x) == Some(&DataType::Float));
        if !node.is("Sign") || !is_float {
            graph.node.push(node);
            continue;
        }
        let zero = names.fresh("zero");
        graph.initializer.push(TensorProto::from_f32(&zero, &[], &[0.0]));
        let mut side = |op: &str| {
            let (compared, number) = (names.fresh("compared"), names.fresh("side"));
            let cast = AttributeProto::of_int("to", DataType::Float as i64);
            graph.node.push(NodeProto::new(op, &[&node.input[0], &zero], &[&compared]));
            graph.node.push(NodeProto::new("Cast", &[&compared], &[&number]).with(cast));
            number
        };
        let (above, below) = (side("Greater"), side("Less"));
        let difference = NodeProto::new("Sub", &[&above, &below], &[&node.output[0]]);
        graph.node.push(NodeProto { name: node.name, ..difference });
    }
}
