//! The ranks of a graph's values, as far as our own steps must know them.

use std::collections::HashMap;

use fewbits_onnx::proto::{GraphProto, NodeProto};
use fewbits_onnx::qweight::is_mat_mul_n_bits;

/// The number of axes of every value for which it is known.
pub(crate) fn ranks(graph: &GraphProto) -> HashMap<&str, usize> {
    let mut ranks: HashMap<&str, usize> = HashMap::new();
    for info in graph.input.iter().chain(&graph.value_info).chain(&graph.output) {
        if let Some(dims) = info.dims() {
            ranks.insert(info.name(), dims.len());
        }
    }
    let mut lengths: HashMap<&str, usize> = HashMap::new();
    for tensor in &graph.initializer {
        ranks.insert(tensor.name(), tensor.dims.len());
        if let [length] = tensor.dims[..] {
            lengths.insert(tensor.name(), length as usize);
        }
    }
    for node in &graph.node {
        let input = node.input.first().and_then(|name| ranks.get(name.as_str()).copied());
        if node.is("DynamicQuantizeLinear")
            && let Some(rank) = input
        {
            ranks.extend(node.output.iter().map(String::as_str).zip([rank, 0, 0]));
        }
        let Some(rank) = rank_of(node, &ranks, &lengths) else { continue };
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            ranks.entry(output).or_insert(rank);
        }
    }
    ranks
}

fn rank_of(
    node: &NodeProto,
    ranks: &HashMap<&str, usize>,
    lengths: &HashMap<&str, usize>,
) -> Option<usize> {
    let name = |i: usize| node.input.get(i).map(String::as_str);
    let input = |i: usize| ranks.get(name(i)?).copied();
    let axes = |i: usize| match name(i) {
        Some(axes) => lengths.get(axes).copied(),
        None => Some(node.ints("axes").len()).filter(|&n| n > 0),
    };
    if !node.is_onnx() && !is_mat_mul_n_bits(node) {
        return None;
    }
    match node.op_type() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Equal" | "Less" | "Greater" => {
            Some(input(0)?.max(input(1)?))
        }
        "Where" => Some(input(0)?.max(input(1)?).max(input(2)?)),
        "MatMul" | "MatMulInteger" => match (input(0)?, input(1)?) {
            (a, b) if a >= 2 && b >= 2 => Some(a.max(b)),
            _ => None,
        },
        "Gather" => Some((input(0)? + input(1)?).checked_sub(1)?),
        "Reshape" | "Expand" | "ConstantOfShape" => {
            let shape = if node.is("ConstantOfShape") { name(0) } else { name(1) };
            lengths.get(shape?).copied()
        }
        "Unsqueeze" => Some(input(0)? + axes(1)?),
        "Squeeze" => input(0)?.checked_sub(axes(1)?),
        "Flatten" | "Gemm" => Some(2),
        "Shape" => Some(1),
        "MatMulNBits" | "Transpose" | "Relu" | "Sigmoid" | "Tanh" | "Erf" | "Exp" | "Sqrt"
        | "Neg" | "Abs" | "Clip" | "Cast" | "Softmax" | "LayerNormalization" | "Identity"
        | "Dropout" | "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool"
        | "QuantizeLinear" | "Slice" | "DequantizeLinear" | "Concat" | "Gelu"
        | "BatchNormalization" | "LeakyRelu" | "Elu" | "HardSigmoid" | "HardSwish" | "Softplus"
        | "PRelu" | "Pad" | "Resize" | "Split" | "ConvTranspose" | "GlobalMaxPool" => input(0),
        "ReduceMean" | "ReduceSum" | "ReduceMax" if node.int("keepdims", 1) == 1 => input(0),
        _ => None,
    }
}
