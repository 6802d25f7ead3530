use super::*;
use crate::proto::{AttributeProto, DataType, GraphProto, TensorProto, ValueInfoProto};

fn microsoft(op: &str, inputs: &[&str]) -> NodeProto {
    NodeProto { domain: Some(MICROSOFT.into()), ..NodeProto::new(op, inputs, &["y"]) }
}

/// A model whose constants every test takes what it needs from.
fn model(nodes: Vec<NodeProto>, opset: i64) -> Model {
    let constants = vec![
        TensorProto::from_f32("s", &[1], &[0.5]),
        TensorProto::from_f32("s2", &[2], &[0.5, 0.25]),
        TensorProto::from_u8("z", &[1], &[3]),
        TensorProto::from_u8("z0", &[], &[0]),
        TensorProto::from_i8("zw", &[], &[0]),
        TensorProto::from_i8("conv_w", &[2, 1, 1, 1], &[1, -2]),
        TensorProto::from_i8("w", &[2, 2], &[1, 2, 3, 4]),
        TensorProto::from_i32("b", &[2], &[4, 8]),
        TensorProto::from_i32("b3", &[3], &[4, 8, 1]),
    ];
    let graph = GraphProto {
        node: nodes,
        input: vec![
            ValueInfoProto::tensor("q", DataType::Uint8 as i32, &[None, Some(2)]),
            ValueInfoProto::tensor("x", DataType::Float as i32, &[None, Some(2)]),
        ],
        output: vec![ValueInfoProto::tensor("y", DataType::Uint8 as i32, &[None, None])],
        initializer: constants,
        ..GraphProto::default()
    };
    Model::from_graph(graph, opset)
}

fn ops(model: &Model) -> String {
    let ops: Vec<&str> = model.graph().node.iter().map(NodeProto::op_type).collect();
    let short = |op: &&str| match *op {
        "QuantizeLinear" => "Q".to_string(),
        "DequantizeLinear" => "DQ".to_string(),
        op => op.to_string(),
    };
    ops.iter().map(short).collect::<Vec<_>>().join(" ")
}

fn floats(model: &Model, name: &str) -> Vec<f32> {
    model.graph().find_initializer(name).unwrap().floats().unwrap()
}

#[test]
fn every_operator_gets_its_form() {
    let unary = ["q", "s", "z", "s", "z"];
    let binary = ["q", "s", "z", "w", "s2", "zw", "s", "z"];
    let with_bias = |w, result: &[&'static str]| {
        let mut inputs = vec!["q", "s", "z", w, "s2", "zw"];
        inputs.extend(result);
        inputs
    };
    let conv = NodeProto::new("QLinearConv", &with_bias("conv_w", &["s", "z", "b"]), &["y"]);
    let gemm = |result: &[&'static str]| microsoft("QGemm", &with_bias("w", result));
    let concat = ["s", "z", "q", "s", "z", "q", "s2", "zw", "q", "s", "z0"];
    let choice = ["c", "q", "s", "z", "q", "s", "z0", "s", "z"];
    let scaled = ["q", "w", "s", "s2", "z", "zw", "bias"];
    let dynamic = ["x", "w", "s2", "zw"];
    let cases = [
        (conv.clone(), "DQ DQ DQ Conv Q"),
        (NodeProto { domain: Some(MICROSOFT.into()), ..conv }, "DQ DQ DQ Conv Q"),
        (NodeProto::new("QLinearMatMul", &binary, &["y"]), "DQ DQ MatMul Q"),
        (gemm(&["b", "s", "z"]), "DQ DQ DQ Gemm Q"),
        (gemm(&["", "s", "z"]), "DQ DQ Gemm Q"),
        (gemm(&["b"]), "DQ DQ DQ Gemm"),
        (microsoft("QLinearAdd", &binary), "DQ DQ Add Q"),
        // Without the zero points that may be absent.
        (microsoft("QLinearAdd", &["q", "s", "", "q", "s", "", "s"]), "DQ Add Q"),
        (microsoft("QLinearMul", &binary), "DQ DQ Mul Q"),
        (microsoft("QLinearSigmoid", &unary), "DQ Sigmoid Q"),
        (microsoft("QLinearLeakyRelu", &unary), "DQ LeakyRelu Q"),
        (microsoft("QLinearSoftmax", &unary), "DQ Softmax Q"),
        (microsoft("QLinearAveragePool", &unary), "DQ AveragePool Q"),
        (microsoft("QLinearGlobalAveragePool", &unary), "DQ GlobalAveragePool Q"),
        (microsoft("QLinearConcat", &concat), "DQ DQ DQ Concat Q"),
        (microsoft("QLinearWhere", &choice), "DQ DQ Where Q"),
        (microsoft("QuantizeLinear", &["x", "s", "z"]), "Q"),
        (microsoft("DequantizeLinear", &["q", "s", "z"]), "DQ"),
        (microsoft("MatMulIntegerToFloat", &scaled), "MatMulInteger Cast Mul Mul Add"),
        (microsoft("MatMulIntegerToFloat", &scaled[..4]), "MatMulInteger Cast Mul Mul"),
        (
            microsoft("DynamicQuantizeMatMul", &dynamic),
            "DynamicQuantizeLinear MatMulInteger Cast Mul Mul",
        ),
    ];
    for (node, expected) in cases {
        let op = node.op_type().to_string();
        let mut m = model(vec![node], 13);
        let report = to_qdq(&mut m);
        assert_eq!((report.nodes, report.kept), (1, vec![]), "{op}");
        assert_eq!(ops(&m), expected, "{op}");
        let last = m.graph().node.last().unwrap();
        assert_eq!(last.output, ["y"], "{op}");
        assert!(m.graph().node.iter().all(NodeProto::is_onnx), "{op}");
        for node in m.graph().node.iter().filter(|n| n.is("QuantizeLinear")) {
            assert_eq!(node.input.len(), 3, "{op}: the zero point says the type");
        }
        assert_eq!(to_qdq(&mut m), Rewritten::default(), "{op}: nothing is left to do");
    }
}

#[test]
fn axes_and_scales_are_those_of_the_float_operator() {
    let inputs = ["q", "s", "z", "w", "s2", "zw", "b", "s", "z"];
    let gemm = |transposed| {
        microsoft("QGemm", &inputs)
            .with(AttributeProto::of_int("transB", transposed))
            .with(AttributeProto::of_float("alpha", 2.0))
    };
    let conv = ["q", "s", "z", "conv_w", "s2", "zw", "s", "z", "b"];
    let product = ["q", "s", "z", "w", "s2", "zw", "s", "z"];
    for (node, axis, bias) in [
        (gemm(0), 1, Some(0.5)),
        (gemm(1), 0, Some(0.5)),
        (NodeProto::new("QLinearConv", &conv, &["y"]), 0, Some(0.25)),
        (NodeProto::new("QLinearMatMul", &product, &["y"]), -1, None),
    ] {
        let mut m = model(vec![node], 13);
        to_qdq(&mut m);
        let nodes = &m.graph().node;
        assert!(nodes[0].attr("axis").is_none());
        assert!(m.graph().find_initializer(&nodes[0].input[1]).unwrap().dims.is_empty());
        assert_eq!(nodes[1].int("axis", 9), axis);
        assert_eq!(floats(&m, &nodes[1].input[1]), [0.5, 0.25]);
        // A scalar zero point beside two scales.
        let zero_point = m.graph().find_initializer(&nodes[1].input[2]).unwrap();
        assert_eq!(zero_point.ints().unwrap(), [0, 0]);
        if let Some(scale) = bias {
            assert_eq!(nodes[2].input.len(), 2);
            assert_eq!(nodes[2].int("axis", 9), 0);
            assert_eq!(floats(&m, &nodes[2].input[1]), [scale, scale / 2.0]);
        }
    }
}

#[test]
fn what_moves_or_chooses_keeps_its_scale() {
    let node = |op: &str, input: &str, output: &str| NodeProto::new(op, &[input], &[output]);
    let mut m = model(
        vec![
            NodeProto::new("QuantizeLinear", &["x", "s"], &["a"]),
            node("Identity", "a", "i"),
            node("MaxPool", "i", "m"),
            node("ArgMax", "m", "y"),
        ],
        13,
    );
    assert_eq!(to_qdq(&mut m).nodes, 3);
    assert_eq!(ops(&m), "Q Identity DQ MaxPool Q DQ ArgMax");
    let nodes = &m.graph().node;
    assert_eq!(nodes[0].input[1..], nodes[2].input[1..]);
    assert_eq!(nodes[0].input[1..], nodes[4].input[1..]);
    assert_eq!(nodes[4].output, ["m"]);
}

#[test]
fn weights_become_integers() {
    let floats = TensorProto::from_f32("fw", &[2, 2], &[0.75, -100.0, 0.375, 1.0]);
    for (axis, expected) in [(0, [2, -128, 2, 4]), (1, [2, -128, 1, 4])] {
        let quantize = NodeProto::new("QuantizeLinear", &["fw", "s2", "zw"], &["wq"])
            .with(AttributeProto::of_int("axis", axis));
        let mut m = model(vec![quantize, NodeProto::new("Identity", &["wq"], &["y"])], 13);
        m.graph_mut().initializer.push(floats.clone());
        assert_eq!(to_qdq(&mut m).nodes, 1);
        assert_eq!(ops(&m), "Identity");
        assert_eq!(m.graph().find_initializer("wq").unwrap().ints().unwrap(), expected);
    }
}

#[test]
fn what_cannot_be_expressed_stays_and_is_named() {
    let unary = ["q", "s", "z", "s", "z"];
    let softmax = microsoft("QLinearSoftmax", &["p", "s", "z", "s", "z"])
        .with(AttributeProto::of_int("axis", 1))
        .with(AttributeProto::of_int("opset", 11));
    let last = AttributeProto::of_int("channels_last", 1);
    let cases = [
        (microsoft("QLinearAveragePool", &unary).with(last), "channels come last"),
        (softmax, "several axes"),
        (microsoft("QLinearAdd", &["q", "s", "z", "q"]), "input 4 is missing"),
        (microsoft("QLinearAdd", &["q", "s2", "b3", "q", "s", "z", "s", "z"]), "2 elements"),
        (
            microsoft("QGemm", &["q", "s", "z", "w", "s2", "zw", "b3", "s", "z"]),
            "3 columns and its weight 2",
        ),
    ];
    for (node, why) in cases {
        let mut m = model(vec![node.clone()], 17);
        let report = to_qdq(&mut m);
        assert_eq!((report.nodes, report.kept.len()), (0, 1), "{why}");
        assert!(report.kept[0].why.contains(why), "{:?}", report.kept);
        assert_eq!(m.graph().node, [node]);
    }
    let mut m = model(vec![microsoft("QAttention", &["q"])], 17);
    assert_eq!(to_qdq(&mut m), Rewritten::default(), "named by the executor");
}

#[test]
fn older_models_are_upgraded_if_they_can_be() {
    let inputs = ["q", "s", "z", "conv_w", "s2", "zw", "s", "z"];
    let conv = |output| NodeProto::new("QLinearConv", &inputs, &[output]);
    let mut m = model(vec![conv("y")], 10);
    assert_eq!((to_qdq(&mut m).nodes, m.opset()), (1, 13));
    // An operator without an equal in opset 13; what has one scale a tensor needs no upgrade.
    let scatter = NodeProto::new("BatchNormalization", &["x", "a", "b", "c", "d"], &["n"])
        .with(AttributeProto::of_int("spatial", 0));
    let pool = microsoft("QLinearGlobalAveragePool", &["v", "s", "z", "s", "z"]);
    let mut m = model(vec![scatter, conv("v"), pool], 8);
    let report = to_qdq(&mut m);
    assert_eq!((report.nodes, m.opset()), (1, 8));
    assert!(report.kept[0].why.contains("opset 13"), "{:?}", report.kept);
    // 16-bit integers came to the default domain with opset 21.
    let wide = TensorProto::from_raw("z16", &[], DataType::Uint16, vec![0; 2]);
    for (opset, rewritten) in [(17, 0), (21, 1)] {
        let mut m = model(vec![microsoft("QuantizeLinear", &["x", "s", "z16"])], opset);
        m.graph_mut().initializer.push(wide.clone());
        assert_eq!(to_qdq(&mut m).nodes, rewritten);
    }
}

#[test]
fn packed_weights_are_unpacked_for_every_width_and_kind_of_zero_point() {
    let nbits = |bits: i64, inputs: &[&str]| {
        let sizes = [("K", 3), ("N", 2), ("block_size", 16), ("bits", bits)];
        sizes.into_iter().fold(microsoft("MatMulNBits", inputs), |node, (name, value)| {
            node.with(AttributeProto::of_int(name, value))
        })
    };
    let unpacked = |bits: usize, rows: [&[u8]; 2], zero_points: Option<TensorProto>| {
        let inputs = ["x", "packed", "s2", "nz"];
        let given = if zero_points.is_some() { 4 } else { 3 };
        let mut m = model(vec![nbits(bits as i64, &inputs[..given])], 17);
        let mut bytes = Vec::new();
        for row in rows {
            bytes.extend(row);
            bytes.resize(bytes.len().next_multiple_of(16 * bits / 8), 0);
        }
        let shape = [2, 1, 16 * bits / 8];
        m.graph_mut().initializer.push(TensorProto::from_u8("packed", &shape, &bytes));
        m.graph_mut().initializer.extend(zero_points);
        let report = unpack_nbits(&mut m);
        assert_eq!(report.nodes, 1, "{:?}", report.kept);
        assert_eq!(ops(&m), "MatMul");
        floats(&m, &m.graph().node[0].input[1])
    };
    // Scales 0.5 and 0.25 a row; the result is transposed.
    assert_eq!(
        unpacked(4, [&[0x98, 0x07], &[0x80, 0x0f]], None),
        [0.0, -2.0, 0.5, 0.0, -0.5, 1.75]
    );
    assert_eq!(unpacked(8, [&[128, 130, 126], &[0, 128, 132]], None)[1..4], [-32.0, 1.0, 0.0]);
    assert_eq!(unpacked(2, [&[0b11_10_01], &[0]], None)[..3], [-0.5, -0.5, 0.0]);
    let packed = TensorProto::from_u8("nz", &[2, 1], &[0x03, 0x01]);
    assert_eq!(unpacked(4, [&[0x03], &[0x01]], Some(packed))[..2], [0.0, 0.0]);
    let float = TensorProto::from_f32("nz", &[2], &[2.5, 0.0]);
    assert_eq!(unpacked(4, [&[0x03], &[0x01]], Some(float))[..2], [0.25, 0.25]);

    for node in [nbits(3, &["x", "w", "s2"]), nbits(4, &["x", "w", "s2", "", "g"])] {
        assert_eq!(unpack_nbits(&mut model(vec![node], 17)).kept.len(), 1);
    }
    let damaged = nbits(4, &["x", "z", "s2"]);
    assert!(unpack_nbits(&mut model(vec![damaged], 17)).kept[0].why.contains("do not fit"));
}

#[test]
fn a_dynamic_lstm_gets_the_floats_of_its_weights() {
    // One direction, two inputs, four gates.
    let codes = TensorProto::from_u8("lw", &[1, 2, 4], &[4, 5, 6, 7, 8, 9, 10, 11]);
    let names = ["x", "lw", "lw", "", "", "", "", "", "ls", "lz", "ls", "lz"];
    let lstm = |names: &[&str]| microsoft("DynamicQuantizeLSTM", names);
    let scale = TensorProto::from_f32("ls", &[1], &[0.5]);
    let scales = TensorProto::from_f32("ls", &[1, 4], &[0.5, 1.0, 2.0, 4.0]);
    let zero = TensorProto::from_u8("lz", &[1], &[4]);
    let zeros = TensorProto::from_u8("lz", &[1, 4], &[4; 4]);
    let wanted =
        [[0.0, 2.0, 0.5, 2.5, 1.0, 3.0, 1.5, 3.5], [0.0, 2.0, 1.0, 5.0, 4.0, 12.0, 12.0, 28.0]];
    for (params, wanted) in [[scale, zero], [scales, zeros]].into_iter().zip(wanted) {
        let mut m = model(vec![lstm(&names)], 17);
        m.graph_mut().initializer.push(codes.clone());
        m.graph_mut().initializer.extend(params);
        let report = unpack_lstm(&mut m);
        assert_eq!((report.nodes, report.kept), (1, vec![]));
        let node = &m.graph().node[0];
        assert!(node.is("LSTM") && node.input.len() == 3, "{node:?}");
        assert_eq!(floats(&m, &node.input[1]), wanted);
        assert_eq!(m.graph().find_initializer(&node.input[1]).unwrap().dims, [1, 4, 2]);
    }
    let mut m = model(vec![lstm(&names)], 17);
    assert!(unpack_lstm(&mut m).kept[0].why.contains("'lw' is not constant"));
}
