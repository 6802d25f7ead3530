//! A `LayerNormalization` whose mean or deviation is read, too, is the arithmetic that ONNX defines it by.

use std::collections::HashMap;

use super::on_axes;
use crate::facts::Dims;
use crate::graph::Names;
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// Rewrites every such node of floats whose number of axes is known.
pub(super) fn with_statistics(graph: &mut GraphProto, opset: i64, sizes: &HashMap<String, Dims>) {
    let wanted = |node: &NodeProto| {
        let further = node.output.iter().skip(1).any(|output| !output.is_empty());
        let single = node.int("stash_type", 1) == DataType::Float as i64;
        node.is("LayerNormalization") && further && single && node.input.len() >= 2
    };
    if !graph.node.iter().any(wanted) {
        return;
    }
    let mut names = Names::new(graph);
    for node in std::mem::take(&mut graph.node) {
        let rank = node.input.first().and_then(|name| sizes.get(name)).map(Vec::len);
        match rank.filter(|_| wanted(&node)) {
            Some(rank) => write(graph, &mut names, opset, &node, rank as i64),
            None => graph.node.push(node),
        }
    }
}

fn write(graph: &mut GraphProto, names: &mut Names, opset: i64, node: &NodeProto, rank: i64) {
    let first = node.int("axis", -1);
    let axes: Vec<i64> = (if first < 0 { first + rank } else { first }..rank).collect();
    let given = |place: usize| node.given_output(place).map(str::to_string);
    let x = &node.input[0];
    let epsilon = names.fresh("epsilon");
    graph.initializer.push(TensorProto::from_f32(&epsilon, &[], &[node.float("epsilon", 1e-5)]));
    let mut op = |name: &str, inputs: &[&str], output: Option<String>| {
        let output = output.unwrap_or_else(|| names.fresh(&name.to_lowercase()));
        let made = NodeProto::new(name, inputs, &[&output]);
        let made =
            if name == "ReduceMean" { on_axes(graph, names, opset, made, &axes) } else { made };
        graph.node.push(made);
        output
    };
    let mean = op("ReduceMean", &[x], given(1));
    let centred = op("Sub", &[x, &mean], None);
    let squares = op("Mul", &[&centred, &centred], None);
    let variance = op("ReduceMean", &[&squares], None);
    let sum = op("Add", &[&variance, &epsilon], None);
    let deviation = op("Sqrt", &[&sum], None);
    let factor = op("Reciprocal", &[&deviation], given(2));
    let normal = op("Mul", &[&centred, &factor], None);
    match node.given_input(2) {
        Some(bias) => {
            let scaled = op("Mul", &[&normal, &node.input[1]], None);
            op("Add", &[&scaled, bias], given(0));
        }
        None => {
            op("Mul", &[&normal, &node.input[1]], given(0));
        }
    }
}
