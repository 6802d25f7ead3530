//! Which nodes are written out, and which stay.

use super::*;
use crate::facts::Facts;

/// What becomes of a node that reads `x`, of these axes.
fn graph(node: NodeProto, dims: &[Option<i64>]) -> GraphProto {
    let ints = |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
    let mut graph = GraphProto {
        node: vec![node],
        input: vec![
            ValueInfoProto::tensor("x", DataType::Float as i32, dims),
            ValueInfoProto::tensor("target", DataType::Int64 as i32, &[None]),
            ValueInfoProto::tensor("lengths", DataType::Int32 as i32, &[None]),
        ],
        initializer: vec![
            TensorProto::from_f32("w", &[4, 2, 2, 2, 2], &[0.5; 64]),
            TensorProto::from_f32("gru", &[1, 9, 2], &[0.5; 18]),
            TensorProto::from_f32("recurrent", &[1, 9, 3], &[0.5; 27]),
            TensorProto::from_f32("scale", &[4], &[0.5; 4]),
            ints("pads", &[1, 2]),
            ints("last", &[-1]),
        ],
        ..GraphProto::default()
    };
    let facts = Facts::of(&graph);
    let (types, sizes) = (facts.types(), facts.sizes());
    write_out(&mut graph, 21, types, sizes);
    graph
}

fn ops(node: NodeProto, dims: &[Option<i64>]) -> Vec<String> {
    graph(node, dims).node.iter().map(|node| node.op_type().to_string()).collect()
}

#[test]
fn the_table_is_in_order_and_names_each_once() {
    let names: Vec<String> = DEFINITIONS.iter().map(|(op, _)| op.to_lowercase()).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

#[test]
fn functions_are_arithmetic() {
    let of_x = |op: &str| NodeProto::new(op, &["x"], &["y"]);
    for (op, expected) in [
        ("Celu", "Div Elu Mul"),
        ("Selu", "Elu Mul"),
        ("ThresholdedRelu", "Greater Where"),
        ("Mish", "Softplus Tanh Mul"),
        ("Hardmax", "ArgMax Shape Gather OneHot"),
    ] {
        assert_eq!(ops(of_x(op), &[None, Some(3)]).join(" "), expected);
    }
    let last = graph(of_x("Selu"), &[None]).node.remove(1);
    assert_eq!(last.output, ["y"]);
}

#[test]
fn what_is_not_known_enough_of_stays() {
    let unknown = NodeProto::new("Selu", &["unknown"], &["y"]);
    assert_eq!(ops(unknown, &[None]), ["Selu"]);
    let norm = |groups| {
        NodeProto::new("GroupNormalization", &["x", "scale", "scale"], &["y"])
            .with(AttributeProto::of_int("num_groups", groups))
    };
    assert_eq!(ops(norm(0), &[None, Some(4), None]), ["GroupNormalization"]);
    assert_eq!(
        ops(norm(2), &[None, Some(4), None]).join(" "),
        "Shape Reshape InstanceNormalization Reshape Reshape Reshape Mul Add"
    );
    let conv = || NodeProto::new("Conv", &["x", "w"], &["y"]);
    let volume = [None, Some(2), Some(4), Some(5), Some(6)];
    assert_eq!(
        ops(conv(), &volume).join(" "),
        "Gather Transpose Reshape Reshape Conv Shape Gather Concat Reshape Transpose"
    );
    assert_eq!(ops(conv(), &[None, Some(2), None, Some(5), Some(6)]), ["Conv"]);
}

#[test]
fn only_windows_that_executors_lack_are_cut() {
    let pool = |op: &str, kernel: &[i64]| {
        NodeProto::new(op, &["x"], &["y"]).with(AttributeProto::of_ints("kernel_shape", kernel))
    };
    let image = [None, Some(2), Some(6), Some(6)];
    assert_eq!(ops(pool("MaxPool", &[2, 2]), &image), ["MaxPool"]);
    assert_eq!(
        ops(pool("LpPool", &[2, 2]), &image).join(" "),
        "Abs Pow Gather ReduceSum Gather ReduceSum Pow"
    );
    let ceil = pool("LpPool", &[2, 2])
        .with(AttributeProto::of_ints("strides", &[4, 4]))
        .with(AttributeProto::of_ints("pads", &[0, 0, 3, 3]))
        .with(AttributeProto::of_int("ceil_mode", 1));
    assert_eq!(ops(ceil, &image), ["LpPool"], "a window of nothing but padding");
}

#[test]
fn pads_of_some_axes_are_those_of_all() {
    let pad = NodeProto::new("Pad", &["x", "pads", "", "last"], &["y"]);
    let graph = graph(pad, &[None, None, Some(3)]);
    let gather = graph.node.iter().find(|node| node.is("Gather")).unwrap();
    let places = graph.initializer.iter().find(|t| t.name() == gather.input[1]).unwrap();
    // The third is the 0 behind the pads.
    assert_eq!(places.ints().unwrap(), [2, 2, 0, 2, 2, 1]);
    assert_eq!(graph.node.last().unwrap().input.len(), 3);
}

#[test]
fn layers_with_states_are_loops_where_executors_mistake_them() {
    let gru = |lengths: &str, before: i64| {
        NodeProto::new("GRU", &["x", "gru", "recurrent", "", lengths], &["y", ""])
            .with(AttributeProto::of_int("hidden_size", 3))
            .with(AttributeProto::of_int("linear_before_reset", before))
    };
    let dims = [None, None, Some(2)];
    let has_loop = |node| ops(node, &dims).iter().any(|op| op == "Loop");
    assert!(has_loop(gru("", 0)));
    assert!(has_loop(gru("lengths", 1)));
    assert_eq!(ops(gru("", 1), &dims), ["GRU"]);
    let clipped = gru("", 0).with(AttributeProto::of_float("clip", 1.0));
    assert_eq!(ops(clipped, &dims), ["GRU"]);
}

#[test]
fn a_scan_is_a_loop_whose_inputs_are_looked_up() {
    let value = |name: &str| ValueInfoProto::tensor(name, DataType::Float as i32, &[]);
    let body = GraphProto {
        node: vec![NodeProto::new("Add", &["state", "element"], &["next"])],
        input: vec![value("state"), value("element")],
        output: vec![value("next"), value("next")],
        ..GraphProto::default()
    };
    let scan = NodeProto::new("Scan", &["start", "x"], &["end", "all"])
        .with(AttributeProto::of_graph("body", body))
        .with(AttributeProto::of_int("num_scan_inputs", 1))
        .with(AttributeProto::of_ints("scan_output_directions", &[1]));
    let graph = graph(scan, &[None, Some(3)]);
    let found = graph.node.iter().find(|node| node.is("Loop")).unwrap();
    let inner = found.attr("body").unwrap().g.as_ref().unwrap();
    let ops: Vec<&str> = inner.node.iter().map(|node| node.op_type()).collect();
    assert_eq!(ops, ["Gather", "Add", "Identity"]);
    assert_eq!(inner.input.len(), 3);
    assert_eq!(graph.node.last().unwrap().output, ["all"]);
}
