//! A `Cast` to bool asks whether a number is another one than 0: executors that hold bools as integers would
//! keep the number.

use crate::facts::element_types;
use crate::graph::Names;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// Rewrites every Cast of numbers to bool.
pub(super) fn by_comparisons(graph: &mut GraphProto) {
    let to_bool = |node: &NodeProto| node.is("Cast") && node.int("to", 0) == DataType::Bool as i64;
    if !graph.node.iter().any(to_bool) {
        return;
    }
    let types = element_types(graph);
    let mut names = Names::new(graph);
    for node in std::mem::take(&mut graph.node) {
        let zero = node.input.first().and_then(|x| types.get(x)).and_then(|data_type| {
            let name = names.fresh("zero");
            match data_type {
                DataType::Float => Some(TensorProto::from_f32(&name, &[], &[0.0])),
                DataType::Int64 => Some(TensorProto::from_i64(&name, &[], &[0])),
                DataType::Int32 => Some(TensorProto::from_i32(&name, &[], &[0])),
                _ => None,
            }
        });
        let Some(zero) = zero.filter(|_| to_bool(&node)) else {
            graph.node.push(node);
            continue;
        };
        let is_zero = names.fresh("is_zero");
        graph.node.push(NodeProto::new("Equal", &[&node.input[0], zero.name()], &[&is_zero]));
        let not = NodeProto::new("Not", &[&is_zero], &[&node.output[0]]);
        graph.node.push(NodeProto { name: node.name, ..not });
        graph.initializer.push(zero);
    }
}
