//! Products of a vector are products of a matrix of one row or column.

use std::collections::HashMap;

use super::on_axes;
use crate::facts::Dims;
use crate::graph::Names;
use crate::proto::{GraphProto, NodeProto};

/// Rewrites every `MatMul` one of whose factors is known to be a vector.
pub(super) fn as_matrices(graph: &mut GraphProto, opset: i64, sizes: &HashMap<String, Dims>) {
    if !graph.node.iter().any(|node| node.is("MatMul")) {
        return;
    }
    let mut names = Names::new(graph);
    for mut node in std::mem::take(&mut graph.node) {
        let rank = |input: usize| sizes.get(node.input.get(input)?).map(Vec::len);
        let (left, right) = (rank(0), rank(1));
        // What is not known on the right may be a vector, too, and then there is no axis to take off.
        let is_known = right == Some(1) || (left == Some(1) && right.is_some());
        if !node.is("MatMul") || !is_known {
            graph.node.push(node);
            continue;
        }
        let mut gone = Vec::new();
        for (input, rank, axis) in [(0, left, 0), (1, right, 1)] {
            if rank == Some(1) {
                let matrix = names.fresh("matrix");
                let vector = node.input[input].clone();
                push(graph, &mut names, opset, "Unsqueeze", &vector, &matrix, &[axis]);
                node.input[input] = matrix;
                gone.push(if input == 0 { -2 } else { -1 });
            }
        }
        let output = std::mem::replace(&mut node.output[0], names.fresh("product"));
        let product = node.output[0].clone();
        graph.node.push(node);
        push(graph, &mut names, opset, "Squeeze", &product, &output, &gone);
    }
}

/// Adds a node on some axes.
fn push(
    graph: &mut GraphProto,
    names: &mut Names,
    opset: i64,
    op: &str,
    input: &str,
    output: &str,
    axes: &[i64],
) {
    let node = NodeProto::new(op, &[input], &[output]);
    let node = on_axes(graph, names, opset, node, axes);
    graph.node.push(node);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::proto::ValueInfoProto;

    #[test]
    fn only_products_of_vectors_change() {
        let value = |name: &str, rank: usize| ValueInfoProto::tensor(name, 1, &vec![None; rank]);
        let product = |a: &str, b: &str| NodeProto::new("MatMul", &[a, b], &["y"]);
        for (node, expected) in [
            (product("v", "m"), vec!["Unsqueeze", "MatMul", "Squeeze"]),
            (product("t", "v"), vec!["Unsqueeze", "MatMul", "Squeeze"]),
            (product("v", "v"), vec!["Unsqueeze", "Unsqueeze", "MatMul", "Squeeze"]),
            (product("t", "m"), vec!["MatMul"]),
            (product("unknown", "v"), vec!["Unsqueeze", "MatMul", "Squeeze"]),
            (product("v", "unknown"), vec!["MatMul"]),
        ] {
            let mut graph = GraphProto {
                node: vec![node],
                input: vec![value("v", 1), value("m", 2), value("t", 3)],
                ..GraphProto::default()
            };
            let facts = Facts::of(&graph);
            as_matrices(&mut graph, 13, facts.sizes());
            let ops: Vec<&str> = graph.node.iter().map(|node| node.op_type()).collect();
            assert_eq!(ops, expected);
            assert_eq!(graph.node.last().unwrap().output, ["y"]);
        }
    }
}
