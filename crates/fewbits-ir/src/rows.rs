//! What a graph tells of the rows of a batch.

use fewbits_onnx::Model;
use fewbits_onnx::facts::{
    CommonScales, has_common_scales, mixes_rows, rounds_to_integers, rows_are_apart,
};
use fewbits_onnx::proto::{GraphProto, NodeProto};
use serde::{Deserialize, Serialize};

use crate::view::GraphView;
use crate::{ValueSpec, input_specs};

/// What a model's graph tells of the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowsKnown {
    /// Each row of the outputs comes from the same row of the inputs, but for scales that a batch has in
    /// common.
    Apart,
    /// They depend on each other, or may in a way that a few of them do not show.
    Mixed,
    /// Nothing.
    Unknown,
    /// Nothing but that they are rounded to few integers, as with `QuantizeLinear`.
    Rounded,
    /// Nothing but that a batch has scales in common, as with `DynamicQuantizeLinear`.
    Scaled,
}

/// What the graph of a model tells of the rows of a batch.
pub fn rows_known(model: &Model) -> RowsKnown {
    known(&GraphView::new(model.graph(), model.opset()))
}

/// What the graph tells of the rows of a batch.
pub(crate) fn known(view: &GraphView) -> RowsKnown {
    match are_apart(view, CommonScales::Round) {
        true => RowsKnown::Apart,
        false if are_mixed(view) => RowsKnown::Mixed,
        false if has_any(view.graph, has_common_scales) => RowsKnown::Scaled,
        false if has_any(view.graph, rounds_to_integers) => RowsKnown::Rounded,
        false => RowsKnown::Unknown,
    }
}

fn has_any(graph: &GraphProto, is: fn(&NodeProto) -> bool) -> bool {
    graph.node.iter().any(|node| {
        let mut inside = node.attribute.iter().flat_map(|a| a.subgraphs());
        is(node) || inside.any(|graph| has_any(graph, is))
    })
}

fn are_mixed(view: &GraphView) -> bool {
    let specs = input_specs(view.graph);
    let rows = specs.iter().filter_map(|spec| Some((spec.name.as_str(), spec.row_axis?)));
    mixes_rows(view.graph, &view.facts, &rows.collect::<Vec<_>>())
}

/// Whether the rows of all outputs depend on the same rows of the inputs only.
pub(crate) fn are_apart(view: &GraphView, scales: CommonScales) -> bool {
    let specs = input_specs(view.graph);
    // Rows of any number, along the first axis.
    let rows = |spec: &ValueSpec| match (spec.row_axis, spec.dims.as_deref()) {
        (Some(0), Some([None, rest @ ..])) => Some(1 + rest.len()),
        _ => None,
    };
    let inputs: Option<Vec<(&str, usize)>> =
        specs.iter().map(|spec| Some((spec.name.as_str(), rows(spec)?))).collect();
    inputs
        .is_some_and(|inputs| rows_are_apart(view.graph, view.opset, &view.facts, &inputs, scales))
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::{DataType, TensorProto, ValueInfoProto};

    use super::*;

    /// What is known of the rows of a graph whose last node gives the output `y`.
    fn known_of(nodes: &[NodeProto]) -> RowsKnown {
        with_view(nodes, known)
    }

    fn with_view<T>(nodes: &[NodeProto], look: impl Fn(&GraphView) -> T) -> T {
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
        look(&GraphView::new(&graph, 17))
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
        assert!(!with_view(&graph(false), |view| are_apart(view, CommonScales::Mix)));
    }
}
