//! Inputs in 64 bits.

use fewbits_engine::{Engine, FloatRunner, RunOptions, Runner, Tensor, Values};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{
    AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto,
};

/// `Relu(Cast((x − mean) / scale))` of two columns.
fn graph() -> GraphProto {
    let double = DataType::Double as i32;
    GraphProto {
        node: vec![
            NodeProto::new("Sub", &["x", "mean"], &["less"]),
            NodeProto::new("Div", &["less", "scale"], &["scaled"]),
            NodeProto::new("Cast", &["scaled"], &["narrow"])
                .with(AttributeProto::of_int("to", DataType::Float as i64)),
            NodeProto::new("Relu", &["narrow"], &["y"]),
        ],
        input: vec![ValueInfoProto::tensor("x", double, &[None, Some(2)])],
        output: vec![ValueInfoProto::tensor("y", DataType::Float as i32, &[None, Some(2)])],
        initializer: vec![
            TensorProto::from_f64("mean", &[2], &[1.7e9, 0.0]),
            TensorProto::from_f64("scale", &[1, 2], &[0.5, 2.0]),
        ],
        ..GraphProto::default()
    }
}

#[test]
fn digits_beyond_32_bits_count() {
    let model = Model::from_graph(graph(), 17);
    let x = Tensor::new(vec![2, 2], vec![1.7e9 + 0.25, 3.0, 1.7e9 - 1.0, 0.1]).unwrap();
    let options = RunOptions::default();
    let runners: [Box<dyn Runner>; 2] = [
        Box::new(Engine::new(&model, &options).unwrap()),
        Box::new(FloatRunner::new(&model, &options).unwrap()),
    ];
    for runner in runners {
        assert_eq!(runner.inputs()[0].data_type, Some(DataType::Double));
        let y = runner.run(&[("x".to_string(), x.clone())]).unwrap().remove(0).1;
        assert_eq!(y.values(), &Values::F32(vec![0.5, 1.5, 0.0, 0.05]));
        let surplus = runner.run(&[("narrow".to_string(), x.clone())]);
        assert!(surplus.is_err(), "the name of a value inside is no input's");
        let float = x.clone().cast(DataType::Float).unwrap();
        assert!(runner.run(&[("x".to_string(), float)]).is_err());
    }
}
