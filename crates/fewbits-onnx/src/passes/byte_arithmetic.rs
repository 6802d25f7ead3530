//! Arithmetic of bytes as that of 32-bit integers, whose last bits are the same: executors have none for bytes.

use super::emit::Emit;
use crate::Model;
use crate::facts::{ElementTypes, element_types};
use crate::graph::Names;
use crate::proto::{DataType, NodeProto};

/// What gives what it takes.
const ARITHMETIC: [&str; 8] = ["Add", "Clip", "Div", "Max", "Min", "Mod", "Mul", "Sub"];
const COMPARISONS: [&str; 5] = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"];

/// Rewrites every such node of the main graph whose operands are all known to be bytes.
pub fn byte_arithmetic(model: &mut Model) {
    let graph = model.graph_mut();
    let is_one = |node: &NodeProto| {
        let listed = ARITHMETIC.iter().chain(&COMPARISONS);
        node.is_onnx() && listed.into_iter().any(|op| *op == node.op_type())
    };
    if !graph.node.iter().any(is_one) {
        return;
    }
    let types = element_types(graph);
    let mut names = Names::new(graph);
    for node in std::mem::take(&mut graph.node) {
        let bytes = bytes_of(&node, &types).filter(|_| is_one(&node));
        let Some(bytes) = bytes else {
            graph.node.push(node);
            continue;
        };
        let mut emit = Emit::new(&node, "wide", &mut names);
        let wide: Vec<String> = node
            .input
            .iter()
            .map(|name| match name.as_str() {
                "" => String::new(),
                name => emit.cast(name, DataType::Int32),
            })
            .collect();
        let inputs: Vec<&str> = wide.iter().map(String::as_str).collect();
        let result = emit.op_with(node.op_type(), &inputs, node.attribute.clone());
        if ARITHMETIC.contains(&node.op_type()) {
            emit.cast(&result, bytes);
        }
        emit.finish(&node);
        graph.node.append(&mut emit.into_nodes());
    }
}

/// The type of bytes that all operands of a node have.
fn bytes_of(node: &NodeProto, types: &ElementTypes) -> Option<DataType> {
    let first = *types.get(node.input.first()?)?;
    let mut given = node.input.iter().filter(|name| !name.is_empty());
    let is_of_bytes = matches!(first, DataType::Int8 | DataType::Uint8);
    (is_of_bytes && given.all(|name| types.get(name) == Some(&first))).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GraphProto, ValueInfoProto};

    #[test]
    fn only_bytes_become_wide() {
        let ops = |op: &str, data_type: DataType| {
            let value = |name: &str| ValueInfoProto::tensor(name, data_type as i32, &[None]);
            let graph = GraphProto {
                node: vec![NodeProto::new(op, &["a", "b"], &["y"])],
                input: vec![value("a"), value("b")],
                ..GraphProto::default()
            };
            let mut model = Model::from_graph(graph, 17);
            byte_arithmetic(&mut model);
            let nodes = &model.graph().node;
            assert_eq!(nodes.last().unwrap().output, ["y"]);
            nodes.iter().map(|node| node.op_type().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ops("Add", DataType::Uint8), "Cast Cast Add Cast");
        assert_eq!(ops("Less", DataType::Int8), "Cast Cast Less");
        assert_eq!(ops("Add", DataType::Int32), "Add");
        assert_eq!(ops("MatMulInteger", DataType::Uint8), "MatMulInteger");
    }
}
