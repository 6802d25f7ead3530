//! Whether the element types of a graph go together: what no runtime would open.

use super::operators::{Alike, takes};
use super::types::{ElementTypes, declared, extend};
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto};

/// Element types that contradict each other at a node, or at a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mismatch {
    /// The node's name or its first output, or the value that is declared.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
}

/// Every contradiction between what operators read, what they give and what the graph declares, those of
/// graphs inside nodes included. What is not known contradicts nothing.
pub fn mismatches(graph: &GraphProto, opset: i64) -> Vec<Mismatch> {
    let mut found = Vec::new();
    check(graph, opset, &ElementTypes::new(), &mut found);
    found
}

fn check(graph: &GraphProto, opset: i64, outer: &ElementTypes, found: &mut Vec<Mismatch>) {
    let mut types = outer.clone();
    extend(&mut types, graph);
    for node in &graph.node {
        if let Some(reason) = of_node(node, &types, opset) {
            found.push(Mismatch { place: node.label().to_string(), reason });
        }
        for inner in node.attribute.iter().flat_map(AttributeProto::subgraphs) {
            check(inner, opset, &types, found);
        }
    }
    for (name, declared) in declared(graph) {
        if let Some(&given) = types.get(name).filter(|&&given| given != declared) {
            let reason = format!("it is {given:?} and declared as {declared:?}");
            found.push(Mismatch { place: name.to_string(), reason });
        }
    }
}

fn of_node(node: &NodeProto, types: &ElementTypes, opset: i64) -> Option<String> {
    let takes = takes(node, opset)?;
    let op = node.op_type();
    let input = |i: usize| {
        let name = node.given_input(i)?;
        Some((name, *types.get(name)?))
    };
    for &(i, allowed) in takes.types {
        if let Some((name, data_type)) = input(i).filter(|(_, t)| !allowed.contains(t)) {
            return Some(format!("{op} of opset {opset} does not take '{name}' of {data_type:?}"));
        }
    }
    let all: Vec<usize> = (0..node.input.len()).collect();
    let groups: Vec<&[usize]> = match takes.alike {
        Alike::None => Vec::new(),
        Alike::All => vec![&all],
        Alike::Groups(groups) => groups.to_vec(),
    };
    for group in groups {
        let known: Vec<(&str, DataType)> = group.iter().filter_map(|&i| input(i)).collect();
        let Some(&(first, expected)) = known.first() else { continue };
        if let Some((name, other)) = known.iter().find(|(_, t)| *t != expected) {
            return Some(format!("{op} reads '{first}' of {expected:?} and '{name}' of {other:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TensorProto, ValueInfoProto};

    fn graph(nodes: Vec<NodeProto>, x: DataType) -> GraphProto {
        GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", x as i32, &[None])],
            initializer: vec![
                TensorProto::from_f32("f", &[1], &[1.0]),
                TensorProto::from_raw("h", &[1], DataType::Float16, vec![0, 60]),
                TensorProto::from_i8("i", &[1], &[1]),
            ],
            ..GraphProto::default()
        }
    }

    fn reasons(node: NodeProto, x: DataType, opset: i64) -> usize {
        mismatches(&graph(vec![node], x), opset).len()
    }

    #[test]
    fn halves_and_doubles_are_quantized_by_no_operator_before_opset_19() {
        use DataType::{Bfloat16, Double, Float, Float16};
        let quantize = |scale: &str| NodeProto::new("QuantizeLinear", &["x", scale, "i"], &["q"]);
        assert_eq!(reasons(quantize("f"), Float, 17), 0);
        for x in [Float16, Bfloat16, Double] {
            assert_eq!(reasons(quantize("f"), x, 17), 1, "{x:?}");
            let dynamic = NodeProto::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]);
            assert_eq!(reasons(dynamic, x, 21), 1, "{x:?}");
        }
        assert_eq!(reasons(quantize("h"), Float16, 21), 0);
        assert_eq!(reasons(quantize("f"), Float16, 21), 1);
        assert_eq!(reasons(quantize("f"), Double, 21), 1);
    }

    #[test]
    fn operators_of_one_type_take_no_two() {
        use DataType::{Float, Float16};
        for op in ["Add", "MatMul", "Gemm", "Concat", "Conv", "Mul"] {
            assert_eq!(reasons(NodeProto::new(op, &["x", "f"], &["y"]), Float, 17), 0, "{op}");
            assert_eq!(reasons(NodeProto::new(op, &["x", "f"], &["y"]), Float16, 17), 1, "{op}");
        }
        let either = NodeProto::new("Where", &["c", "x", "f"], &["y"]);
        assert_eq!(reasons(either, Float16, 17), 1);
        // A custom operator may take what it likes.
        assert_eq!(reasons(NodeProto::new("Mystery", &["x", "f"], &["y"]), Float16, 17), 0);
    }

    #[test]
    fn declarations_must_be_true() {
        let mut declared = graph(vec![NodeProto::new("Relu", &["x"], &["y"])], DataType::Float16);
        declared.output = vec![ValueInfoProto::tensor("y", DataType::Float as i32, &[None])];
        let found = mismatches(&declared, 17);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "y");
    }
}
