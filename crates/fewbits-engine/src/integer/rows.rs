//! What a graph tells of the rows of a batch.

use fewbits_onnx::facts::{
    CommonScales, has_common_scales, mixes_rows, rounds_to_integers, rows_are_apart,
};
use fewbits_onnx::proto::{GraphProto, NodeProto};

use crate::integer::net::Net;
use crate::{RowsKnown, ValueSpec, input_specs};

/// What the graph tells of the rows of a batch.
pub(crate) fn known(net: &Net) -> RowsKnown {
    match are_apart(net, CommonScales::Round) {
        true => RowsKnown::Apart,
        false if are_mixed(net) => RowsKnown::Mixed,
        false if has_any(net.graph, has_common_scales) => RowsKnown::Scaled,
        false if has_any(net.graph, rounds_to_integers) => RowsKnown::Rounded,
        false => RowsKnown::Unknown,
    }
}

fn has_any(graph: &GraphProto, is: fn(&NodeProto) -> bool) -> bool {
    graph.node.iter().any(|node| {
        let mut inside = node.attribute.iter().flat_map(|a| a.subgraphs());
        is(node) || inside.any(|graph| has_any(graph, is))
    })
}

fn are_mixed(net: &Net) -> bool {
    let specs = input_specs(net.graph);
    let rows = specs.iter().filter_map(|spec| Some((spec.name.as_str(), spec.row_axis?)));
    mixes_rows(net.graph, &net.facts, &rows.collect::<Vec<_>>())
}

/// Whether the rows of all outputs depend on the same rows of the inputs only.
pub(crate) fn are_apart(net: &Net, scales: CommonScales) -> bool {
    let specs = input_specs(net.graph);
    // Rows of any number, along the first axis.
    let rows = |spec: &ValueSpec| match (spec.row_axis, spec.dims.as_deref()) {
        (Some(0), Some([None, rest @ ..])) => Some(1 + rest.len()),
        _ => None,
    };
    let inputs: Option<Vec<(&str, usize)>> =
        specs.iter().map(|spec| Some((spec.name.as_str(), rows(spec)?))).collect();
    inputs.is_some_and(|inputs| rows_are_apart(net.graph, net.opset, &net.facts, &inputs, scales))
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::{DataType, TensorProto, ValueInfoProto};

    use super::*;

    /// What is known of the rows of a graph whose last node gives the output `y`.
    fn known_of(nodes: &[NodeProto]) -> RowsKnown {
        with_net(nodes, known)
    }

    fn with_net<T>(nodes: &[NodeProto], look: impl Fn(&Net) -> T) -> T {
        let value = |name: &str| {
            ValueInfoProto::tensor(name, DataType::Float as i32, &[None, Some(4), Some(6)])
        };
        let graph = GraphProto {
            node: nodes.to_vec(),
            input: vec![value("x")],
            output: vec![value("y")],
            initializer: vec![TensorProto::from_f32("matrix", &[6, 6], &[1.0; 36])],
            ..GraphProto::default()
        };
        look(&Net::new(&graph, 17))
    }

    fn node(op: &str, inputs: &[&str]) -> NodeProto {
        NodeProto::new(op, inputs, &["y"])
    }

    #[test]
    fn common_scales_only_round() {
        let graph = |mixes: bool| {
            let mut nodes = vec![
                NodeProto::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
                NodeProto::new("MatMulInteger", &["q", "matrix", "z"], &["sums"]),
                NodeProto::new("Mul", &["sums", "s"], &["v"]),
            ];
            nodes.push(match mixes {
                true => node("NonZero", &["v"]),
                false => node("Relu", &["v"]),
            });
            nodes
        };
        assert_eq!(known_of(&graph(false)), RowsKnown::Apart);
        assert_eq!(known_of(&graph(true)), RowsKnown::Scaled);
        assert_eq!(known_of(&[node("ReduceMean", &["x"])]), RowsKnown::Mixed);
        assert_eq!(known_of(&[node("NonZero", &["x"])]), RowsKnown::Unknown);
        let rounded = NodeProto::new("QuantizeLinear", &["x", "matrix"], &["v"]);
        assert_eq!(known_of(&[rounded, node("NonZero", &["v"])]), RowsKnown::Rounded);
        assert!(!with_net(&graph(false), |net| are_apart(net, CommonScales::Mix)));
    }
}
