//! `Sign` is the difference of two comparisons with 0: executors differ in the sign of 0.

use crate::facts::ElementTypes;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Rewrites every Sign of numbers whose type is known.
pub(super) fn by_comparisons(graph: &mut GraphProto, types: &ElementTypes) {
    if !graph.node.iter().any(|node| node.is("Sign")) {
        return;
    }
    let mut names = Names::new(graph);
    for node in std::mem::take(&mut graph.node) {
        let data_type = node.input.first().and_then(|x| types.get(x)).copied();
        let zero = data_type.filter(|_| node.is("Sign")).and_then(zero_of);
        let (Some(data_type), Some(tensor)) = (data_type, zero) else {
            graph.node.push(node);
            continue;
        };
        let zero = names.fresh("zero");
        graph.initializer.push(TensorProto { name: Some(zero.clone()), ..tensor });
        let mut side = |op: &str| {
            let (compared, number) = (names.fresh("compared"), names.fresh("side"));
            let cast = AttributeProto::of_int("to", data_type as i64);
            graph.node.push(NodeProto::new(op, &[&node.input[0], &zero], &[&compared]));
            graph.node.push(NodeProto::new("Cast", &[&compared], &[&number]).with(cast));
            number
        };
        let (above, below) = (side("Greater"), side("Less"));
        let difference = NodeProto::new("Sub", &[&above, &below], &[&node.output[0]]);
        graph.node.push(NodeProto { name: node.name, ..difference });
    }
}

/// A zero that executors compare numbers of a type with.
pub(super) fn zero_of(data_type: DataType) -> Option<TensorProto> {
    match data_type {
        DataType::Int64 => Some(TensorProto::from_i64("", &[], &[0])),
        DataType::Int32 => Some(TensorProto::from_i32("", &[], &[0])),
        _ => TensorProto::from_float(0.0, data_type),
    }
}
