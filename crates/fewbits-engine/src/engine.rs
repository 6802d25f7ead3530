//! The integer executor: quantized models on our own kernels.
//!
//! A graph is lowered once ([`lower`]): nodes between DequantizeLinear and QuantizeLinear become
//! steps on bytes, and what is left goes to the float executor in regions as large as possible
//! ([`schedule`]). A run is then a list of steps ([`steps`]) over memory that is planned once
//! ([`state`]).

mod lower;
mod net;
mod parts;
mod program;
mod refusal;
mod rows;
mod schedule;
mod state;
mod steps;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fewbits_kernels::{Cpu, Pool, Threads};
use fewbits_onnx::Model;
use fewbits_onnx::facts::CommonScales;
use fewbits_onnx::proto::DataType;

use crate::double::Doubles;
use crate::float::expose;
use crate::integer::lower::Lowering;
use crate::integer::net::Net;
use crate::integer::parts::{Parts, Rows};
pub use crate::integer::program::{Place, StepRole};
use crate::integer::program::{Program, Unit};
use crate::integer::schedule::{constant_nodes, schedule};
use crate::integer::state::State;
use crate::prepare::prepare_quantized;
use crate::runner::output_specs;
use crate::{Result, RowsKnown, RunOptions, Runner, RuntimeError, Tensor, ValueSpec, input_specs};

/// Bytes of stack for lowering, which follows the graph from its outputs: a frame for each node of
/// the longest path.
const STACK_BYTES: usize = 256 << 20;

/// Runs a quantized model on integers, and what cannot be in f32.
pub struct Engine {
    program: Program,
    head: Doubles,
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    cpu: Cpu,
    threads: Threads,
    pool: Option<Pool>,
    parts: Parts,
    known: RowsKnown,
    /// The memory of earlier runs.
    idle: Mutex<Vec<State>>,
}

/// A step of an executor, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// The ONNX node that it stands for, or the first of them.
    pub node: String,
    /// What is computed in it: `Conv + Relu`.
    pub what: String,
    /// Where it is computed.
    pub place: Place,
    /// How many ONNX nodes it takes the place of, those that depend on no input left out.
    pub nodes: usize,
    /// Why it is left to rten, one reason a kind of node; empty for what is not.
    pub why: Vec<String>,
    /// Whether every CPU gives the same bits.
    pub is_exact: bool,
}

/// What a step takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// The ONNX node that it stands for, or the first of them.
    pub node: String,
    /// What is computed in it: `Conv + Relu`.
    pub what: String,
    /// The values of the graph that it gives as floats, or as whatever they are.
    pub gives: Vec<String>,
    /// The steps, by their positions, that compute what it reads.
    pub reads: Vec<usize>,
    /// Where it is computed.
    pub place: Place,
    /// What it is there for.
    pub role: StepRole,
    /// The median time.
    pub time: Duration,
}

impl Engine {
    /// Loads `model`.
    ///
    /// # Errors
    /// If an operator is not supported, by name, or `FEWBITS_CPU` asks for what this CPU lacks.
    pub fn new(model: &Model, options: &RunOptions) -> Result<Engine> {
        let prepared = prepare_quantized(&expose(model, &options.intermediates)?)?;
        Engine::load(prepared, options)
    }

    /// Loads what was prepared.
    pub(crate) fn load(mut model: Model, options: &RunOptions) -> Result<Engine> {
        let head = Doubles::cut(model.graph_mut())?;
        let cpu = Cpu::chosen().map_err(|e| RuntimeError::Load { reason: e.to_string() })?;
        let inputs = input_specs(model.graph());
        let outputs = output_specs(model.graph());
        let (program, rows, known) = std::thread::scope(|scope| {
            let build = || compile(&model, &inputs, &outputs, cpu, options);
            let thread = std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, build)
                .map_err(|e| RuntimeError::Load { reason: format!("no thread: {e}") })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let threads = match options.threads {
            Some(count) => count.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let pool = match threads {
            1 => None,
            n => Some(Pool::new(n).ok_or_else(|| RuntimeError::Load {
                reason: format!("the system has no {n} threads; ask for fewer"),
            })?),
        };
        // Where the float executor rounds, last bits may depend on the rows of a call.
        let rows = if program.units.iter().all(Unit::is_exact) { rows } else { Rows::Mixed };
        Ok(Engine {
            parts: Parts::new(rows, model.weight_bytes() as usize),
            known,
            program,
            inputs: head.outer(&inputs),
            head,
            outputs,
            cpu,
            threads: Threads::new(threads),
            pool,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The kernels that were chosen.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// The steps, in the order in which they run.
    pub fn fusions(&self) -> Vec<Fusion> {
        let units = self.program.units.iter();
        units
            .map(|unit| Fusion {
                node: unit.node.clone(),
                what: unit.what.clone(),
                place: unit.place,
                nodes: unit.nodes,
                why: unit.why.clone(),
                is_exact: unit.is_exact(),
            })
            .collect()
    }

    fn run_steps(&self, state: &mut State) -> Result<()> {
        self.program.units.iter().try_for_each(|unit| unit.step.run(state))
    }

    /// Runs `calls` times, at least once, and tells what each step took, in the order in which they
    /// run.
    ///
    /// # Errors
    /// Those of [`run`](Runner::run).
    pub fn profile(&self, inputs: &[(String, Tensor)], calls: usize) -> Result<Vec<StepTime>> {
        let units = &self.program.units;
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); units.len()];
        let mut timed = |state: &mut State| -> Result<()> {
            units.iter().zip(&mut times).try_for_each(|(unit, times)| {
                let begun = Instant::now();
                unit.step.run(state)?;
                times.push(begun.elapsed());
                Ok(())
            })
        };
        for _ in 0..calls.max(1) {
            let mut state = self.begin(inputs, self.threads)?;
            self.on_threads(self.threads, || timed(&mut state))?;
            self.end(state)?;
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        Ok(units
            .iter()
            .zip(&mut times)
            .map(|(unit, times)| StepTime {
                node: unit.node.clone(),
                what: unit.what.clone(),
                gives: unit.gives.clone(),
                reads: (0..units.len())
                    .filter(|&i| units[i].outputs.iter().any(|id| unit.inputs.contains(id)))
                    .collect(),
                place: unit.place,
                role: unit.step.role(),
                time: median(times),
            })
            .collect())
    }

    /// Does `work` where it finds the threads that its kernels share.
    fn on_threads<T>(&self, threads: Threads, work: impl FnOnce() -> T) -> T {
        match &self.pool {
            Some(pool) if threads != Threads::ONE => pool.install(work),
            _ => work(),
        }
    }

    /// Runs `inputs` whole or in parts, on no more threads than they are worth.
    fn run_with(
        &self,
        inputs: &[(String, Tensor)],
        threads: Threads,
    ) -> Result<Vec<(String, Tensor)>> {
        let rows = rows_of(inputs);
        let threads = self.parts.threads(rows.unwrap_or(1), threads);
        if let Some(cut) = rows.and_then(|rows| self.parts.of(rows, threads)) {
            return self.run_parts(inputs, &cut, threads);
        }
        let mut state = self.begin(inputs, threads)?;
        self.on_threads(threads, || self.run_steps(&mut state))?;
        self.parts.learn(rows.unwrap_or(1), self.program.bytes_of_values(&state));
        self.end(state)
    }

    /// Runs the parts, as many on each thread, and joins their outputs.
    fn run_parts(
        &self,
        inputs: &[(String, Tensor)],
        parts: &[Range<usize>],
        threads: Threads,
    ) -> Result<Vec<(String, Tensor)>> {
        let inputs = &*self.accepted(inputs)?;
        let shares: Vec<&[Range<usize>]> = parts.chunks(parts.len() / threads.count()).collect();
        let mut outputs: Vec<Result<Vec<Tensor>>> = Vec::new();
        outputs.resize_with(shares.len(), || Ok(Vec::new()));
        self.on_threads(threads, || {
            threads.rows(&mut outputs, 1, 1, |first, outputs| {
                for (output, share) in outputs.iter_mut().zip(&shares[first..]) {
                    *output = self.run_in_turn(inputs, share);
                }
            });
        });
        let mut all = Vec::new();
        let rows = parts.iter().map(Range::len).sum();
        for outputs in outputs {
            append(&mut all, outputs?, rows)?;
        }
        Ok(self.outputs.iter().map(|spec| spec.name.clone()).zip(all).collect())
    }

    /// The outputs for parts that follow each other, on one thread.
    fn run_in_turn(
        &self,
        inputs: &[(String, Tensor)],
        parts: &[Range<usize>],
    ) -> Result<Vec<Tensor>> {
        let mut all = Vec::new();
        let rows = parts.iter().map(Range::len).sum();
        for part in parts {
            let mut state = self.filled(inputs, Some(part), Threads::ONE)?;
            self.run_steps(&mut state)?;
            append(&mut all, self.end(state)?.into_iter().map(|(_, tensor)| tensor), rows)?;
        }
        Ok(all)
    }

    /// The memory of a run on so many threads, with its inputs.
    fn begin(&self, inputs: &[(String, Tensor)], threads: Threads) -> Result<State> {
        self.filled(&self.accepted(inputs)?, None, threads)
    }

    /// What the steps take of what a caller feeds.
    fn accepted<'a>(&self, inputs: &'a [(String, Tensor)]) -> Result<Cow<'a, [(String, Tensor)]>> {
        let surplus = inputs.iter().find(|(name, _)| !self.inputs.iter().any(|s| s.name == *name));
        if let Some((name, _)) = surplus {
            let known: Vec<&str> = self.inputs.iter().map(|s| s.name.as_str()).collect();
            return Err(RuntimeError::Input {
                input: name.clone(),
                reason: format!("the model has no such input; it has {}", known.join(", ")),
            });
        }
        self.head.feed(inputs)
    }

    /// The memory of a run with all rows of its inputs, or some.
    fn filled(
        &self,
        inputs: &[(String, Tensor)],
        rows: Option<&Range<usize>>,
        threads: Threads,
    ) -> Result<State> {
        let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut state = idle.unwrap_or_else(|| self.program.state(self.cpu, threads));
        state.threads = threads;
        for (spec, id) in &self.program.inputs {
            let given = inputs.iter().find(|(name, _)| *name == spec.name);
            let (_, tensor) = given.ok_or_else(|| RuntimeError::Input {
                input: spec.name.clone(),
                reason: "no data given for it".into(),
            })?;
            spec.check(tensor)?;
            let tensor = &*as_computed(tensor);
            match rows {
                None => state.set_tensor(*id, tensor)?,
                Some(rows) => state.set_rows(*id, tensor, rows.clone())?,
            }
        }
        Ok(state)
    }

    /// The outputs of a run, whose memory is kept for the next.
    fn end(&self, state: State) -> Result<Vec<(String, Tensor)>> {
        let outputs = self.program.outputs.iter().map(|(spec, id)| {
            let tensor = state.tensor(*id)?;
            let tensor = match spec.data_type {
                Some(data_type) if data_type != tensor.data_type() => tensor.cast(data_type)?,
                _ => tensor,
            };
            Ok((spec.name.clone(), tensor))
        });
        let outputs = outputs.collect();
        self.idle.lock().unwrap_or_else(|e| e.into_inner()).push(state);
        outputs
    }
}

/// What a model's graph tells of the rows of a batch.
pub fn rows_known(model: &Model) -> RowsKnown {
    rows::known(&Net::new(model.graph(), model.opset()))
}

/// The steps for a model, and whether the rows of its batches are apart.
fn compile(
    model: &Model,
    inputs: &[ValueSpec],
    outputs: &[ValueSpec],
    cpu: Cpu,
    options: &RunOptions,
) -> Result<(Program, Rows, RowsKnown)> {
    let net = Net::new(model.graph(), model.opset());
    let known = rows::known(&net);
    let rows = match rows::are_apart(&net, CommonScales::Mix) {
        true => Rows::Apart,
        false => Rows::Mixed,
    };
    let mut lowering = Lowering::new(net, cpu);
    let constant = constant_nodes(model.graph());
    lowering.choose_integer_products(&constant);
    lowering.choose_integer_arithmetic()?;
    lowering.choose_float_nodes(&constant);
    for input in &model.graph().input {
        lowering.tensor(input.name());
    }
    for output in &model.graph().output {
        lowering.tensor(output.name());
    }
    Ok((schedule(model, lowering, &constant, inputs, outputs, options)?, rows, known))
}

impl Runner for Engine {
    fn inputs(&self) -> &[ValueSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn rows_known(&self) -> RowsKnown {
        self.known
    }

    fn run(&self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        self.run_with(inputs, self.threads)
    }

    fn run_alone(&self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        self.run_with(inputs, Threads::ONE)
    }
}

/// The rows of a batch, where all inputs have as many.
fn rows_of(inputs: &[(String, Tensor)]) -> Option<usize> {
    let mut rows = inputs.iter().map(|(_, tensor)| tensor.shape().first().copied());
    let first = rows.next()??;
    rows.all(|other| other == Some(first)).then_some(first)
}

/// A tensor as the steps take it: halves are computed as floats.
fn as_computed(tensor: &Tensor) -> Cow<'_, Tensor> {
    match tensor.data_type() {
        DataType::Float16 => Cow::Owned(tensor.clone().widened()),
        _ => Cow::Borrowed(tensor),
    }
}

/// Adds the outputs for the rows that follow; there will be `rows` of them in all.
fn append(
    all: &mut Vec<Tensor>,
    outputs: impl IntoIterator<Item = Tensor>,
    rows: usize,
) -> Result<()> {
    for (i, mut tensor) in outputs.into_iter().enumerate() {
        match all.get_mut(i) {
            Some(all) => all.push_rows(tensor)?,
            None => {
                tensor.reserve_rows(rows);
                all.push(tensor);
            }
        }
    }
    Ok(())
}
