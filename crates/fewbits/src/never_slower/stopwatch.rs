//! What is measured to decide; tests decide on made-up times instead.

use std::collections::HashMap;
use std::time::Duration;

use fewbits_engine::{Backend, FloatRunner, RunOptions, StepTime, Tensor};
use fewbits_onnx::Model;
use fewbits_onnx::facts::ReadAs;
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{GraphProto, ValueInfoProto};
use fewbits_quant::Rounding;

use super::ROUNDS;
use super::operator::Operator;
use crate::apply::apply;
use crate::measure::latencies;
use crate::plan::Plan;
use crate::progress::Silent;
use crate::run::{part_for, runner};
use crate::{Error, Result};

/// Calls of which the median time of a step is taken.
const CALLS: usize = 15;
/// What timing one operator alone may take, or a slow one a few calls.
const ALONE: Duration = Duration::from_millis(20);
/// What one round of a race may take, about.
const ROUND: Duration = Duration::from_millis(80);

/// A form of the model.
#[derive(Clone, Copy)]
pub(super) enum Version<'a> {
    Float,
    Quantized(&'a Plan),
}

/// What an operator takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OperatorTime {
    pub operator: Operator,
    /// As a step of the quantized model, with its share of what brings its input into its form, in
    /// microseconds.
    pub integers_us: f64,
    /// Alone in floats, in microseconds.
    pub float_us: f64,
}

/// Tells times.
pub(super) trait Stopwatch {
    /// What operators take; those that are not computed on integers are left out.
    fn operators(&mut self, plan: &Plan, operators: &[Operator]) -> Result<Vec<OperatorTime>>;

    /// The median times of a call of two versions, in microseconds, in each of some rounds.
    fn race(&mut self, a: Version, b: Version) -> Result<Vec<[f64; 2]>>;
}

/// This machine.
pub(super) struct Machine<'a> {
    /// The prepared model.
    pub model: &'a Model,
    /// The same with the plan's adjustments.
    pub adjusted: &'a Model,
    /// Of one call.
    pub inputs: &'a [(String, Tensor)],
    pub run: &'a RunOptions,
}

impl Machine<'_> {
    fn quantized(&self, plan: &Plan) -> Result<Model> {
        // How values are rounded takes no time.
        apply(self.model.clone(), &plan.rounded_by(Rounding::Nearest), None, &Silent)
    }

    /// The activations that operators read, as far as the float executor can compute them.
    fn values(&self, operators: &[Operator]) -> Result<HashMap<String, Tensor>> {
        let mut values: HashMap<String, Tensor> = self.inputs.iter().cloned().collect();
        let mut names: Vec<String> = operators.iter().map(|o| o.value.clone()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| !values.contains_key(name));
        if !names.is_empty() {
            let reach = part_for(self.adjusted, &names, self.run)?;
            values.extend(reach.runner.run(self.inputs)?);
        }
        Ok(values)
    }

    /// The microseconds that one operator takes in the float executor, on the value that it meets.
    fn alone(&self, operator: &Operator, value: &Tensor) -> Result<f64> {
        let node = self.adjusted.graph().node[operator.node].clone();
        let constants = node.input.iter().filter_map(|n| self.adjusted.graph().find_initializer(n));
        let dims: Vec<Option<i64>> = value.shape().iter().map(|&d| Some(d as i64)).collect();
        let float = value.data_type() as i32;
        let graph = GraphProto {
            initializer: constants.cloned().collect(),
            input: vec![ValueInfoProto::tensor(&operator.value, float, &dims)],
            output: vec![ValueInfoProto::tensor(
                &node.output[0],
                float,
                &vec![None; value.shape().len()],
            )],
            node: vec![node],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, self.adjusted.opset());
        model.proto_mut().opset_import = self.adjusted.proto().opset_import.clone();
        let options = RunOptions { threads: self.run.threads, ..RunOptions::default() };
        let runner = FloatRunner::new(&model, &options).map_err(Error::Runtime)?;
        let inputs = [(operator.value.clone(), value.clone())];
        let time = latencies(&[&runner], &[&inputs], ALONE)?;
        Ok(time[0].median * 1e3)
    }
}

impl Stopwatch for Machine<'_> {
    fn operators(&mut self, plan: &Plan, operators: &[Operator]) -> Result<Vec<OperatorTime>> {
        let quantized = runner(&self.quantized(plan)?, self.run)?;
        // The first calls fill caches.
        quantized.profile(self.inputs, 3)?;
        let steps = quantized.profile(self.inputs, CALLS)?;
        let values = self.values(operators)?;
        let index = Index::new(self.adjusted.graph());
        let mut times = Vec::new();
        for operator in operators {
            let names = names_of(&index, self.adjusted.graph(), operator.node);
            let (Some(step), Some(value)) = (step_of(&steps, &names), values.get(&operator.value))
            else {
                continue;
            };
            times.push(OperatorTime {
                integers_us: step.as_secs_f64() * 1e6,
                float_us: self.alone(operator, value)?,
                operator: operator.clone(),
            });
        }
        Ok(times)
    }

    fn race(&mut self, a: Version, b: Version) -> Result<Vec<[f64; 2]>> {
        let load = |version: Version| match version {
            Version::Float => runner(self.model, self.run),
            Version::Quantized(plan) => runner(&self.quantized(plan)?, self.run),
        };
        let (a, b) = (load(a)?, load(b)?);
        let round = |_| {
            let times = latencies(&[&a, &b], &[self.inputs, self.inputs], ROUND)?;
            Ok([times[0].median * 1e3, times[1].median * 1e3])
        };
        (0..ROUNDS).map(round).collect()
    }
}

/// The names by which the step of a product may be known: its own, and those of the Add of its bias,
/// which is computed with it.
fn names_of<'a>(index: &Index, graph: &'a GraphProto, product: usize) -> Vec<&'a str> {
    let output = graph.node[product].output[0].as_str();
    let bias = match index.consumers(output) {
        [reader] if ReadAs::of(&graph.node[*reader], 0) == ReadAs::Summand => Some(*reader),
        _ => None,
    };
    let nodes = std::iter::once(product).chain(bias).map(|node| &graph.node[node]);
    nodes.flat_map(|node| [node.label(), node.output[0].as_str()]).collect()
}

/// The time of the step on integers that computes an operator, with its share of what it takes to
/// bring its input into its form.
fn step_of(steps: &[StepTime], names: &[&str]) -> Option<Duration> {
    let is = |step: &&StepTime| {
        step.backend == Backend::Integers
            && step.gives.iter().chain([&step.node]).any(|name| names.contains(&name.as_str()))
            && !step.converts
    };
    let step = steps.iter().find(is)?;
    let readers = |read: usize| steps.iter().filter(|s| s.reads.contains(&read)).count() as u32;
    let conversions = step
        .reads
        .iter()
        .filter(|&&read| steps[read].converts)
        .map(|&read| steps[read].time / readers(read).max(1));
    Some(step.time + conversions.sum::<Duration>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fewbits_engine::input_specs;
    use fewbits_onnx::proto::NodeProto;
    use fewbits_quant::Bits;

    use super::super::operator::operators;
    use super::*;
    use crate::adjust::adjust;
    use crate::data::{DataOptions, Dataset};
    use crate::layers::is_product;
    use crate::methods::Methods;
    use crate::plan::{Target, WeightOptions};
    use crate::prepare::prepare;
    use crate::recipe::{Activations, RangeChoice, Request, plan};
    use crate::run::call_of;

    #[test]
    fn every_operator_of_real_models_is_found_among_the_steps() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let fixed = Activations::Static { range: RangeChoice::default(), bits: Bits::EIGHT };
        for (model, data, activations) in [
            ("digits/mlp.onnx", "digits/test.npz", Activations::Dynamic),
            ("digits/mlp.onnx", "digits/test.npz", fixed),
            ("digits_cnn/model.onnx", "digits_cnn/calib.npz", fixed),
            ("tiny_lm/model.onnx", "tiny_lm/calib.npz", Activations::Dynamic),
        ] {
            let name = model;
            let mut model = Model::open(&fixtures.join(model)).unwrap();
            prepare(&mut model).unwrap();
            let options = DataOptions { limit: Some(16), ..DataOptions::default() };
            let specs = input_specs(model.graph());
            let data = Dataset::read(&fixtures.join(data), &specs, &options).unwrap();
            let request = Request {
                target: Target::default(),
                weights: WeightOptions::default(),
                rounding: Default::default(),
                reduce_range: Default::default(),
                integer_weights: Default::default(),
                activations,
                methods: Methods::Measured,
                data: Some(&data),
            };
            let run = RunOptions::default();
            let plan = plan(&model, &request, &run, &Silent).unwrap();
            let mut adjusted = model.clone();
            adjust(&mut adjusted, &plan.adjustments).unwrap();
            let found = operators(&adjusted, &plan);
            let graph = adjusted.graph();
            let of_a_constant = |node: &&NodeProto| {
                is_product(node) && graph.find_initializer(&node.input[1]).is_some()
            };
            let expected = graph.node.iter().filter(of_a_constant).count();
            assert_eq!(found.len(), expected, "{name}");
            let inputs = call_of(&data, 1);
            let mut machine =
                Machine { model: &model, adjusted: &adjusted, inputs: &inputs, run: &run };
            let times = machine.operators(&plan, &found).unwrap();
            let timed: Vec<Operator> = times.iter().map(|time| time.operator.clone()).collect();
            assert_eq!(timed, found, "{name}");
            assert!(times.iter().all(|time| time.integers_us > 0.0 && time.float_us > 0.0));
        }
    }

    fn step(node: &str, what: &str, gives: &str, reads: &[usize], micros: u64) -> StepTime {
        StepTime {
            node: node.to_string(),
            what: what.to_string(),
            gives: vec![gives.to_string()],
            reads: reads.to_vec(),
            backend: Backend::Integers,
            converts: what == "QuantizeLinear",
            time: Duration::from_micros(micros),
        }
    }

    #[test]
    fn a_product_is_known_by_the_addition_of_its_bias_too() {
        let node = |op, inputs: &[&str], output| NodeProto::new(op, inputs, &[output]);
        let graph = GraphProto {
            node: vec![
                node("MatMul", &["x", "w"], "p"),
                node("Add", &["p", "b"], "y"),
                node("MatMul", &["y", "v"], "z"),
            ],
            ..GraphProto::default()
        };
        let index = Index::new(&graph);
        assert_eq!(names_of(&index, &graph, 0), ["p", "p", "y", "y"]);
        assert_eq!(names_of(&index, &graph, 2), ["z", "z"]);
    }

    #[test]
    fn an_operator_pays_its_share_of_the_quantization_of_its_input() {
        let steps = [
            step("x", "QuantizeLinear", "", &[], 8),
            step("first", "MatMul to floats", "y", &[0], 10),
            step("mul_7", "MatMulInteger", "z", &[0, 1], 20),
            step("last", "Gemm to floats", "w", &[2], 5),
        ];
        let of = |names: &[&str]| step_of(&steps, names).map(|time| time.as_micros());
        assert_eq!(of(&["first", "y"]), Some(14));
        // Found by what it gives, where the node has another name.
        assert_eq!(of(&["second", "z"]), Some(24));
        assert_eq!(of(&["last", "w"]), Some(5));
        assert_eq!(of(&["x", "q"]), None);
        let left = StepTime { backend: Backend::Rten, ..step("last", "Gemm", "w", &[], 5) };
        assert_eq!(step_of(&[left], &["last", "w"]), None);
    }
}
