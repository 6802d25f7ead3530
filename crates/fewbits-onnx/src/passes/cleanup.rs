//! What changes nothing is dropped: identities, casts to the type a value already has, nodes and
//! initializers that nobody reads.

use std::collections::HashSet;

use crate::facts::{ElementTypes, element_types};
use crate::graph::Index;
use crate::proto::{GraphProto, NodeProto, TensorProto};

/// Runs all parts of the clean-up until nothing is left to drop.
pub fn cleanup(graph: &mut GraphProto) {
    drop_declared_initializers(graph);
    drop_no_ops(graph);
    drop_dead(graph);
}

/// Removes what `value_info` declares of initializers, as some exporters do: an initializer says its type
/// itself, and what became integers has another one now.
fn drop_declared_initializers(graph: &mut GraphProto) {
    let initializers: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    graph.value_info.retain(|declared| !initializers.contains(declared.name()));
}

/// Removes `Identity`, inference-time `Dropout` with one output, and `Cast` to a value's own
/// type. Graph inputs and outputs keep their names.
pub fn drop_no_ops(graph: &mut GraphProto) {
    // What is dropped has the type of what is read in its place.
    let types = element_types(graph);
    let mut position = 0;
    while position < graph.node.len() {
        if !is_no_op(&types, &graph.node[position]) || !bypass(graph, position) {
            position += 1;
        }
    }
}

fn is_no_op(types: &ElementTypes, node: &NodeProto) -> bool {
    match node.op_type() {
        _ if !node.is_onnx() || node.output.len() != 1 => false,
        "Identity" => node.input.len() == 1,
        "Cast" if node.input.len() == 1 => {
            types.get(&node.input[0]).is_some_and(|&t| t as i64 == node.int("to", 0))
        }
        _ => false,
    }
}

/// Joins the input and the output of the node at `position` and removes it; `false` if that is
/// not possible without renaming an input or output of the graph.
fn bypass(graph: &mut GraphProto, position: usize) -> bool {
    let input = graph.node[position].input[0].clone();
    let output = graph.node[position].output[0].clone();
    if !graph.is_output(&output) {
        graph.node.remove(position);
        graph.replace_uses(&output, &input);
        return true;
    }
    // The output's name is fixed: give it to the producer instead, if only one name is fixed.
    let producer = graph.node.iter().position(|n| n.output.contains(&input));
    let (Some(producer), false) = (producer, graph.is_output(&input)) else { return false };
    graph.node.remove(position);
    let producer = if producer > position { producer - 1 } else { producer };
    for name in graph.node[producer].output.iter_mut().filter(|o| **o == input) {
        *name = output.clone();
    }
    graph.replace_uses(&input, &output);
    true
}

/// Removes nodes whose outputs nobody reads, and initializers that no node reads.
pub fn drop_dead(graph: &mut GraphProto) {
    let index = Index::new(graph);
    let mut live = vec![false; graph.node.len()];
    let mut wanted: Vec<&str> = graph.output.iter().map(|o| o.name()).collect();
    let mut read: HashSet<String> = HashSet::new();
    while let Some(name) = wanted.pop() {
        if !read.insert(name.to_string()) {
            continue;
        }
        if let Some(i) = index.producer(name)
            && !std::mem::replace(&mut live[i], true)
        {
            graph.node[i].for_each_use(&mut |input| wanted.push(input));
        }
    }
    drop(index);
    let mut live = live.into_iter();
    graph.node.retain(|_| live.next().expect("one flag a node"));
    // An initializer that is also an input of the graph is a default that a caller may replace.
    let inputs: HashSet<String> = graph.input.iter().map(|i| i.name().to_string()).collect();
    graph.initializer.retain(|t| read.contains(t.name()) || inputs.contains(t.name()));
    graph.value_info.retain(|v| read.contains(v.name()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, ValueInfoProto};

    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(2)])],
            initializer: vec![
                TensorProto::from_f32("w", &[1], &[1.0]),
                TensorProto::from_f32("unused", &[1], &[1.0]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn what_became_integers_is_no_longer_declared_float() {
        let mut g = graph(vec![
            NodeProto::new("Gather", &["w", "x"], &["rows"]),
            NodeProto::new("Cast", &["rows"], &["y"]).with(AttributeProto::of_int("to", 1)),
        ]);
        g.value_info = ["w", "y"].map(|name| ValueInfoProto::tensor(name, 1, &[None])).to_vec();
        g.initializer[0] = TensorProto::from_i8("w", &[1], &[1]);
        cleanup(&mut g);
        assert_eq!(g.node.len(), 2);
        let declared: Vec<_> = g.value_info.iter().map(ValueInfoProto::name).collect();
        assert_eq!(declared, ["y"]);
    }

    #[test]
    fn identities_and_casts_to_the_same_type_disappear() {
        let mut g = graph(vec![
            NodeProto::new("Cast", &["x"], &["a"]).with(AttributeProto::of_int("to", 1)),
            NodeProto::new("Identity", &["a"], &["b"]),
            NodeProto::new("Add", &["b", "w"], &["c"]),
            NodeProto::new("Neg", &["c"], &["dead"]),
            NodeProto::new("Identity", &["c"], &["y"]),
        ]);
        cleanup(&mut g);
        assert_eq!(g.node.len(), 1);
        assert_eq!(g.node[0].input, ["x", "w"]);
        assert_eq!(g.node[0].output, ["y"]);
        assert_eq!(g.initializer.len(), 1);
    }

    #[test]
    fn an_identity_between_input_and_output_stays() {
        let mut g = graph(vec![NodeProto::new("Identity", &["x"], &["y"])]);
        cleanup(&mut g);
        assert_eq!(g.node.len(), 1);
    }
}
