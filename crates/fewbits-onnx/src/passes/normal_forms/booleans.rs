//! Bools in executors that hold them as integers: a `Cast` to bool asks whether a number is another one than 0,
//! and the largest of no bools is false.

use super::signs::zero_of;
use crate::facts::ElementTypes;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Rewrites every Cast to bool of numbers whose type is known.
pub(super) fn by_comparisons(graph: &mut GraphProto, types: &ElementTypes) {
    let to_bool = |node: &NodeProto| node.is("Cast") && node.int("to", 0) == DataType::Bool as i64;
    if !graph.node.iter().any(to_bool) {
        return;
    }
    let mut names = Names::new(graph);
    for mut node in std::mem::take(&mut graph.node) {
        let data_type = node.input.first().and_then(|x| types.get(x)).copied();
        let Some(data_type) = data_type.filter(|_| to_bool(&node)) else {
            graph.node.push(node);
            continue;
        };
        if data_type == DataType::Bool {
            let same = NodeProto::new("Identity", &[&node.input[0]], &[&node.output[0]]);
            graph.node.push(NodeProto { name: node.name, ..same });
            continue;
        }
        let zero = zero_of(data_type).unwrap_or_else(|| {
            // Smaller integers are compared as larger ones.
            let (number, to) = (names.fresh("number"), DataType::Int32);
            let widened = NodeProto::new("Cast", &[&node.input[0]], &[&number]);
            graph.node.push(widened.with(AttributeProto::of_int("to", to as i64)));
            node.input[0] = number;
            TensorProto::from_i32("", &[], &[0])
        });
        let (name, is_zero) = (names.fresh("zero"), names.fresh("is_zero"));
        graph.node.push(NodeProto::new("Equal", &[&node.input[0], &name], &[&is_zero]));
        let not = NodeProto::new("Not", &[&is_zero], &[&node.output[0]]);
        graph.node.push(NodeProto { name: node.name, ..not });
        graph.initializer.push(TensorProto { name: Some(name), ..zero });
    }
}

/// Reduces bools as integers, and compares what comes out with 0.
pub(super) fn reduced_as_integers(graph: &mut GraphProto, types: &ElementTypes) {
    let is_one = |node: &NodeProto| node.is("ReduceMax") || node.is("ReduceMin");
    if !graph.node.iter().any(is_one) {
        return;
    }
    let mut names = Names::new(graph);
    for mut node in std::mem::take(&mut graph.node) {
        let of_bools = node.input.first().is_some_and(|x| types.get(x) == Some(&DataType::Bool));
        if !is_one(&node) || !of_bools {
            graph.node.push(node);
            continue;
        }
        let [numbers, most, zero] = ["numbers", "most", "zero"].map(|name| names.fresh(name));
        let to = AttributeProto::of_int("to", DataType::Int32 as i64);
        graph.node.push(NodeProto::new("Cast", &[&node.input[0]], &[&numbers]).with(to));
        node.input[0] = numbers;
        let output = std::mem::replace(&mut node.output[0], most.clone());
        graph.node.push(node);
        graph.initializer.push(TensorProto::from_i32(&zero, &[], &[0]));
        graph.node.push(NodeProto::new("Greater", &[&most, &zero], &[&output]));
    }
}
