use super::*;
use crate::proto::{AttributeProto, AttributeType, DataType, TensorProto, ValueInfoProto};

/// A model that feeds `x`, with a product of it and `w`.
fn model(node: NodeProto, constants: Vec<TensorProto>) -> Model {
    let graph = GraphProto {
        node: vec![node],
        input: vec![ValueInfoProto::tensor("x", DataType::Uint8 as i32, &[None, None])],
        output: vec![ValueInfoProto::tensor("y", DataType::Int32 as i32, &[None, None])],
        initializer: constants,
        ..GraphProto::default()
    };
    Model::from_graph(graph, 13)
}

fn count(nodes: &[NodeProto], op: &str) -> usize {
    nodes.iter().filter(|n| n.is(op)).count()
}

fn product(inputs: &[&str]) -> NodeProto {
    NodeProto { name: Some("p".into()), ..NodeProto::new("MatMulInteger", inputs, &["y"]) }
}

#[test]
fn factors_are_cut_no_more_than_they_must_be() {
    // 16 million over 255 is 65,793, and over 16 a million.
    let cases = [(500, 127, 1, 0), (600, 127, 2, 0), (8_000, 127, 2, 0), (9_000, 127, 4, 0)];
    for (depth, weight, products, slices) in cases.into_iter().chain([(70_000, 127, 8, 4)]) {
        let w = TensorProto::from_i8("w", &[depth, 1], &vec![weight; depth]);
        let mut m = model(product(&["x", "w"]), vec![w]);
        assert_eq!(exact_products(&mut m), 1);
        let nodes = &m.graph().node;
        let found = (count(nodes, "MatMul"), count(nodes, "Slice"));
        assert_eq!(found, (products, slices), "{depth}");
        assert_eq!(nodes.last().unwrap().output, ["y"]);
        assert_eq!(nodes.last().unwrap().name(), "p");
        assert_eq!(exact_products(&mut m), 0);
    }
    let mut m = model(product(&["x", "x"]), vec![]);
    exact_products(&mut m);
    assert_eq!(count(&m.graph().node, "MatMul"), 4);
}

#[test]
fn zero_points_widen_sums() {
    let w = TensorProto::from_i8("w", &[300, 1], &[127; 300]);
    for (zero, products) in [(0, 1), (-128, 2)] {
        let zero = TensorProto::from_i8("z", &[1], &[zero]);
        let mut m = model(product(&["x", "w", "", "z"]), vec![w.clone(), zero]);
        exact_products(&mut m);
        assert_eq!(count(&m.graph().node, "MatMul"), products);
    }
}

#[test]
fn filters_give_their_shape_to_the_convolution() {
    let w = TensorProto::from_i8("w", &[2, 3, 5, 4], &[1; 120]);
    let mut m = model(NodeProto::new("ConvInteger", &["x", "w"], &["y"]), vec![w]);
    assert_eq!(exact_products(&mut m), 1);
    let conv = m.graph().node.iter().find(|n| n.is("Conv")).unwrap();
    assert_eq!(conv.ints("kernel_shape"), [5, 4]);
}

#[test]
fn subgraphs_are_rewritten() {
    let branch = |name: &str| AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(GraphProto { node: vec![product(&["x", "w"])], ..GraphProto::default() }),
        ..AttributeProto::default()
    };
    let both = NodeProto::new("If", &["c"], &["y"])
        .with(branch("then_branch"))
        .with(branch("else_branch"));
    let w = TensorProto::from_i8("w", &[4, 1], &[1; 4]);
    let mut m = model(both, vec![w]);
    assert_eq!(exact_products(&mut m), 2);
    for graph in m.graph().node[0].attribute.iter().flat_map(AttributeProto::subgraphs) {
        // The weights outside are known inside.
        assert_eq!(count(&graph.node, "MatMul"), 1);
        assert_eq!(count(&graph.node, "MatMulInteger"), 0);
    }
}
