//! The element type of every value of a graph, as far as it is known.

use std::collections::HashMap;

use super::gives::Gives;
use super::ml;
use super::operators::gives;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto};

/// Element types by the names of values; what is not in it is not known.
pub type ElementTypes = HashMap<String, DataType>;

/// The element type of every value of the main graph that is declared, constant, or follows from what
/// an operator reads.
pub fn element_types(graph: &GraphProto) -> ElementTypes {
    let mut types = ElementTypes::new();
    extend(&mut types, graph);
    types
}

/// Adds those of `graph`, which sees the values in `types`, too.
pub(super) fn extend(types: &mut ElementTypes, graph: &GraphProto) {
    for (name, data_type) in declared(graph) {
        types.insert(name.to_string(), data_type);
    }
    for tensor in &graph.initializer {
        if let Ok(data_type) = tensor.element_type() {
            types.insert(tensor.name().to_string(), data_type);
        }
    }
    for node in &graph.node {
        for (i, output) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            // What an operator gives counts for more than what is declared beside it.
            let given = result_type(node, i, |name| types.get(name).copied());
            types.extend(given.map(|data_type| (output.clone(), data_type)));
        }
        if node.is_onnx() {
            of_inner_results(types, node);
        }
    }
}

/// Adds those of the results of a node that come from the graphs inside it.
fn of_inner_results(types: &mut ElementTypes, node: &NodeProto) {
    let leading = match node.op_type() {
        "If" | "Scan" => 0,
        // The condition to go on.
        "Loop" => 1,
        _ => return,
    };
    let mut found: Vec<Vec<Option<DataType>>> = Vec::new();
    for body in node.attribute.iter().flat_map(AttributeProto::subgraphs) {
        let inner = types_inside(types, node, body);
        let given = body.output.iter().skip(leading);
        found.push(given.map(|output| inner.get(output.name()).copied()).collect());
    }
    for (place, output) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        let mut each = found.iter().map(|given| given.get(place).copied().flatten());
        let first = each.next().flatten();
        if let Some(data_type) = first.filter(|_| each.all(|other| other == first)) {
            types.insert(output.clone(), data_type);
        }
    }
}

/// The types of the values in a graph inside `node`, and of those around it.
pub(crate) fn types_inside(
    around: &ElementTypes,
    node: &NodeProto,
    body: &GraphProto,
) -> ElementTypes {
    let mut types = around.clone();
    let fed = |input: usize| node.input.get(input).and_then(|name| around.get(name)).copied();
    for (place, input) in body.input.iter().enumerate() {
        let data_type = match node.op_type() {
            "Loop" if place == 0 => Some(DataType::Int64),
            "Loop" if place == 1 => Some(DataType::Bool),
            "Loop" | "Scan" => fed(place),
            _ => None,
        };
        // It hides a value of the same name around it.
        types.remove(input.name());
        types.extend(data_type.map(|data_type| (input.name().to_string(), data_type)));
    }
    extend(&mut types, body);
    types
}

/// The types that a graph declares for its values.
pub(super) fn declared(graph: &GraphProto) -> impl Iterator<Item = (&str, DataType)> {
    let all = graph.input.iter().chain(&graph.value_info).chain(&graph.output);
    all.filter_map(|info| Some((info.name(), info.data_type()?)))
}

/// The type of result number `place` of a node, where `type_of` tells those of the values that it reads.
pub fn result_type(
    node: &NodeProto,
    place: usize,
    type_of: impl Fn(&str) -> Option<DataType>,
) -> Option<DataType> {
    let row = gives(node)?;
    let input = |n: usize| type_of(node.input.get(n)?);
    let says = |name: &str| match node.int(name, 0) {
        0 => None,
        number => i32::try_from(number).ok().and_then(|n| DataType::try_from(n).ok()),
    };
    match *row.get(place).or(row.last())? {
        Gives::Input(n) => input(n),
        Gives::Is(data_type) => Some(data_type),
        Gives::Says(name) => says(name),
        Gives::SaysOr(name, data_type) => says(name).or(Some(data_type)),
        Gives::SaysOrInput(name, n) => says(name).or_else(|| input(n)),
        Gives::TensorOr(name, data_type) => match node.tensor(name) {
            Some(tensor) => tensor.element_type().ok(),
            None => Some(data_type),
        },
        Gives::Constant => constant(node),
        Gives::ZeroPoint => match node.input.get(2).map(String::as_str) {
            None | Some("") => says("output_dtype").or(Some(DataType::Uint8)),
            Some(name) => type_of(name),
        },
        Gives::Label => Some(ml::label(node)),
        Gives::Entry => ml::entry(node, input(0)),
        Gives::Unknown => None,
    }
}

/// The type of a `Constant`, in whichever attribute it is.
fn constant(node: &NodeProto) -> Option<DataType> {
    if let Some(tensor) = node.tensor("value") {
        return tensor.element_type().ok();
    }
    let has = |names: [&str; 2]| names.iter().any(|name| node.attr(name).is_some());
    if has(["value_float", "value_floats"]) {
        Some(DataType::Float)
    } else if has(["value_int", "value_ints"]) {
        Some(DataType::Int64)
    } else if has(["value_string", "value_strings"]) {
        Some(DataType::String)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, TensorProto, ValueInfoProto};

    #[test]
    fn results_of_inner_graphs_have_their_types() {
        use DataType::*;
        let value = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
        let body = |inputs: &[&str], node: NodeProto, outputs: &[&str]| GraphProto {
            node: vec![node],
            input: inputs.iter().map(|name| value(name)).collect(),
            output: outputs.iter().map(|name| value(name)).collect(),
            ..GraphProto::default()
        };
        let of_graph = AttributeProto::of_graph;
        let same = NodeProto::new("Relu", &["half"], &["then"]);
        let other = NodeProto::new("Shape", &["half"], &["else"]);
        let branch = |name: &str, node: &NodeProto| {
            of_graph(name, body(&[], node.clone(), &[node.output[0].as_str()]))
        };
        let step = NodeProto::new("Add", &["state", "state"], &["next"]);
        let graph = GraphProto {
            node: vec![
                NodeProto::new("If", &["condition"], &["either"])
                    .with(branch("then_branch", &same))
                    .with(branch("else_branch", &same)),
                NodeProto::new("If", &["condition"], &["neither"])
                    .with(branch("then_branch", &same))
                    .with(branch("else_branch", &other)),
                NodeProto::new("Loop", &["count", "condition", "half"], &["last", "places"]).with(
                    of_graph(
                        "body",
                        body(&["i", "go", "state"], step.clone(), &["go", "next", "i"]),
                    ),
                ),
                NodeProto::new("Scan", &["half"], &["each"])
                    .with(of_graph("body", body(&["state"], step, &["next"]))),
            ],
            input: vec![
                ValueInfoProto::tensor("half", Float16 as i32, &[None]),
                ValueInfoProto::tensor("condition", Bool as i32, &[]),
                // Hidden by the state of the bodies.
                ValueInfoProto::tensor("state", Double as i32, &[]),
            ],
            ..GraphProto::default()
        };
        let types = element_types(&graph);
        for (name, expected) in [
            ("either", Some(Float16)),
            ("neither", None),
            ("last", Some(Float16)),
            ("places", Some(Int64)),
            ("each", Some(Float16)),
            ("state", Some(Double)),
            ("next", None),
        ] {
            assert_eq!(types.get(name).copied(), expected, "{name}");
        }
    }

    #[test]
    fn types_follow_the_operators() {
        use DataType::*;
        let to = |name: &str, data_type: DataType| AttributeProto::of_int(name, data_type as i64);
        let half = TensorProto::from_raw("", &[1], Float16, vec![0, 0]);
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Cast", &["x"], &["half"]).with(to("to", Float16)),
                NodeProto::new("MatMul", &["half", "w"], &["product"]),
                NodeProto::new("Shape", &["product"], &["sizes"]),
                NodeProto::new("Gather", &["sizes", "i"], &["size"]),
                NodeProto::new("TopK", &["product", "k"], &["top", "places"]),
                NodeProto::new("Equal", &["top", "top"], &["same"]),
                NodeProto::new("Where", &["same", "product", "product"], &["either"]),
                NodeProto::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
                NodeProto::new("MatMulInteger", &["q", "b", "z"], &["sums"]),
                NodeProto::new("QuantizeLinear", &["x", "s", "zero"], &["signed"]),
                NodeProto::new("QuantizeLinear", &["x", "s"], &["unsigned"]),
                NodeProto::new("DequantizeLinear", &["signed", "s"], &["floats"]),
                NodeProto::new("ConstantOfShape", &["sizes"], &["zeros"])
                    .with(AttributeProto::of_tensor("value", half)),
                NodeProto::new("Mystery", &["x"], &["unknown"]),
                NodeProto::new("Relu", &["unknown"], &["unknown too"]),
            ],
            input: vec![ValueInfoProto::tensor("x", Float as i32, &[None])],
            initializer: vec![
                TensorProto::from_raw("w", &[1, 1], Float16, vec![0, 0]),
                TensorProto::from_i8("zero", &[], &[0]),
            ],
            ..GraphProto::default()
        };
        let types = element_types(&graph);
        for (name, expected) in [
            ("half", Some(Float16)),
            ("product", Some(Float16)),
            ("sizes", Some(Int64)),
            ("size", Some(Int64)),
            ("top", Some(Float16)),
            ("places", Some(Int64)),
            ("same", Some(Bool)),
            ("either", Some(Float16)),
            ("q", Some(Uint8)),
            ("s", Some(Float)),
            ("z", Some(Uint8)),
            ("sums", Some(Int32)),
            ("signed", Some(Int8)),
            ("unsigned", Some(Uint8)),
            ("floats", Some(Float)),
            ("zeros", Some(Float16)),
            ("unknown", None),
            ("unknown too", None),
        ] {
            assert_eq!(types.get(name).copied(), expected, "{name}");
        }
    }
}
