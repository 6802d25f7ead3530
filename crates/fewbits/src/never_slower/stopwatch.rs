//! What is measured to decide; tests decide on made-up times instead.

use std::collections::HashMap;
use std::time::Duration;

use fewbits_onnx::Model;
use fewbits_onnx::proto::{GraphProto, ValueInfoProto};
use fewbits_runtime::{FloatRunner, Place, RunOptions, Runner, StepTime, Tensor};

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
    /// As a step of the quantized model, in microseconds.
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
        apply(self.model.clone(), plan, &Silent)
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
        let names: Vec<String> = operators.iter().map(|o| o.value.clone()).collect();
        let reach = part_for(self.adjusted, &names, self.run)?;
        let values: HashMap<String, Tensor> = reach.runner.run(self.inputs)?.into_iter().collect();
        let mut times = Vec::new();
        for operator in operators {
            let output = &self.adjusted.graph().node[operator.node].output[0];
            let (Some(step), Some(value)) =
                (step_of(&steps, &operator.label, output), values.get(&operator.value))
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

/// The time of the step on integers that computes an operator.
fn step_of(steps: &[StepTime], label: &str, output: &str) -> Option<Duration> {
    let is = |step: &&StepTime| {
        step.place == Place::Integers
            && (step.node == label || step.gives.iter().any(|value| value == output))
    };
    steps.iter().find(is).map(|step| step.time)
}
