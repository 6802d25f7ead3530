//! The engine against the plain interpreter, and the program against the graph.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use fewbits_engine::{Engine, FloatRunner, RunOptions, Runner, Tensor, Values};
use fewbits_ir::example::Example;
use fewbits_ir::op::{ByteScale, Computed, Epilogue, Subgraph};
use fewbits_ir::{Op, Program, Step, ValueId};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, ValueInfoProto};

use crate::net::Named;

/// How far a byte may be from the float that the graph has there, in steps: half a step is rounding, the rest
/// what sums of floats lose. A bias of floats is rounded to the steps of sums besides.
const MOST_STEPS: f32 = 0.5 + 0.01;

/// How far floats may be apart, of the largest of them: what their sums lose.
const MOST_OF_LARGEST: f32 = 1e-4;

fn one_thread() -> RunOptions {
    RunOptions { threads: NonZeroUsize::new(1), ..RunOptions::default() }
}

/// What the plain interpreter makes of a model.
struct Interpreted {
    program: Program,
    outputs: Named,
    values: HashMap<ValueId, Computed>,
}

/// Runs a model with one and two threads, in which the engine must give what the plain interpreter says, to
/// the bit; which must be what the graph means; and the program must come back from its JSON as it was.
#[track_caller]
pub fn assert_exact(model: &Model, inputs: &Named) -> Named {
    let Interpreted { program, outputs, values } = assert_interpreted(model, inputs);
    assert_meant(model, &program, inputs, &values);
    outputs
}

/// The same of an example. Where it says itself what it gives, the float executor lacks an operator.
#[track_caller]
pub fn assert_example(example: &Example) {
    let Some(wanted) = &example.wanted else {
        assert_exact(&example.model, &example.inputs);
        return;
    };
    let outputs = assert_interpreted(&example.model, &example.inputs).outputs;
    assert_eq!(outputs.len(), 1);
    assert_near(&outputs[0].0, &outputs[0].1, wanted);
}

#[track_caller]
fn assert_interpreted(model: &Model, inputs: &Named) -> Interpreted {
    let program = Program::new(model).unwrap();
    let json = serde_json::to_string(&program).unwrap();
    let again: Program = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), json);

    let runners = Fallbacks::of(&program);
    let fallback = |subgraph: &Subgraph, tensors: &[Tensor]| runners.run(subgraph, tensors);
    let wanted = again.interpret(inputs, &fallback).unwrap();
    for threads in [1, 2] {
        let options = RunOptions { threads: NonZeroUsize::new(threads), ..RunOptions::default() };
        let engine = Engine::of_program(again.clone(), &options).unwrap();
        let outputs = engine.run(inputs).unwrap();
        assert_same(&outputs, &wanted, &format!("{threads} threads"));
    }
    let values = program.interpret_all(inputs, &fallback).unwrap();
    Interpreted { program, outputs: wanted, values }
}

/// What is left to the float executor, loaded once.
struct Fallbacks(HashMap<Vec<String>, FloatRunner>);

impl Fallbacks {
    fn of(program: &Program) -> Fallbacks {
        let steps = program.once.iter().chain(&program.steps);
        let subgraphs = steps.filter_map(|step| match &step.op {
            Op::Fallback(subgraph) => Some(subgraph),
            _ => None,
        });
        let load = |subgraph: &Subgraph| FloatRunner::new(&subgraph.model, &one_thread()).unwrap();
        Fallbacks(subgraphs.map(|one| (one.outputs.clone(), load(one))).collect())
    }

    fn run(&self, subgraph: &Subgraph, tensors: &[Tensor]) -> fewbits_ir::Result<Vec<Tensor>> {
        let inputs: Named = subgraph.inputs.iter().cloned().zip(tensors.iter().cloned()).collect();
        let outputs = self.0[&subgraph.outputs].run(&inputs)?;
        Ok(outputs.into_iter().map(|(_, tensor)| tensor).collect())
    }
}

/// Asserts that outputs have the same bits; a NaN is like any other.
#[track_caller]
fn assert_same(ours: &Named, wanted: &Named, what: &str) {
    let bits = |tensor: &Tensor| match tensor.values() {
        Values::F32(v) => v.iter().map(|x| if x.is_nan() { !0 } else { x.to_bits() }).collect(),
        _ => Vec::new(),
    };
    assert_eq!(ours.len(), wanted.len());
    for ((name, a), (wanted_name, b)) in ours.iter().zip(wanted) {
        assert_eq!((name, a.shape(), a.data_type()), (wanted_name, b.shape(), b.data_type()));
        match a.values() {
            Values::F32(_) => assert_eq!(bits(a), bits(b), "{name} with {what}"),
            _ => assert_eq!(a, b, "{name} with {what}"),
        }
    }
}

/// Asserts that every activation in bytes, and every output, is what the graph makes of the bytes before it:
/// the float executor computes what lies between, from the bytes that the program has.
#[track_caller]
fn assert_meant(
    model: &Model,
    program: &Program,
    inputs: &Named,
    values: &HashMap<ValueId, Computed>,
) {
    let mut graph = model.graph().clone();
    let bytes: HashMap<&str, &Computed> = (0u32..)
        .zip(&program.values)
        .filter(|(_, value)| value.quantization.is_some())
        .filter_map(|(id, value)| Some((value, values.get(&ValueId(id))?)))
        .flat_map(|(value, computed)| value.names.iter().map(move |n| (n.as_str(), computed)))
        .collect();
    let mut fed = inputs.clone();
    let mut checks = Vec::new();
    let mut feed = |graph: &mut GraphProto, name: &str, tensor: Tensor| {
        graph.input.push(ValueInfoProto {
            name: Some(name.to_string()),
            ..ValueInfoProto::tensor(
                name,
                tensor.data_type() as i32,
                &vec![None; tensor.shape().len()],
            )
        });
        fed.push((name.to_string(), tensor));
    };
    for node in std::mem::take(&mut graph.node) {
        let known = node.output.first().and_then(|q| bytes.get(q.as_str()).copied());
        match known {
            Some(computed) if node.is("QuantizeLinear") => {
                let (scale, data_type) = scale_of(&graph, &node);
                let q = computed.tensor.clone();
                feed(&mut graph, &node.output[0], as_onnx(&q, data_type));
                checks.push((node, scale, q));
            }
            Some(computed) if node.is("DynamicQuantizeLinear") => {
                let scale = computed.dynamic.unwrap();
                feed(&mut graph, &node.output[0], computed.tensor.clone());
                feed(&mut graph, &node.output[1], Tensor::new(vec![], vec![scale.scale]).unwrap());
                let zero_point = Tensor::new(vec![], vec![scale.zero_point]).unwrap();
                feed(&mut graph, &node.output[2], zero_point);
                checks.push((node, scale, computed.tensor.clone()));
            }
            _ => graph.node.push(node),
        }
    }
    let is_fed = |name: &str| fed.iter().any(|(known, _)| known == name);
    graph.output.retain(|output| !is_fed(output.name()));
    for (node, ..) in &checks {
        let name = &node.input[0];
        if !is_fed(name) && !graph.is_output(name) {
            graph.output.push(ValueInfoProto { name: Some(name.clone()), ..Default::default() });
        }
    }
    let outputs = if graph.output.is_empty() {
        Vec::new()
    } else {
        let model = Model::from_graph(graph.clone(), model.opset());
        FloatRunner::new(&model, &one_thread()).unwrap().run(&fed).unwrap()
    };
    let floats = |name: &str| {
        let mut all = outputs.iter().chain(&fed);
        all.find(|(known, _)| known == name).map(|(_, tensor)| tensor).unwrap()
    };
    for (node, scale, q) in &checks {
        let most = MOST_STEPS + bias_rounding(program, &node.output[0]);
        assert_rounded(&node.input[0], floats(&node.input[0]), *scale, q, most);
    }
    for (spec, id) in &program.outputs {
        if let Some((_, wanted)) = outputs.iter().find(|(name, _)| *name == spec.name) {
            assert_near(&spec.name, &values[id].tensor, wanted);
        }
    }
}

fn scale_of(graph: &GraphProto, node: &NodeProto) -> (ByteScale, DataType) {
    let initializer = |name: &String| graph.initializer.iter().find(|t| t.name() == name);
    let scale = initializer(&node.input[1]).unwrap().floats().unwrap()[0];
    let (zero_point, data_type) = match node.given_input(2).map(|name| name.to_string()) {
        Some(name) => {
            let tensor = initializer(&name).unwrap();
            (tensor.ints().unwrap()[0], tensor.element_type().unwrap())
        }
        None => {
            let data_type = node.int("output_dtype", DataType::Uint8 as i64);
            (0, DataType::try_from(data_type as i32).unwrap())
        }
    };
    let shift = if data_type == DataType::Int8 { 128 } else { 0 };
    (ByteScale { scale, zero_point: (zero_point + shift) as u8 }, data_type)
}

/// Bytes of the program as ONNX has them.
fn as_onnx(bytes: &Tensor, data_type: DataType) -> Tensor {
    match (bytes.values(), data_type) {
        (Values::U8(v), DataType::Int8) => {
            let signed: Vec<i8> = v.iter().map(|&q| (q ^ 0x80) as i8).collect();
            Tensor::new(bytes.shape().to_vec(), signed).unwrap()
        }
        _ => bytes.clone(),
    }
}

/// How far a bias of floats may be rounded in the product that gives the bytes `name`, in steps of these.
fn bias_rounding(program: &Program, name: &str) -> f32 {
    let gives = |step: &&Step| {
        let mut values = step.outputs.iter().map(|id| program.value(*id));
        values.any(|value| value.names.iter().any(|n| n == name))
    };
    let product = program.steps.iter().find(gives).and_then(|step| match &step.op {
        Op::MatMul(product) => Some(&**product),
        Op::Conv(conv) => Some(&conv.product),
        _ => None,
    });
    let product = product.filter(|product| matches!(product.epilogue, Epilogue::Bytes { .. }));
    product.map_or(0.0, |product| 0.5 * product.scale.iter().copied().fold(0.0, f32::max))
}

#[track_caller]
fn assert_rounded(name: &str, floats: &Tensor, scale: ByteScale, bytes: &Tensor, most: f32) {
    let (Values::F32(floats), Values::U8(bytes)) = (floats.values(), bytes.values()) else {
        panic!("'{name}' is no float")
    };
    assert_eq!(floats.len(), bytes.len(), "'{name}'");
    for (i, (x, &q)) in floats.iter().zip(bytes).enumerate() {
        let steps = (x / scale.scale + f32::from(scale.zero_point)).clamp(0.0, 255.0);
        let apart = (steps - f32::from(q)).abs();
        assert!(
            apart <= most || x.is_nan(),
            "element {i} of '{name}' is {steps} steps, and the byte {q}"
        );
    }
}

#[track_caller]
fn assert_near(name: &str, ours: &Tensor, wanted: &Tensor) {
    assert_eq!((ours.shape(), ours.data_type()), (wanted.shape(), wanted.data_type()), "'{name}'");
    let (Values::F32(a), Values::F32(b)) = (ours.values(), wanted.values()) else {
        assert_eq!(ours, wanted, "'{name}'");
        return;
    };
    let largest = b.iter().filter(|x| x.is_finite()).fold(0.0, |a: f32, b| a.max(b.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let same = a == b || a.is_nan() && b.is_nan();
        assert!(
            same || (a - b).abs() <= MOST_OF_LARGEST * largest,
            "element {i} of '{name}' is {a}, and the graph's {b}"
        );
    }
}
