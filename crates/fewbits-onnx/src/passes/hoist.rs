//! Weights of subgraphs move to the main graph, whose values subgraphs see: there weights are found and written.

use std::collections::{HashMap, HashSet};

use super::constants::constant_tensor;
use crate::graph::Names;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Operators that only move elements: of a weight they give a weight.
const MOVES: [&str; 8] =
    ["Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

/// Moves the constants of floats with several axes out of the branches of `If` and the bodies of `Loop` and
/// `Scan`, with the nodes that only move their elements. What bears a name of another gets a new one.
pub fn hoist_weights(graph: &mut GraphProto) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    count_names(graph, &mut counts);
    let overridable = |name: &str| graph.input.iter().any(|input| input.name() == name);
    let weights = graph.initializer.iter().filter(|t| is_weight(t) && !overridable(t.name()));
    let weights = weights.map(|tensor| tensor.name().to_string()).collect();
    let names = Names::new(graph);
    let mut hoist = Hoist { names, counts, weights, tensors: Vec::new(), nodes: Vec::new() };
    for node in &mut graph.node {
        hoist.out_of(node);
    }
    graph.initializer.append(&mut hoist.tensors);
    graph.node.splice(0..0, hoist.nodes);
}

struct Hoist {
    names: Names,
    /// How often a name is given in the graph and its subgraphs.
    counts: HashMap<String, usize>,
    /// The weights of the main graph.
    weights: HashSet<String>,
    /// What has been moved there.
    tensors: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
}

impl Hoist {
    fn out_of(&mut self, node: &mut NodeProto) {
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.constants_of(graph);
                self.moves_of(graph);
                graph.node.iter_mut().for_each(|node| self.out_of(node));
            }
        }
    }

    fn constants_of(&mut self, graph: &mut GraphProto) {
        let fixed = fixed_names(graph);
        let moves = |tensor: &TensorProto, name: &str| is_weight(tensor) && !fixed.contains(name);
        let mut found = Vec::new();
        graph.initializer.retain(|tensor| {
            let moves = moves(tensor, tensor.name());
            if moves {
                found.push(tensor.clone());
            }
            !moves
        });
        graph.node.retain(|node| {
            let Some(tensor) = constant_tensor(node) else { return true };
            let moves = moves(&tensor, tensor.name());
            if moves {
                found.push(tensor);
            }
            !moves
        });
        for mut tensor in found {
            let name = self.named_apart(graph, tensor.name());
            self.weights.insert(name.clone());
            tensor.name = Some(name);
            self.tensors.push(tensor);
        }
    }

    /// Moves the nodes that move elements of weights, with copies of what says how.
    fn moves_of(&mut self, graph: &mut GraphProto) {
        let fixed = fixed_names(graph);
        let own =
            graph.node.iter().filter_map(constant_tensor).chain(graph.initializer.iter().cloned());
        let own: HashMap<String, TensorProto> =
            own.map(|tensor| (tensor.name().to_string(), tensor)).collect();
        let mut position = 0;
        while position < graph.node.len() {
            let node = &graph.node[position];
            let given = || node.input.iter().filter(|name| !name.is_empty());
            let is_move = node.is_onnx()
                && MOVES.contains(&node.op_type())
                && given().any(|name| self.weights.contains(name))
                && given().all(|name| self.weights.contains(name) || own.contains_key(name))
                && node.output.iter().all(|name| !fixed.contains(name));
            if !is_move {
                position += 1;
                continue;
            }
            let mut node = graph.node.remove(position);
            for input in &mut node.input {
                if let Some(tensor) = own.get(input) {
                    let name = Some(self.names.fresh(input));
                    input.clone_from(name.as_ref().expect("just made"));
                    self.tensors.push(TensorProto { name, ..tensor.clone() });
                }
            }
            for output in node.output.iter_mut().filter(|name| !name.is_empty()) {
                *output = self.named_apart(graph, output);
                self.weights.insert(output.clone());
            }
            self.nodes.push(node);
        }
    }

    /// The name that something of `graph` has in the main graph.
    fn named_apart(&mut self, graph: &mut GraphProto, name: &str) -> String {
        if self.counts.get(name) == Some(&1) {
            return name.to_string();
        }
        let fresh = self.names.fresh(name);
        graph.replace_uses(name, &fresh);
        fresh
    }
}

/// The names that the caller of a subgraph gives and takes.
fn fixed_names(graph: &GraphProto) -> HashSet<String> {
    graph.input.iter().chain(&graph.output).map(|value| value.name().to_string()).collect()
}

fn is_weight(tensor: &TensorProto) -> bool {
    tensor.is_float() && tensor.dims.len() > 1
}

fn count_names(graph: &GraphProto, counts: &mut HashMap<String, usize>) {
    let given = graph.initializer.iter().map(TensorProto::name);
    let given = given.chain(graph.input.iter().map(|input| input.name()));
    let given = given.chain(graph.node.iter().flat_map(|n| &n.output).map(String::as_str));
    for name in given {
        *counts.entry(name.to_string()).or_default() += 1;
    }
    let subgraphs = graph.node.iter().flat_map(|n| &n.attribute);
    subgraphs.flat_map(AttributeProto::subgraphs).for_each(|inner| count_names(inner, counts));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_branches_move_with_their_readers() {
        let weight = |name: &str| TensorProto::from_f32(name, &[1, 2], &[1.0, 2.0]);
        let branch = |name: &str, graph: GraphProto| AttributeProto {
            g: Some(graph),
            ..AttributeProto::of_int(name, 0)
        };
        let product = |weight: &str| NodeProto::new("MatMul", &["x", weight], &["y"]);
        let constant = NodeProto::new("Constant", &[], &["own"])
            .with(AttributeProto::of_tensor("value", weight("")));
        let taken = GraphProto {
            node: vec![product("w")],
            initializer: vec![weight("w"), TensorProto::from_f32("bias", &[2], &[0.0; 2])],
            ..GraphProto::default()
        };
        let other = GraphProto {
            node: vec![
                constant,
                NodeProto::new("Transpose", &["own"], &["turned"]),
                NodeProto::new("Concat", &["turned", "x"], &["joined"]),
                product("w"),
                product("turned"),
            ],
            initializer: vec![weight("w")],
            ..GraphProto::default()
        };
        let mut graph = GraphProto {
            node: vec![
                NodeProto::new("If", &["c"], &["z"])
                    .with(branch("then_branch", taken))
                    .with(branch("else_branch", other)),
            ],
            ..GraphProto::default()
        };
        hoist_weights(&mut graph);
        let names: Vec<&str> = graph.initializer.iter().map(TensorProto::name).collect();
        assert_eq!((names.len(), names[2]), (3, "own"));
        assert_ne!(names[0], names[1]);
        assert_eq!(
            (graph.node[0].op_type(), graph.node[0].output[0].as_str()),
            ("Transpose", "turned")
        );
        let inner = |at: usize| graph.node[1].attribute[at].g.as_ref().unwrap();
        assert_eq!(inner(0).node[0].input[1], names[0]);
        assert_eq!(
            (inner(1).node[1].input[1].as_str(), inner(1).node[2].input[1].as_str()),
            (names[1], "turned")
        );
        assert_eq!((inner(0).initializer.len(), inner(1).node.len()), (1, 3));
    }
}
