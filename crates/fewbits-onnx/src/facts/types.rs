//! The element type of every value of a graph, as far as it is known.

use std::collections::HashMap;

use super::ml;
use super::operators::{Gives, gives};
use crate::proto::{DataType, GraphProto, NodeProto};

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
    }
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
