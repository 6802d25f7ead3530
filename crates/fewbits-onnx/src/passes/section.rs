//! Consecutive nodes of a graph as a model of their own.

use std::collections::HashSet;
use std::ops::Range;

use super::cleanup::drop_dead;
use crate::Model;
use crate::proto::ValueInfoProto;

/// The values that nodes from position `at` on read, or the graph gives out, and that do not come
/// from these nodes: what must be kept of all before. Initializers are not among them.
///
/// The graph must be sorted.
pub fn live_values(model: &Model, at: usize) -> HashSet<String> {
    let graph = model.graph();
    let (before, after) = graph.node.split_at(at.min(graph.node.len()));
    let known: HashSet<&str> = graph
        .required_inputs()
        .map(ValueInfoProto::name)
        .chain(before.iter().flat_map(|n| &n.output).map(String::as_str))
        .collect();
    let mut live = HashSet::new();
    let mut read = |name: &str| {
        if known.contains(name) {
            live.insert(name.to_string());
        }
    };
    after.iter().for_each(|node| node.for_each_use(&mut read));
    graph.output.iter().for_each(|output| read(output.name()));
    live
}

/// The nodes at `positions` as a model that takes `inputs` and gives `outputs`; of the nodes only
/// those that are needed. Inputs take the place of initializers of the same name.
///
/// The graph must be sorted.
pub fn section(
    model: &Model,
    positions: Range<usize>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
) -> Model {
    let mut part = model.clone();
    let graph = part.graph_mut();
    graph.node.truncate(positions.end);
    graph.node.drain(..positions.start.min(graph.node.len()));
    graph.initializer.retain(|t| inputs.iter().all(|i| i.name() != t.name()));
    graph.input = inputs;
    graph.output = outputs;
    drop_dead(graph);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GraphProto, NodeProto, TensorProto};

    fn chain() -> Model {
        let value = |name: &str| ValueInfoProto::tensor(name, 1, &[None, Some(2)]);
        let graph = GraphProto {
            node: vec![
                NodeProto::new("MatMul", &["x", "w"], &["a"]),
                NodeProto::new("Relu", &["a"], &["b"]),
                NodeProto::new("MatMul", &["b", "v"], &["c"]),
                NodeProto::new("Add", &["c", "a"], &["y"]),
            ],
            input: vec![value("x")],
            output: vec![value("y"), value("b")],
            initializer: ["w", "v"]
                .iter()
                .map(|n| TensorProto::from_f32(n, &[2, 2], &[1.0; 4]))
                .collect(),
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn sorted(names: HashSet<String>) -> Vec<String> {
        let mut names = Vec::from_iter(names);
        names.sort();
        names
    }

    #[test]
    fn what_is_read_later_lives() {
        let model = chain();
        assert_eq!(sorted(live_values(&model, 0)), ["x"]);
        assert_eq!(sorted(live_values(&model, 2)), ["a", "b"]);
        assert_eq!(sorted(live_values(&model, 4)), ["b", "y"]);
        assert_eq!(sorted(live_values(&model, 9)), ["b", "y"]);
    }

    #[test]
    fn a_section_holds_what_it_needs() {
        let value = |name: &str| ValueInfoProto::tensor(name, 1, &[]);
        let rest =
            section(&chain(), 2..4, vec![value("a"), value("b"), value("v")], vec![value("y")]);
        let ops: Vec<&str> = rest.graph().node.iter().map(|n| n.op_type()).collect();
        assert_eq!(ops, ["MatMul", "Add"]);
        assert!(rest.graph().initializer.is_empty());
        let first = section(&chain(), 0..1, vec![value("x")], vec![value("a")]);
        assert_eq!(first.graph().initializer.len(), 1);
    }
}
