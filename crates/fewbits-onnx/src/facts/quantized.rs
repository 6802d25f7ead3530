//! Activations that become integers by constants of the file.

use crate::graph::Index;
use crate::proto::{DataType, GraphProto, NodeProto};

/// A value that becomes integers with one constant scale.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedValue<'a> {
    /// The float value.
    pub value: &'a str,
    /// The element type of the integers.
    pub data_type: DataType,
    /// The step between two integers.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: i64,
}

/// Those of a graph, in the order of the nodes that quantize them.
pub fn quantized_values(graph: &GraphProto) -> Vec<QuantizedValue<'_>> {
    let index = Index::new(graph);
    graph.node.iter().filter_map(|node| quantized(node, &index)).collect()
}

fn quantized<'a>(node: &'a NodeProto, index: &Index) -> Option<QuantizedValue<'a>> {
    node.is("QuantizeLinear").then_some(())?;
    let scale = index.initializer(node.input.get(1)?)?.floats().ok()?;
    let [scale] = scale[..] else { return None };
    let (data_type, zero_point) = match node.given_input(2) {
        Some(name) => {
            let tensor = index.initializer(name)?;
            (tensor.element_type().ok()?, *tensor.ints().ok()?.first()?)
        }
        None => (DataType::Uint8, 0),
    };
    Some(QuantizedValue { value: node.input.first()?, data_type, scale, zero_point })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::TensorProto;

    #[test]
    fn only_constant_scales_of_whole_values_count() {
        let quantize = |inputs: &[&str]| NodeProto::new("QuantizeLinear", inputs, &["q"]);
        let graph = GraphProto {
            node: vec![
                quantize(&["a", "scale"]),
                quantize(&["b", "scale", "zero"]),
                quantize(&["c", "computed", "zero"]),
                quantize(&["d", "scales"]),
                NodeProto::new("Relu", &["e", "scale"], &["f"]),
            ],
            initializer: vec![
                TensorProto::from_f32("scale", &[], &[0.5]),
                TensorProto::from_f32("scales", &[2], &[0.5, 0.25]),
                TensorProto::from_i8("zero", &[], &[-3]),
            ],
            ..GraphProto::default()
        };
        let value = |value, data_type, zero_point| QuantizedValue {
            value,
            data_type,
            scale: 0.5,
            zero_point,
        };
        let expected = [value("a", DataType::Uint8, 0), value("b", DataType::Int8, -3)];
        assert_eq!(quantized_values(&graph), expected);
    }
}
