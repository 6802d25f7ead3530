//! The element types of a graph's values, as far as our own steps must know them.

use std::collections::HashMap;

use fewbits_onnx::proto::{DataType, GraphProto, NodeProto};

/// Of every value whose type is known.
pub(crate) fn infer(graph: &GraphProto) -> HashMap<&str, DataType> {
    let mut types: HashMap<&str, DataType> = HashMap::new();
    for info in graph.input.iter().chain(&graph.value_info).chain(&graph.output) {
        let declared = info.tensor_type().and_then(|t| DataType::try_from(t.elem_type()).ok());
        if let Some(data_type) = declared.filter(|&t| t != DataType::Undefined) {
            types.insert(info.name(), data_type);
        }
    }
    for tensor in &graph.initializer {
        if let Ok(data_type) = tensor.element_type() {
            types.insert(tensor.name(), data_type);
        }
    }
    for node in &graph.node {
        let Some(data_type) = of(node, &types) else { continue };
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            types.entry(output).or_insert(data_type);
        }
    }
    types
}

/// The type of a node's outputs.
fn of(node: &NodeProto, types: &HashMap<&str, DataType>) -> Option<DataType> {
    let input = |i: usize| types.get(node.input.get(i)?.as_str()).copied();
    if !node.is_onnx() {
        return None;
    }
    match node.op_type() {
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(DataType::Int64),
        "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" | "Not"
        | "IsNaN" | "IsInf" | "Xor" => Some(DataType::Bool),
        "Cast" => DataType::try_from(node.int("to", 0) as i32).ok(),
        "Where" => input(1),
        "QuantizeLinear" => input(2).or(Some(DataType::Uint8)),
        "DequantizeLinear" => input(1),
        "MatMulInteger" | "ConvInteger" => Some(DataType::Int32),
        // Several outputs of several types.
        "DynamicQuantizeLinear" | "TopK" | "Unique" | "Loop" | "If" | "Scan" => None,
        "ConstantOfShape" => match node.tensor("value") {
            Some(tensor) => tensor.element_type().ok(),
            None => Some(DataType::Float),
        },
        _ => input(0),
    }
}
