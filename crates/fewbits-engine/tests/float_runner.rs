//! The float runner on real models.

use std::path::Path;

use fewbits_engine::{FloatRunner, Reach, RunOptions, Runner, RuntimeError, Tensor, Values};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

fn fixture(name: &str) -> Model {
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name))
        .unwrap()
}

fn input(rows: usize, columns: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * columns).map(|i| (i % 17) as f32).collect();
    Tensor::new(vec![rows, columns], values).unwrap()
}

#[test]
fn any_value_inside_can_be_fetched_batch_by_batch() {
    let model = fixture("digits/mlp.onnx");
    let options = RunOptions { intermediates: vec!["mul_result1".into()], ..RunOptions::default() };
    let runner = FloatRunner::new(&model, &options).unwrap();
    let names: Vec<&str> = runner.outputs().iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["label", "probabilities", "mul_result1"]);
    let whole = runner.run(&[("X".into(), input(3, 64))]).unwrap();
    assert_eq!(whole[0].1.shape(), [3]);
    assert_eq!(whole[2].1.shape(), [3, 64]);
    let row = runner.run(&[("X".into(), input(3, 64).slice_rows(0..1))]).unwrap();
    assert_eq!(row[2].1.shape(), [1, 64]);
    let missing = RunOptions { intermediates: vec!["nothing".into()], ..RunOptions::default() };
    assert!(matches!(FloatRunner::new(&model, &missing), Err(RuntimeError::Input { .. })));
}

#[test]
fn only_what_is_asked_for_is_computed() {
    let values = ["mul_result1".to_string()];
    let reach = Reach::of(&fixture("digits/mlp.onnx"), &values, &RunOptions::default());
    let reach = reach.unwrap();
    assert_eq!((reach.lacking, reach.out_of_reach), (vec![], vec![]));
    let outputs = reach.runner.run(&[("X".into(), input(3, 64))]).unwrap();
    let [(name, tensor)] = outputs.as_slice() else { panic!("one value was asked for") };
    assert_eq!((name.as_str(), tensor.shape()), ("mul_result1", &[3, 64][..]));
}

#[test]
fn models_that_run_lack_nothing() {
    for name in [
        "notebook/model.onnx",
        "digits/logreg.onnx",
        "digits_cnn/model_bn.onnx",
        "tiny_lm/model.onnx",
        "wine/linearsvc.onnx",
    ] {
        let model = fixture(name);
        FloatRunner::new(&model, &RunOptions::default()).unwrap();
        let reach = Reach::of(&model, &[], &RunOptions::default()).unwrap();
        assert_eq!(reach.lacking, [], "{name}");
    }
}

#[test]
fn inputs_are_checked_by_name_type_and_shape() {
    let runner = FloatRunner::new(&fixture("notebook/model.onnx"), &RunOptions::default()).unwrap();
    let refused = |inputs: &[(String, Tensor)]| runner.run(inputs).unwrap_err().to_string();
    assert!(refused(&[]).contains("input 'X': no data given"));
    assert!(refused(&[("Y".into(), input(1, 20))]).contains("no such input; it has X"));
    assert!(refused(&[("X".into(), input(1, 19))]).contains("[?, 20] needed"));
    let ints = Tensor::new(vec![1, 20], vec![0i64; 20]).unwrap();
    assert!(refused(&[("X".into(), ints)]).contains("Float needed"));
}

#[test]
fn trees_are_named_when_the_model_is_loaded() {
    let mut node = NodeProto::new("TreeEnsembleRegressor", &["x"], &["y"]);
    node.domain = Some("ai.onnx.ml".into());
    let graph = GraphProto {
        node: vec![node],
        input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
        output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(1)])],
        ..GraphProto::default()
    };
    let error =
        FloatRunner::new(&Model::from_graph(graph, 17), &RunOptions::default()).err().unwrap();
    assert!(error.to_string().contains("TreeEnsembleRegressor"), "{error}");
}

#[test]
fn text_labels_are_looked_up() {
    let graph = GraphProto {
        node: vec![
            NodeProto::new("ArgMax", &["x"], &["best"])
                .with(AttributeProto::of_int("axis", 1))
                .with(AttributeProto::of_int("keepdims", 0)),
            NodeProto::new("Gather", &["names", "best"], &["label"]),
        ],
        input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(3)])],
        output: vec![ValueInfoProto::tensor("label", 8, &[None])],
        initializer: vec![TensorProto::from_strings("names", &[3], &["ant", "bee", "cat"])],
        ..GraphProto::default()
    };
    let runner = FloatRunner::new(&Model::from_graph(graph, 17), &RunOptions::default()).unwrap();
    let x = Tensor::new(vec![2, 3], vec![0.0f32, 2.0, 1.0, 0.0, 0.0, 5.0]).unwrap();
    let outputs = runner.run(&[("x".into(), x)]).unwrap();
    assert_eq!(outputs[0].1.values(), &Values::Str(vec!["bee".into(), "cat".into()]));
}

/// A model of one node that reads `x` and `constants`, and gives `y`.
fn of_node(node: NodeProto, x: i32, y: i32, constants: Vec<TensorProto>) -> FloatRunner {
    let graph = GraphProto {
        node: vec![node],
        input: vec![ValueInfoProto::tensor("x", x, &[None])],
        output: vec![ValueInfoProto::tensor("y", y, &[None])],
        initializer: constants,
        ..GraphProto::default()
    };
    FloatRunner::new(&Model::from_graph(graph, 17), &RunOptions::default()).unwrap()
}

const FLOAT: i32 = 1;
const UINT8: i32 = 2;

#[test]
fn quantization_divides_by_its_scale() {
    // Near a tie the product with the inverse of a scale may lie on the other side.
    let mut differing = Vec::new();
    for step in 1..2000u16 {
        let scale = f32::from(step) * 1e-3;
        let x: Vec<f32> = (0..100u16).map(|k| (f32::from(k) + 0.5) * scale).collect();
        let quotients: Vec<f32> = x.iter().map(|x| (x / scale).round_ties_even()).collect();
        let inverse = 1.0 / scale;
        if x.iter().zip(&quotients).any(|(x, q)| (x * inverse).round_ties_even() != *q) {
            differing.push((scale, x, quotients));
        }
    }
    assert!(differing.len() > 10, "the test tests nothing");
    for (scale, x, quotients) in differing.into_iter().take(10) {
        let node = NodeProto::new("QuantizeLinear", &["x", "s", "z"], &["y"]);
        let constants =
            vec![TensorProto::from_f32("s", &[], &[scale]), TensorProto::from_u8("z", &[], &[0])];
        let runner = of_node(node, FLOAT, UINT8, constants);
        let x = Tensor::new(vec![x.len()], x).unwrap();
        let [(_, y)] = <[_; 1]>::try_from(runner.run(&[("x".into(), x)]).unwrap()).unwrap();
        let bytes: Vec<u8> = quotients.iter().map(|&q| q as u8).collect();
        assert_eq!(y.values(), &Values::U8(bytes));
    }
}

#[test]
fn bytes_wrap_in_sums() {
    let node = NodeProto::new("Add", &["x", "b"], &["y"]);
    let runner = of_node(node, UINT8, UINT8, vec![TensorProto::from_u8("b", &[], &[200])]);
    let x = Tensor::new(vec![2], vec![100u8, 3]).unwrap();
    let y = runner.run(&[("x".into(), x)]).unwrap().remove(0).1;
    assert_eq!(y.values(), &Values::U8(vec![44, 203]));
}

#[test]
fn doubles_beyond_32_bits_are_refused() {
    let node = NodeProto::new("Neg", &["x"], &["y"]);
    let runner = of_node(node, 11, 11, Vec::new());
    let x = Tensor::new(vec![1], vec![1e300]).unwrap();
    let error = runner.run(&[("x".into(), x)]).unwrap_err().to_string();
    assert!(error.contains("beyond the range of 32 bits"), "{error}");
}
