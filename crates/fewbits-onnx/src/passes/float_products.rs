//! Products of floats between quantized values, and how they stay float.
//!
//! When onnxruntime loads a model, it makes the constant float weight of a `Conv`, `ConvTranspose` or `Gemm`
//! between a `DequantizeLinear` and a `QuantizeLinear` int8, with one scale, whatever that loses, and the bias
//! int32. It leaves out a product whose bias is no constant. So the bias becomes an int32 constant behind a
//! `DequantizeLinear`, with scales that are powers of two: the same floats, to the bit.

use std::collections::HashMap;

use super::qdq::write_integer_bias;
use crate::graph::Index;
use crate::proto::{GraphProto, NodeProto};

/// Bits of a float's mantissa behind the first.
const MANTISSA_BITS: u32 = 23;

/// Writes the biases of such products as int32. `shapes` are those of weights, by name.
pub fn keep_float_products(graph: &mut GraphProto, shapes: &HashMap<String, Vec<usize>>) {
    let index = Index::new(graph);
    let mut biases = Vec::new();
    for (i, node) in graph.node.iter().enumerate() {
        if !is_made_integer(graph, &index, node) {
            continue;
        }
        let bias = match node.input.get(2).filter(|bias| !bias.is_empty()) {
            Some(bias) => {
                let Some(tensor) = index.initializer(bias).filter(|b| b.dims.len() == 1) else {
                    continue;
                };
                let Ok(floats) = tensor.floats() else { continue };
                floats.to_vec()
            }
            None => match shapes.get(&node.input[1]).and_then(|shape| outputs(node, shape)) {
                Some(outputs) => vec![0.0; outputs],
                None => continue,
            },
        };
        if let Some(bias) = integers(&bias) {
            biases.push((i, bias));
        }
    }
    // Each one inserts a node before all others.
    for (inserted, (position, bias)) in biases.into_iter().enumerate() {
        let position = position + inserted;
        graph.node[position].input.resize(3, String::new());
        let shape = [bias.0.len()];
        write_integer_bias(graph, position, 2, &shape, bias);
    }
}

/// Whether onnxruntime would make the weight of `node` integers.
fn is_made_integer(graph: &GraphProto, index: &Index, node: &NodeProto) -> bool {
    let is_dequantized = |value: &String| {
        index.producer(value).is_some_and(|p| graph.node[p].is("DequantizeLinear"))
    };
    let [input, weight, ..] = &node.input[..] else { return false };
    let is_product = node.is_onnx() && matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm");
    if !is_product || !is_dequantized(input) || is_dequantized(weight) {
        return false;
    }
    let mut value = &node.output[0];
    loop {
        let [reader] = index.consumers(value) else { return false };
        let reader = &graph.node[*reader];
        match reader.op_type() {
            "QuantizeLinear" => return true,
            "Relu" | "Clip" => value = &reader.output[0],
            _ => return false,
        }
    }
}

/// The output channels of a product with a weight of this shape.
fn outputs(node: &NodeProto, shape: &[usize]) -> Option<usize> {
    match node.op_type() {
        "ConvTranspose" => {
            let groups = usize::try_from(node.int("group", 1)).ok()?;
            shape.get(1)?.checked_mul(groups)
        }
        "Gemm" if node.int("transB", 0) == 0 => shape.get(1).copied(),
        _ => shape.first().copied(),
    }
}

/// Integers and scales that stand for these floats: exactly, but for floats so small that a scale would be
/// subnormal. `None` where one is not finite.
fn integers(floats: &[f32]) -> Option<(Vec<i32>, Vec<f32>)> {
    let one = |&x: &f32| {
        let exponent = (x.to_bits() >> MANTISSA_BITS) & 0xff;
        let scale = f32::from_bits(exponent.saturating_sub(MANTISSA_BITS).max(1) << MANTISSA_BITS);
        // A quotient of a power of two is exact.
        x.is_finite().then(|| ((x / scale) as i32, scale))
    };
    Some(floats.iter().map(one).collect::<Option<Vec<_>>>()?.into_iter().unzip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, TensorProto};

    fn graph(weight: &str, between: &str) -> GraphProto {
        GraphProto {
            node: vec![
                NodeProto::new("DequantizeLinear", &["q", "s"], &["x"]),
                NodeProto::new("DequantizeLinear", &["i", "s"], &["dequantized"]),
                NodeProto::new("Conv", &["x", weight, "b"], &["c"]),
                NodeProto::new(between, &["c"], &["r"]),
                NodeProto::new("QuantizeLinear", &["r", "s"], &["y"]),
            ],
            initializer: vec![
                TensorProto::from_f32("w", &[2, 1, 1], &[1.0, 2.0]),
                TensorProto::from_f32("b", &[2], &[0.1, -3e7]),
            ],
            ..GraphProto::default()
        }
    }

    fn is_kept(mut graph: GraphProto) -> bool {
        let before = graph.clone();
        keep_float_products(&mut graph, &HashMap::from([("w".to_string(), vec![2, 1, 1])]));
        graph != before
    }

    #[test]
    fn only_what_onnxruntime_makes_integer_is_changed() {
        assert!(is_kept(graph("w", "Relu")));
        assert!(!is_kept(graph("dequantized", "Relu")));
        assert!(!is_kept(graph("w", "Sigmoid")));
        let mut branching = graph("w", "Relu");
        branching.node.push(NodeProto::new("Sigmoid", &["c"], &["z"]));
        assert!(!is_kept(branching));
        let mut bare = graph("w", "Clip");
        bare.node[2].input.truncate(2);
        keep_float_products(&mut bare, &HashMap::from([("w".to_string(), vec![2, 1, 1])]));
        let zeros = bare.initializer.iter().find(|t| t.data_type == Some(6)).unwrap();
        assert_eq!((zeros.dims.as_slice(), bare.node[3].input.len()), ([2].as_slice(), 3));
    }

    #[test]
    fn outputs_are_those_of_the_operator() {
        let conv = |op: &str| NodeProto::new(op, &["x", "w"], &["y"]);
        assert_eq!(outputs(&conv("Conv"), &[6, 3, 1]), Some(6));
        let transposed = conv("ConvTranspose").with(AttributeProto::of_int("group", 2));
        assert_eq!(outputs(&transposed, &[6, 3, 1]), Some(6));
        assert_eq!(outputs(&conv("Gemm"), &[6, 3]), Some(3));
        let turned = conv("Gemm").with(AttributeProto::of_int("transB", 1));
        assert_eq!(outputs(&turned, &[6, 3]), Some(6));
    }

    #[test]
    fn integers_stand_for_the_same_floats() {
        let floats = [0.1f32, -3.7e7, 1.0, -0.0, 2f32.powi(-100) * 1.37, f32::MAX, 16_777_215.0];
        let (integers, scale) = integers(&floats).unwrap();
        for ((q, s), x) in integers.iter().zip(&scale).zip(floats) {
            assert_eq!(*q as f32 * s, x);
        }
        assert_eq!(super::integers(&[1e-40]), Some((vec![0], vec![f32::MIN_POSITIVE])));
        for x in [f32::NAN, f32::INFINITY] {
            assert_eq!(super::integers(&[x]), None, "{x}");
        }
    }
}
