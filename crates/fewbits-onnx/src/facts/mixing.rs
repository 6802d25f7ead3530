//! What makes the rows of a batch depend on each other in a way that no trial with a few of them shows: a branch, or a
//! number of rounds, that is chosen by what is fed, and a reduction over the batch, which may count for little.

use std::collections::HashSet;

use super::Facts;
use super::extents::{Element, Extent, Symbol};
use super::places::places;
use super::shapes::Reader;
use crate::proto::{AttributeProto, GraphProto, NodeProto};

/// Whether a graph chooses by what is fed, or reduces over the batch. `inputs` are those that hold rows, and the axis
/// along which they lie.
pub fn mixes_rows(graph: &GraphProto, facts: &Facts, inputs: &[(&str, usize)]) -> bool {
    let symbol = |extent: &Extent| match extent {
        Extent::Like(symbol) => Some(*symbol),
        _ => None,
    };
    let of_batch = |&(name, axis): &(&str, usize)| symbol(facts.extents(name)?.get(axis)?);
    let batch: HashSet<Symbol> = inputs.iter().filter_map(of_batch).collect();
    let axes = graph.input.iter().filter_map(|input| facts.extents(input.name())).flatten();
    let apart = axes.filter_map(symbol).filter(|symbol| !batch.contains(symbol)).collect();
    let mut fed = inputs.iter().map(|(name, _)| name.to_string()).collect();
    Walk { facts: Some(facts), batch: &batch, apart: &apart }.mixes(graph, &mut fed)
}

/// A graph, and what is known in it.
#[derive(Clone, Copy)]
struct Walk<'a> {
    /// None inside of nodes.
    facts: Option<&'a Facts>,
    /// The sizes of batches.
    batch: &'a HashSet<Symbol>,
    /// Those of the other axes of what is fed.
    apart: &'a HashSet<Symbol>,
}

impl Walk<'_> {
    /// Adds the values that depend on those in `fed`; stops where rows are mixed.
    fn mixes(self, graph: &GraphProto, fed: &mut HashSet<String>) -> bool {
        for node in &graph.node {
            let mut depends = false;
            node.for_each_use(&mut |name| depends |= fed.contains(name));
            if !depends {
                continue;
            }
            if self.chooses(node, fed) || self.reduces(node) {
                return true;
            }
            let outputs = node.output.iter().filter(|name| !self.is_apart(name));
            fed.extend(outputs.cloned());
        }
        false
    }

    /// Whether a value holds sizes that are the same for all parts of a batch.
    fn is_apart(self, name: &str) -> bool {
        let elements = self.facts.and_then(|facts| facts.elements(name));
        elements.is_some_and(|elements| {
            elements.iter().all(|element| match element {
                Element::Is(_) => true,
                Element::Like(symbol) => self.apart.contains(symbol),
                Element::Unknown => false,
            })
        })
    }

    /// Whether what is fed chooses what a node computes, or how often.
    fn chooses(self, node: &NodeProto, fed: &HashSet<String>) -> bool {
        let chosen = match node.op_type() {
            "If" => 1,
            "Loop" => 2,
            _ => 0,
        };
        if node.input.iter().take(chosen).any(|name| fed.contains(name)) {
            return true;
        }
        let mut bodies = node.attribute.iter().flat_map(AttributeProto::subgraphs);
        bodies.any(|body| {
            let mut inside = fed.clone();
            for (place, input) in body.input.iter().enumerate() {
                // The number of the round and the condition are told from outside; what is carried on may come
                // to depend on what is fed.
                match place >= chosen {
                    true => inside.insert(input.name().to_string()),
                    false => inside.remove(input.name()),
                };
            }
            let goes_on = body.output.first().filter(|_| node.is("Loop"));
            Walk { facts: None, ..self }.mixes(body, &mut inside)
                || goes_on.is_some_and(|output| inside.contains(output.name()))
        })
    }

    /// Whether a node reduces over an axis that is as long as a batch.
    fn reduces(self, node: &NodeProto) -> bool {
        let Some(facts) = self.facts.filter(|_| node.is_onnx()) else { return false };
        let reader = Reader { node, known: facts };
        let (Some(extents), Some(axes)) = (reader.extents(0), reader.list(1, "axes")) else {
            return false;
        };
        let places = match &axes[..] {
            _ if !node.op_type().starts_with("Reduce") => return false,
            [] if node.int("noop_with_empty_axes", 0) != 0 => return false,
            [] => (0..extents.len()).collect(),
            axes => places(axes, extents.len()).unwrap_or_default(),
        };
        places.iter().any(|&place| match extents[place] {
            Extent::Like(symbol) => self.batch.contains(&symbol),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TensorProto, ValueInfoProto};

    /// Whether a graph of the input `x` `[?, 4, ?]` and the number `rate` mixes rows.
    fn mixes(nodes: &[NodeProto]) -> bool {
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        let graph = GraphProto {
            node: nodes.to_vec(),
            input: vec![
                ValueInfoProto::tensor("x", 1, &[None, Some(4), None]),
                ValueInfoProto::tensor("rate", 7, &[]),
            ],
            initializer: vec![
                ints("first", &[0]),
                ints("second", &[1]),
                ints("third", &[2]),
                TensorProto::from_i64("count", &[], &[3]),
                TensorProto::from_f32("limit", &[], &[0.5]),
            ],
            ..GraphProto::default()
        };
        mixes_rows(&graph, &Facts::of(&graph), &[("x", 0)])
    }

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto::new(op, inputs, &[output])
    }

    fn body(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> AttributeProto {
        let value = |name: &&str| ValueInfoProto {
            name: Some(name.to_string()),
            ..ValueInfoProto::default()
        };
        let graph = GraphProto {
            node: nodes,
            input: inputs.iter().map(value).collect(),
            output: outputs.iter().map(value).collect(),
            ..GraphProto::default()
        };
        AttributeProto::of_graph("body", graph)
    }

    fn choice(by: &str) -> NodeProto {
        node("If", &[by], "y").with(body(&[], vec![node("Relu", &["x"], "inner")], &["inner"]))
    }

    #[test]
    fn reductions_over_the_batch_mix() {
        let list = |axes: &[i64]| AttributeProto::of_ints("axes", axes);
        assert!(mixes(&[node("ReduceMean", &["x"], "y")]));
        assert!(mixes(&[node("ReduceMax", &["x"], "y").with(list(&[0]))]));
        assert!(mixes(&[node("ReduceSum", &["x", "first"], "y")]));
        assert!(!mixes(&[node("ReduceSum", &["x", "second"], "y")]));
        assert!(!mixes(&[node("ReduceMean", &["x"], "y").with(list(&[1, -1]))]));
        let perm = AttributeProto::of_ints("perm", &[1, 0, 2]);
        let turned = node("Transpose", &["x"], "t").with(perm);
        assert!(mixes(&[turned.clone(), node("ReduceSum", &["t", "second"], "y")]));
        assert!(!mixes(&[turned, node("ReduceSum", &["t", "first"], "y")]));
    }

    #[test]
    fn what_is_fed_in_rows_chooses_for_all() {
        let less = |of: &str| node("Less", &[of, "limit"], "less");
        assert!(mixes(&[node("MaxPool", &["x"], "m"), less("m"), choice("less")]));
        // A number is the same for every row.
        assert!(!mixes(&[less("rate"), choice("less")]));
        let size = |place: &str| {
            [node("Shape", &["x"], "s"), node("Gather", &["s", place], "n"), less("n")]
        };
        for (place, mixed) in [("first", true), ("second", false), ("third", false)] {
            assert_eq!(mixes(&[&size(place)[..], &[choice("less")]].concat()), mixed, "{place}");
        }
    }

    #[test]
    fn rounds_may_be_counted_but_not_by_what_is_fed() {
        let round = |goes_on: NodeProto| {
            let nodes = vec![goes_on, node("Relu", &["state"], "next")];
            let inner = body(&["i", "go", "state"], nodes, &["goes", "next"]);
            node("Loop", &["count", "", "x"], "y").with(inner)
        };
        assert!(!mixes(&[round(node("Identity", &["go"], "goes"))]));
        assert!(mixes(&[round(node("Less", &["state", "limit"], "goes"))]));
        assert!(!mixes(&[round(node("Less", &["i", "count"], "goes"))]));
        // What is fed comes in within the first round.
        let nodes =
            vec![node("Less", &["state", "limit"], "goes"), node("Add", &["state", "x"], "next")];
        let inner = body(&["i", "go", "state"], nodes, &["goes", "next"]);
        assert!(mixes(&[node("Loop", &["count", "", "limit"], "y").with(inner)]));
    }
}
