//! A graph of a newer operator set becomes one of opset 20 that computes the same.
//!
//! From opset 21 on most operators only gained element types. Those that are new since, or mean
//! something else, keep the model where it is. `QuantizeLinear` got an attribute for its type,
//! which onnxruntime 1.32 sets on nodes that it adds itself behind signed activations; it then
//! makes these unsigned, and refuses a model that was right.

use crate::Model;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// The opset that models are lowered to.
const OPSET: i64 = 20;
/// The newest opset whose changes are known here.
const NEWEST_KNOWN: i64 = 25;

/// Operators of newer opsets, and those that mean something else in opset 20.
const NEWER: &[&str] = &[
    "Attention",
    "GroupNormalization",
    "RMSNormalization",
    "RotaryEmbedding",
    "Swish",
    "TensorScatter",
];

/// Attributes of newer opsets.
const NEWER_ATTRIBUTES: &[&str] = &["block_size", "output_dtype", "precision", "round_mode"];

/// Attributes that name an element type.
const TYPE_ATTRIBUTES: &[&str] = &["dtype", "to"];

/// Element types that every operator takes as it did in opset 20. Those that some took later are
/// left out: bfloat16, and integers of 16 bits in `QuantizeLinear`.
const TYPES: &[DataType] = &[
    DataType::Float,
    DataType::Uint8,
    DataType::Int8,
    DataType::Int32,
    DataType::Int64,
    DataType::String,
    DataType::Bool,
    DataType::Float16,
    DataType::Double,
    DataType::Uint32,
    DataType::Uint64,
];

/// Brings a newer model to opset 20 where each of its nodes is known to mean the same there; tells
/// whether it did.
pub fn lower_opset(model: &mut Model) -> bool {
    let lowers = (OPSET + 1..=NEWEST_KNOWN).contains(&model.opset())
        && graph_is_older(model.graph())
        && model.proto().functions.iter().flat_map(|f| &f.node).all(is_older);
    if lowers {
        let proto = model.proto_mut();
        let of_functions = proto.functions.iter_mut().flat_map(|f| &mut f.opset_import);
        for import in proto.opset_import.iter_mut().chain(of_functions) {
            if import.is_default() {
                import.version = Some(import.version().min(OPSET));
            }
        }
    }
    lowers
}

fn graph_is_older(graph: &GraphProto) -> bool {
    graph.input.iter().all(|value| value.data_type().is_none_or(|of| TYPES.contains(&of)))
        && graph.initializer.iter().all(tensor_is_older)
        && graph.sparse_initializer.is_empty()
        && graph.node.iter().all(is_older)
}

fn is_older(node: &NodeProto) -> bool {
    let named = !(node.is_onnx() && NEWER.contains(&node.op_type()));
    named && node.attribute.iter().all(|attribute| attribute_is_older(node, attribute))
}

fn attribute_is_older(node: &NodeProto, attribute: &AttributeProto) -> bool {
    let name = attribute.name();
    let newer = node.is_onnx() && NEWER_ATTRIBUTES.contains(&name);
    let of_type = node.is_onnx() && TYPE_ATTRIBUTES.contains(&name);
    !newer
        && (!of_type || is_known(attribute.i()))
        && attribute.t.iter().chain(&attribute.tensors).all(tensor_is_older)
        && attribute.subgraphs().all(graph_is_older)
}

fn tensor_is_older(tensor: &TensorProto) -> bool {
    tensor.element_type().is_ok_and(|of| TYPES.contains(&of))
}

fn is_known(code: i64) -> bool {
    TYPES.iter().any(|&known| known as i64 == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ValueInfoProto;

    fn model(node: NodeProto, opset: i64) -> Model {
        let graph = GraphProto {
            node: vec![node],
            input: vec![ValueInfoProto::tensor("x", 1, &[Some(3)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[Some(3)])],
            ..GraphProto::default()
        };
        Model::from_graph(graph, opset)
    }

    fn lowered(node: NodeProto, opset: i64) -> Option<i64> {
        let mut model = model(node, opset);
        lower_opset(&mut model).then(|| model.opset())
    }

    #[test]
    fn what_means_the_same_is_lowered() {
        let relu = || NodeProto::new("Relu", &["x"], &["y"]);
        assert_eq!(lowered(relu(), 25), Some(20));
        assert_eq!(lowered(relu(), 21), Some(20));
        assert_eq!(lowered(relu(), 20), None);
        assert_eq!(lowered(relu(), NEWEST_KNOWN + 1), None);
    }

    #[test]
    fn what_is_newer_stays() {
        assert_eq!(lowered(NodeProto::new("Swish", &["x"], &["y"]), 24), None);
        let cast = |to: DataType| {
            NodeProto::new("Cast", &["x"], &["y"]).with(AttributeProto::of_int("to", to as i64))
        };
        assert_eq!(lowered(cast(DataType::Int64), 23), Some(20));
        assert_eq!(lowered(cast(DataType::Bfloat16), 23), None);
        let typed = NodeProto::new("QuantizeLinear", &["x", "s"], &["y"])
            .with(AttributeProto::of_int("output_dtype", DataType::Int8 as i64));
        assert_eq!(lowered(typed, 23), None);
        // Another domain may name its operators alike.
        let mut foreign = NodeProto::new("Swish", &["x"], &["y"]);
        foreign.domain = Some("com.example".into());
        assert_eq!(lowered(foreign, 24), Some(20));
        let body = model(NodeProto::new("RMSNormalization", &["x"], &["y"]), 23);
        let branch = NodeProto::new("If", &["x"], &["y"])
            .with(AttributeProto::of_graph("then_branch", body.graph().clone()));
        assert_eq!(lowered(branch, 23), None);
    }
}
