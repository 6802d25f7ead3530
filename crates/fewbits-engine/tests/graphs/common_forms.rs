//! Forms that exporters and quantizers write, which a review found refused, wrong, or left to rten.

use fewbits_engine::{Backend, Engine, RunOptions, Tensor, Values};
use fewbits_ir::example::{FLOAT, INT8, Net, Scale, Weights, floats};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{
    AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto,
};

use crate::net::{Named, assert_runs};
use crate::oracle::assert_exact;

const X: Scale = Scale::i8(0.02, 3);
const Y: Scale = Scale::u8(0.01, 100);

/// What the steps of a model are, and whether all of them are ours.
fn steps(model: &Model) -> (Vec<String>, bool) {
    let engine = Engine::new(model, &RunOptions::default()).unwrap();
    let fusions = engine.fusions();
    let are_ours = fusions.iter().all(|fusion| fusion.backend != Backend::Rten);
    (fusions.into_iter().map(|fusion| fusion.what).collect(), are_ours)
}

fn x(shape: &[usize]) -> Named {
    vec![("x".to_string(), floats(shape, 7))]
}

/// A model of opset `opset` of the input `input`, with int8 weights `w` of 4 x 4, scales `s` and `ws`, and the
/// output `y`.
fn model(
    opset: i64,
    input: ValueInfoProto,
    nodes: Vec<NodeProto>,
    more: Vec<TensorProto>,
) -> Model {
    let weights: Vec<i8> = (0..16).map(|i| (i * 37 % 255 - 127) as i8).collect();
    let mut initializer = vec![
        TensorProto::from_f32("s", &[], &[0.02]),
        TensorProto::from_f32("ws", &[], &[0.01]),
        TensorProto::from_u8("z", &[], &[128]),
        TensorProto::from_i8("w", &[4, 4], &weights),
    ];
    initializer.extend(more);
    let graph = GraphProto {
        node: nodes,
        input: vec![input],
        output: vec![ValueInfoProto::tensor("y", FLOAT, &[None, None])],
        initializer,
        ..GraphProto::default()
    };
    Model::from_graph(graph, opset)
}

fn rows_of_four() -> ValueInfoProto {
    ValueInfoProto::tensor("x", FLOAT, &[None, Some(4)])
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto::new(op, inputs, &[output])
}

#[test]
fn symmetric_int8_by_its_type_alone() {
    let int8 = AttributeProto::of_int("output_dtype", DataType::Int8 as i64);
    let nodes = vec![
        node("QuantizeLinear", &["x", "s"], "q").with(int8),
        node("DequantizeLinear", &["q", "s"], "d"),
        node("DequantizeLinear", &["w", "ws"], "wd"),
        node("MatMul", &["d", "wd"], "y"),
    ];
    let model = model(21, rows_of_four(), nodes, vec![]);
    assert_exact(&model, &x(&[3, 4]));
    assert!(steps(&model).1, "{:?}", steps(&model));
}

#[test]
fn one_hot_has_the_type_of_its_values() {
    let nodes = vec![
        node("OneHot", &["x", "depth", "vals"], "oh").with(AttributeProto::of_int("axis", -1)),
        node("Reshape", &["oh", "shape"], "r"),
        node("QuantizeLinear", &["r", "s", "z"], "q"),
        node("DequantizeLinear", &["q", "s", "z"], "d"),
        node("DequantizeLinear", &["w", "ws"], "wd"),
        node("MatMul", &["d", "wd"], "y"),
    ];
    let ids = ValueInfoProto::tensor("x", DataType::Int64 as i32, &[None, Some(2)]);
    let more = vec![
        TensorProto::from_i64("depth", &[], &[4]),
        TensorProto::from_f32("vals", &[2], &[0.0, 1.0]),
        TensorProto::from_i64("shape", &[2], &[-1, 4]),
    ];
    let model = model(17, ids, nodes, more);
    let ids = Tensor::new(vec![3, 2], vec![0_i64, 1, 3, 2, 1, 1]).unwrap();
    let outputs = assert_exact(&model, &vec![("x".to_string(), ids)]);
    assert_eq!(outputs[0].1.shape(), [6, 4]);
}

#[test]
fn a_softmax_behind_any_function_is_along_the_last_axis() {
    for function in ["Reciprocal", "Exp"] {
        let nodes = vec![
            node("QuantizeLinear", &["x", "s", "z"], "q"),
            node("DequantizeLinear", &["q", "s", "z"], "d"),
            node("DequantizeLinear", &["w", "ws"], "wd"),
            node("MatMul", &["d", "wd"], "m"),
            node(function, &["m"], "e"),
            node("Softmax", &["e"], "y").with(AttributeProto::of_int("axis", 1)),
        ];
        let model = model(17, rows_of_four(), nodes, vec![]);
        assert!(steps(&model).1, "{function}: {:?}", steps(&model));
        if function == "Exp" {
            assert_exact(&model, &x(&[3, 4]));
        }
    }
}

#[test]
fn images_of_known_size_are_padded_to_the_same_size() {
    for padding in ["SAME_UPPER", "SAME_LOWER"] {
        let mut net = Net::new();
        net.input("x", FLOAT, &[None, Some(3), Some(8), Some(8)]);
        let d = net.rounded("x", X);
        let values: Vec<i64> = (0..5 * 3 * 9).map(|i| i * 37 % 255 - 127).collect();
        let weights = Weights {
            dims: vec![5, 3, 3, 3],
            data_type: INT8,
            values,
            scales: vec![0.01],
            zero_points: vec![0],
            axis: 0,
        };
        let w = net.weights(&weights);
        let pad = AttributeProto::of_string("auto_pad", padding);
        let stride = AttributeProto::of_ints("strides", &[2, 2]);
        let c = net.node("Conv", &[&d, &w], &[pad, stride]);
        let y = net.rounded(&c, Scale { scale: 0.2, ..Y });
        net.output(&y, FLOAT);
        assert_runs(&net, &x(&[2, 3, 8, 8]));
        let (steps, are_ours) = steps(&net.model());
        assert!(are_ours && steps.contains(&"Conv".to_string()), "{padding}: {steps:?}");
    }
}

#[test]
fn a_chain_of_functions_is_one_table() {
    type Write = fn(&mut Net, &str) -> String;
    let chains: [(&str, Write); 5] = [
        ("Tanh + Sigmoid", |net, d| {
            let tanh = net.node("Tanh", &[d], &[]);
            net.node("Sigmoid", &[&tanh], &[])
        }),
        ("Add + Relu + Mul + Div", |net, d| {
            let (three, six) = (net.floats(&[], &[3.0]), net.floats(&[1], &[6.0]));
            let sum = net.node("Add", &[d, &three], &[]);
            let relu = net.node("Relu", &[&sum], &[]);
            let product = net.node("Mul", &[d, &relu], &[]);
            net.node("Div", &[&product, &six], &[])
        }),
        ("Neg + Exp + Add + Reciprocal", |net, d| {
            let one = net.floats(&[], &[1.0]);
            let exp = net.node("Neg", &[d], &[]);
            let exp = net.node("Exp", &[&exp], &[]);
            let sum = net.node("Add", &[&one, &exp], &[]);
            net.node("Reciprocal", &[&sum], &[])
        }),
        ("Mul", |net, d| net.node("Mul", &[d, d], &[])),
        ("Abs + Sub", |net, d| {
            let abs = net.node("Abs", &[d], &[]);
            net.node("Sub", &[d, &abs], &[])
        }),
    ];
    for (words, write) in chains {
        let mut net = Net::new();
        net.input("x", FLOAT, &[None, Some(70)]);
        let d = net.rounded("x", X);
        let value = write(&mut net, &d);
        let y = net.rounded(&value, Y);
        net.output(&y, FLOAT);
        let mut steps = steps(&net.model()).0;
        steps.retain(|step| step.contains("table"));
        assert_eq!(steps, [format!("{words} by a table")]);
        assert_runs(&net, &x(&[9, 70]));
    }
}

#[test]
fn constants_of_more_axes_are_no_part_of_a_table() {
    let mut net = Net::new();
    net.input("x", FLOAT, &[None, Some(7)]);
    let d = net.rounded("x", X);
    let c = net.floats(&[1, 1, 1], &[0.5]);
    let sum = net.node("Add", &[&d, &c], &[]);
    let y = net.rounded(&sum, Y);
    net.output(&y, FLOAT);
    let outputs = assert_runs(&net, &x(&[3, 7]));
    assert_eq!(outputs[0].1.shape(), [1, 3, 7]);
}

#[test]
fn a_mean_over_images_is_one_of_integers() {
    for (axes, keep) in [(&[2, 3][..], 1), (&[-1, -2], 0)] {
        let mut net = Net::new();
        net.input("x", FLOAT, &[None, Some(6), Some(5), Some(3)]);
        let d = net.rounded("x", X);
        let attributes =
            [AttributeProto::of_ints("axes", axes), AttributeProto::of_int("keepdims", keep)];
        let mean = net.node("ReduceMean", &[&d], &attributes);
        let y = net.rounded(&mean, Y);
        net.output(&y, FLOAT);
        let outputs = assert_runs(&net, &x(&[2, 6, 5, 3]));
        let wanted: &[usize] = if keep == 1 { &[2, 6, 1, 1] } else { &[2, 6] };
        assert_eq!(outputs[0].1.shape(), wanted);
        let engine = Engine::new(&net.model(), &RunOptions::default()).unwrap();
        let mean = engine.fusions().into_iter().find(|f| f.what == "ReduceMean").unwrap();
        assert_eq!(mean.backend, Backend::Integers);
    }
}

#[test]
fn a_layer_norm_that_is_spelled_out_is_one_step() {
    let mut net = Net::new();
    net.input("x", FLOAT, &[None, Some(5), Some(8)]);
    let d = net.rounded("x", X);
    let axes = [AttributeProto::of_ints("axes", &[-1])];
    let (two, epsilon) = (net.floats(&[], &[2.0]), net.floats(&[], &[1e-5]));
    let gain: Vec<f32> = (0..8).map(|i| 0.5 + i as f32 / 8.0).collect();
    let (gain, bias) = (net.floats(&[8], &gain), net.floats(&[8], &[0.25; 8]));
    let mean = net.node("ReduceMean", &[&d], &axes);
    let centred = net.node("Sub", &[&d, &mean], &[]);
    let square = net.node("Pow", &[&centred, &two], &[]);
    let variance = net.node("ReduceMean", &[&square], &axes);
    let variance = net.node("Add", &[&variance, &epsilon], &[]);
    let deviation = net.node("Sqrt", &[&variance], &[]);
    let normal = net.node("Div", &[&centred, &deviation], &[]);
    let scaled = net.node("Mul", &[&normal, &gain], &[]);
    let y = net.node("Add", &[&scaled, &bias], &[]);
    net.output(&y, FLOAT);
    assert_runs(&net, &x(&[2, 5, 8]));
    let (steps, are_ours) = steps(&net.model());
    assert!(are_ours && steps.contains(&"LayerNormalization".to_string()), "{steps:?}");
}

#[test]
fn a_step_that_the_interpreter_computes_gives_what_it_says() {
    // A step without a kernel: the sums of 64-bit integers.
    let mut net = Net::new();
    net.input("x", DataType::Int64 as i32, &[None, Some(3)]);
    let y = net.node("Add", &["x", "x"], &[]);
    net.output(&y, DataType::Int64 as i32);
    let ids = Tensor::new(vec![2, 3], vec![1_i64 << 40, -7, 0, 5, i64::MAX, 2]).unwrap();
    let engine = Engine::new(&net.model(), &RunOptions::default()).unwrap();
    let outputs = fewbits_engine::Runner::run(&engine, &[("x".to_string(), ids)]).unwrap();
    let wanted = vec![1_i64 << 41, -14, 0, 10, -2, 4];
    assert_eq!(outputs[0].1.values(), &Values::I64(wanted));
}
