//! Plans and quantized graphs of real models, kept as text: a change shows as a difference.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use fewbits::apply::apply;
use fewbits::plan::{
    ActivationUse, GranularityKind, Plan, SchemeKind, Target, WeightOptions, plan_weights,
};
use fewbits::prepare::prepare;
use fewbits::progress::Silent;
use fewbits::{Bits, Model};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn planned(name: &str, options: WeightOptions) -> (Model, Plan) {
    let mut model = Model::open(&fixture(name)).unwrap();
    prepare(&mut model).unwrap();
    let plan =
        plan_weights(&model, &options, ActivationUse::Float, Target::default(), &Silent).unwrap();
    (model, plan)
}

fn options(bits: u8, scheme: SchemeKind, granularity: GranularityKind) -> WeightOptions {
    WeightOptions::new(scheme, Bits::new(bits), Some(granularity)).unwrap()
}

/// The nodes and constants of a graph, one a line.
fn graph_text(model: &Model) -> String {
    let mut text = String::new();
    for node in &model.graph().node {
        let _ = writeln!(
            text,
            "{} = {}({})",
            node.output.join(", "),
            node.op_type(),
            node.input.join(", ")
        );
    }
    for tensor in &model.graph().initializer {
        let data_type = tensor.element_type().unwrap();
        let _ = writeln!(text, "{}: {data_type:?} {:?}", tensor.name(), tensor.dims);
    }
    text
}

#[test]
fn a_plan_of_a_convolutional_net() {
    let (_, plan) =
        planned("digits_cnn/model.onnx", options(8, SchemeKind::Affine, GranularityKind::Channel));
    insta::assert_snapshot!(plan.to_json());
}

#[test]
fn a_plan_of_a_language_model() {
    let groups = "group=32".parse().unwrap();
    let (_, plan) = planned("tiny_lm/model.onnx", options(4, SchemeKind::Symmetric, groups));
    let decisions: String = plan
        .tensors
        .iter()
        .map(|t| format!("{} {:?} {:?}: {:?}\n", t.tensor, t.shape, t.read_by, t.becomes))
        .collect();
    insta::assert_snapshot!(decisions);
}

#[test]
fn the_graph_of_the_notebooks_model() {
    let (model, plan) =
        planned("notebook/model.onnx", options(8, SchemeKind::Symmetric, GranularityKind::Channel));
    insta::assert_snapshot!(graph_text(&apply(model, &plan, None, &Silent).unwrap()));
}

#[test]
fn the_graph_of_a_packed_mlp() {
    let (model, plan) =
        planned("digits/mlp.onnx", options(3, SchemeKind::Symmetric, GranularityKind::Channel));
    insta::assert_snapshot!(graph_text(&apply(model, &plan, None, &Silent).unwrap()));
}

#[test]
fn a_plan_reads_back_and_applies_to_the_same_bytes() {
    let (model, plan) =
        planned("digits/mlp.onnx", options(4, SchemeKind::Affine, GranularityKind::Tensor));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    std::fs::write(&path, plan.to_json()).unwrap();
    let read = Plan::read(&path).unwrap();
    assert_eq!(read, plan);
    assert_eq!(read.digest(), plan.digest());
    let bytes = |plan: &Plan| apply(model.clone(), plan, None, &Silent).unwrap().to_bytes();
    assert_eq!(bytes(&plan), bytes(&read));
}

#[test]
fn a_plan_for_another_model_is_refused() {
    let (_, plan) =
        planned("digits/mlp.onnx", options(8, SchemeKind::Symmetric, GranularityKind::Channel));
    let (other, _) =
        planned("tiny_lm/model.onnx", options(8, SchemeKind::Symmetric, GranularityKind::Channel));
    let error = apply(other, &plan, None, &Silent).err().unwrap().to_string();
    assert!(error.contains("the plan does not fit the model"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    for bad in ["", "{}", "[1]", r#"{"fewbits_plan":99,"tensors":[]}"#] {
        std::fs::write(&path, bad).unwrap();
        assert!(Plan::read(&path).is_err(), "{bad}");
    }
    let illegal = plan.to_json().replace("\"bits\": 8", "\"bits\": 9");
    std::fs::write(&path, illegal).unwrap();
    assert!(Plan::read(&path).unwrap_err().to_string().contains("1 to 8"));
}
