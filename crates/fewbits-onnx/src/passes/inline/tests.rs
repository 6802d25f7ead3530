use super::*;
use crate::proto::{AttributeType, ValueInfoProto};

fn function(name: &str, inputs: &[&str], outputs: &[&str], node: Vec<NodeProto>) -> FunctionProto {
    let text = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    FunctionProto {
        name: Some(name.into()),
        domain: Some("own".into()),
        input: text(inputs),
        output: text(outputs),
        node,
        opset_import: vec![import("", 17), import("own", 1)],
        ..FunctionProto::default()
    }
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: Some("own".into()), ..NodeProto::new(name, inputs, outputs) }
}

fn refers(name: &str, to: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        ref_attr_name: Some(to.into()),
        r#type: Some(AttributeType::Float as i32),
        ..AttributeProto::default()
    }
}

fn model(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Model {
    let graph = GraphProto {
        node: nodes,
        input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
        output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(2)])],
        ..GraphProto::default()
    };
    let mut model = Model::from_graph(graph, 17);
    model.proto_mut().opset_import.push(import("own", 1));
    model.proto_mut().functions = functions;
    model
}

/// Nodes as text: what they are, read and give.
fn text(model: &Model) -> Vec<String> {
    let line = |node: &NodeProto| {
        format!("{} {} > {}", node.op_type(), node.input.join(" "), node.output.join(" "))
    };
    model.graph().node.iter().map(line).collect()
}

#[test]
fn calls_become_nodes_with_names_of_their_own() {
    let leaky = NodeProto::new("LeakyRelu", &["a"], &["t"]).with(refers("alpha", "slope"));
    let mut inner = function(
        "Inner",
        &["a", "b"],
        &["c"],
        vec![leaky, NodeProto::new("Sum", &["t", "b"], &["c"])],
    );
    inner.attribute_proto = vec![AttributeProto::of_float("slope", 0.5)];
    let outer = function(
        "Outer",
        &["a"],
        &["b", "unread"],
        vec![
            call("Inner", &["a"], &["t"]).with(refers("slope", "slope")),
            call("Inner", &["t", "a"], &["b"]),
            NodeProto::new("Neg", &["b"], &["unread"]),
        ],
    );
    let nodes = vec![
        call("Outer", &["x"], &["t"]).with(AttributeProto::of_float("slope", 0.25)),
        call("Outer", &["t"], &["y"]),
    ];
    let mut m = model(nodes, vec![outer, inner]);
    assert_eq!(inline_functions(&mut m), []);
    let lines = text(&m);
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0].split(' ').next(), Some("LeakyRelu"));
    // Each value is given once, and only given ones are read.
    let mut given = HashSet::from(["x".to_string(), String::new()]);
    for node in &m.graph().node {
        assert!(node.input.iter().all(|name| given.contains(name)), "{lines:#?}");
        assert!(node.output.iter().all(|name| given.insert(name.clone())), "{lines:#?}");
    }
    let slopes: Vec<f32> = m.graph().node.iter().map(|n| n.float("alpha", 0.0)).collect();
    assert_eq!(slopes, [0.25, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0]);
    assert!(m.proto().functions.is_empty());
    assert_eq!(m.proto().opset_import.len(), 1);
}

#[test]
fn constants_are_shared_and_graphs_keep_to_themselves() {
    let weight = TensorProto::from_f32("", &[2, 2], &[1.0; 4]);
    let graph = |name: &str, node: NodeProto| AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(GraphProto {
            output: vec![ValueInfoProto::tensor(&node.output[0], 1, &[None])],
            node: vec![node],
            ..GraphProto::default()
        }),
        ..AttributeProto::default()
    };
    let layer = function(
        "Layer",
        &["c", "a"],
        &["y"],
        vec![
            NodeProto::new("Constant", &[], &["w"])
                .with(AttributeProto::of_tensor("value", weight)),
            NodeProto::new("If", &["c"], &["y"])
                .with(graph("then_branch", NodeProto::new("MatMul", &["a", "w"], &["t"])))
                .with(graph("else_branch", NodeProto::new("Neg", &["a"], &["t"]))),
        ],
    );
    let nodes = vec![call("Layer", &["c", "x"], &["w"]), call("Layer", &["c", "w"], &["y"])];
    let mut m = model(nodes, vec![layer]);
    assert_eq!(inline_functions(&mut m), []);
    let constants: Vec<&str> = m.graph().initializer.iter().map(TensorProto::name).collect();
    assert_eq!(constants.len(), 1);
    assert_ne!(constants[0], "w", "the model's own value has that name");
    let mut inner = HashSet::new();
    for (node, read) in m.graph().node.iter().zip(["x", "w"]) {
        let branch = node.attribute[0].g.as_ref().unwrap();
        assert_eq!(branch.node[0].input, [read, constants[0]]);
        assert_eq!(branch.output[0].name(), branch.node[0].output[0]);
        assert!(inner.insert(branch.node[0].output[0].clone()));
    }
}

#[test]
fn operator_sets_are_brought_together() {
    let squeeze = NodeProto::new("Squeeze", &["a"], &["b"]).with(AttributeProto {
        r#type: Some(AttributeType::Ints as i32),
        ..refers("axes", "axes")
    });
    let mut old = function("Old", &["a"], &["b"], vec![squeeze]);
    old.opset_import[0].version = Some(11);
    let nodes = vec![
        call("Old", &["x"], &["t"]).with(AttributeProto::of_ints("axes", &[0])),
        call("Old", &["t"], &["y"]).with(AttributeProto::of_ints("axes", &[1])),
    ];
    let mut m = model(nodes, vec![old.clone()]);
    assert_eq!(inline_functions(&mut m), []);
    let axes =
        |node: &NodeProto| m.graph().find_initializer(&node.input[1]).unwrap().ints().unwrap();
    let axes: Vec<_> = m.graph().node.iter().flat_map(axes).collect();
    assert_eq!(axes, [0, 1]);
    // A newer one takes the model along, and one that is too old stays.
    let mut new = function("New", &["a"], &["b"], vec![NodeProto::new("Relu", &["a"], &["b"])]);
    new.opset_import[0].version = Some(18);
    old.opset_import[0].version = Some(5);
    let nodes = vec![call("New", &["x"], &["t"]), call("Old", &["t"], &["y"])];
    let mut m = model(nodes, vec![old, new]);
    let kept = inline_functions(&mut m);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].node.as_str(), kept[0].op.as_str()), ("y", "Old"));
    assert_eq!((m.opset(), m.proto().functions.len()), (18, 2));
    assert_eq!(text(&m)[0], "Relu x > t");
    // The model cannot follow.
    let mut new = function("New", &["a"], &["b"], vec![NodeProto::new("Relu", &["a"], &["b"])]);
    new.opset_import[0].version = Some(99);
    let mut m = model(vec![call("New", &["x"], &["y"])], vec![new]);
    let kept = inline_functions(&mut m);
    assert!(kept[0].why.contains("99"), "{}", kept[0].why);
    assert_eq!((m.opset(), m.proto().functions.len()), (17, 1));
}

#[test]
fn what_calls_itself_or_grows_without_end_stays() {
    let again = function("Again", &["a"], &["b"], vec![call("Again", &["a"], &["b"])]);
    let mut m = model(vec![call("Again", &["x"], &["y"])], vec![again]);
    assert!(inline_functions(&mut m)[0].why.contains("calls itself"));
    let doubled = |level: usize| {
        let inner = format!("f{}", level + 1);
        function(
            &format!("f{level}"),
            &["a"],
            &["b"],
            vec![call(&inner, &["a"], &["t"]), call(&inner, &["t"], &["b"])],
        )
    };
    for (levels, why) in [(20, "nodes"), (64, "deep")] {
        let mut functions: Vec<FunctionProto> = (0..levels).map(doubled).collect();
        functions.push(function(&format!("f{levels}"), &["a"], &["a"], Vec::new()));
        let mut m = model(vec![call("f0", &["x"], &["y"])], functions);
        let kept = inline_functions(&mut m);
        assert!(kept[0].why.contains(why), "{}", kept[0].why);
    }
}
