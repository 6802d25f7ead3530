//! The engine: programs on our own kernels.
//!
//! A program is loaded once: its weights are packed for a CPU, what no kernel computes goes to the float
//! executor ([`steps`](crate::steps)), and values get their memory. A run is then a list of steps over
//! memory that is planned once ([`state`](crate::state)).

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fewbits_ir::memory::{Uses, slots};
use fewbits_ir::{Backend, F64Prologue, Program, Shape, Step, Tensor, ValueId, ValueSpec, Values};
use fewbits_kernels::{Buffer, Cpu, Pool, Threads};
use fewbits_onnx::Model;
use fewbits_onnx::proto::DataType;

use crate::expose::expose;
use crate::parts::{Parts, Rows};
use crate::state::{State, Value};
use crate::steps::{Io, Kernel, Loader};
use crate::{Result, RowsKnown, RunOptions, Runner, RuntimeError};

/// Runs a program on integers, and what cannot be in f32.
pub struct Engine {
    steps: Vec<Loaded>,
    /// The values before the first run: halos, and nothing else.
    values: Vec<Value>,
    /// Where in memory each value lies.
    slot_of: Vec<u32>,
    /// Values that no step computes.
    constants: Vec<Constant>,
    prologue: F64Prologue,
    /// What steps take of what is fed.
    program_inputs: Vec<(ValueSpec, ValueId)>,
    program_outputs: Vec<(ValueSpec, ValueId)>,
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

/// A step as it runs, and what people are told of it.
struct Loaded {
    kernel: Box<dyn Kernel>,
    io: Io,
    told: Fusion,
    converts: bool,
    /// The values of the graph that it gives.
    gives: Vec<String>,
}

/// A value that no step computes.
struct Constant {
    id: ValueId,
    value: Value,
    buffer: Buffer,
}

/// A step of an executor, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// The ONNX node that it stands for, or the first of them.
    pub node: String,
    /// What is computed in it: `Conv + Relu`.
    pub what: String,
    /// Where it is computed.
    pub backend: Backend,
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
    pub backend: Backend,
    /// Whether it only brings a value into the form in which an operator on integers reads it.
    pub converts: bool,
    /// The median time.
    pub time: Duration,
}

impl Engine {
    /// Loads `model`.
    ///
    /// # Errors
    /// If an operator is not supported, by name, or `FEWBITS_CPU` asks for what this CPU lacks.
    pub fn new(model: &Model, options: &RunOptions) -> Result<Engine> {
        Engine::of_program(Program::new(&expose(model, &options.intermediates)?)?, options)
    }

    /// Loads a program.
    ///
    /// # Errors
    /// If [it is none](Program::check), a part that is left to the float executor cannot be run there, by name, or `FEWBITS_CPU` asks for
    /// what this CPU lacks.
    pub fn of_program(program: Program, options: &RunOptions) -> Result<Engine> {
        program.check()?;
        let cpu = Cpu::chosen().map_err(|e| RuntimeError::Load { reason: e.to_string() })?;
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
        let Program { values, once, steps, constants, inputs, outputs, .. } = program;
        let loader = Loader { cpu, values: &values, options };
        let constants = constants_of(&loader, constants, once, Threads::ONE)?;
        let slot_of = memory(&values, &steps, &inputs, &outputs, &constants);
        let steps = steps.into_iter().map(|step| Loaded::new(&loader, step));
        let steps = steps.collect::<Result<Vec<Loaded>>>()?;
        let specs = |all: &[(ValueSpec, ValueId)]| -> Vec<ValueSpec> {
            all.iter().map(|(spec, _)| spec.clone()).collect()
        };
        let rows = if program.is_cut { Rows::Apart } else { Rows::Mixed };
        Ok(Engine {
            parts: Parts::new(rows, program.weight_bytes),
            known: program.rows,
            steps,
            values: values.iter().map(before_runs).collect(),
            slot_of,
            constants,
            inputs: program.prologue.outer(&specs(&inputs)),
            prologue: program.prologue,
            outputs: specs(&outputs),
            program_inputs: inputs,
            program_outputs: outputs,
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
        self.steps.iter().map(|step| step.told.clone()).collect()
    }

    fn run_steps(&self, state: &mut State) -> Result<()> {
        self.steps.iter().try_for_each(|step| step.kernel.run(state))
    }

    /// Runs `calls` times, at least once, and tells what each step took, in the order in which they
    /// run.
    ///
    /// # Errors
    /// Those of [`run`](Runner::run).
    pub fn profile(&self, inputs: &[(String, Tensor)], calls: usize) -> Result<Vec<StepTime>> {
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); self.steps.len()];
        let mut timed = |state: &mut State| -> Result<()> {
            self.steps.iter().zip(&mut times).try_for_each(|(step, times)| {
                let begun = Instant::now();
                step.kernel.run(state)?;
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
        let gives = |step: &Loaded, reader: &Loaded| {
            step.io.outputs.iter().any(|id| reader.io.inputs.contains(id))
        };
        Ok(self
            .steps
            .iter()
            .zip(&mut times)
            .map(|(step, times)| StepTime {
                node: step.told.node.clone(),
                what: step.told.what.clone(),
                gives: step.gives.clone(),
                reads: (0..self.steps.len()).filter(|&i| gives(&self.steps[i], step)).collect(),
                backend: step.told.backend,
                converts: step.converts,
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
        self.parts.learn(rows.unwrap_or(1), self.bytes_of_values(&state));
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
        self.prologue.feed(inputs)
    }

    /// The memory of a run with all rows of its inputs, or some.
    fn filled(
        &self,
        inputs: &[(String, Tensor)],
        rows: Option<&Range<usize>>,
        threads: Threads,
    ) -> Result<State> {
        let idle = self.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let mut state = idle.unwrap_or_else(|| self.state(threads));
        state.threads = threads;
        for (spec, id) in &self.program_inputs {
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
        let outputs = self.program_outputs.iter().map(|(spec, id)| {
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

impl Engine {
    /// Memory for runs.
    fn state(&self, threads: Threads) -> State {
        let mut state = State::new(self.values.clone(), self.slot_of.clone(), self.cpu, threads);
        for constant in &self.constants {
            *state.value_mut(constant.id) = constant.value.clone();
            state.give(constant.id, constant.buffer.clone());
        }
        state
    }

    /// The bytes that the values take which steps compute or callers feed.
    fn bytes_of_values(&self, state: &State) -> usize {
        let constants = self.constants.iter().map(|constant| constant.buffer.len_bytes()).sum();
        state.bytes_of_all().saturating_sub(constants)
    }
}

impl Loaded {
    fn new(loader: &Loader, step: Step) -> Result<Loaded> {
        let io = Io { inputs: step.inputs, outputs: step.outputs };
        let values = io.outputs.iter().map(|id| &loader.values[id.index()]);
        let gives = values.filter(|value| value.quantization.is_none());
        let gives = gives.flat_map(|value| value.names.clone()).collect();
        let (is_exact, converts) = (step.op.is_exact(), step.op.converts());
        let told = Fusion {
            node: step.node,
            what: step.what,
            backend: step.backend,
            nodes: step.nodes,
            why: step.why,
            is_exact,
        };
        Ok(Loaded { kernel: loader.load(step.op, io.clone())?, io, told, converts, gives })
    }
}

/// What a state knows of a value before it is computed.
fn before_runs(value: &fewbits_ir::Value) -> Value {
    Value { halo: value.layout.halo(), ..Value::default() }
}

/// The slots of values in memory.
fn memory(
    values: &[fewbits_ir::Value],
    steps: &[Step],
    inputs: &[(ValueSpec, ValueId)],
    outputs: &[(ValueSpec, ValueId)],
    constants: &[Constant],
) -> Vec<u32> {
    let uses: Vec<Uses> = steps
        .iter()
        .map(|step| Uses {
            inputs: &step.inputs,
            outputs: &step.outputs,
            shares_memory: step.op.shares_memory(),
        })
        .collect();
    let constants = || constants.iter().map(|constant| constant.id);
    let fed: Vec<ValueId> = inputs.iter().map(|(_, id)| *id).chain(constants()).collect();
    let kept: Vec<ValueId> = outputs.iter().map(|(_, id)| *id).chain(constants()).collect();
    slots(values.len(), &uses, &fed, &kept)
}

/// The values that no step computes, and those that the steps give which run `once`.
fn constants_of(
    loader: &Loader,
    constants: Vec<fewbits_ir::Constant>,
    once: Vec<Step>,
    threads: Threads,
) -> Result<Vec<Constant>> {
    let mut known: HashMap<ValueId, Constant> = HashMap::new();
    for constant in constants {
        known.insert(constant.id, stored(constant.id, &constant.tensor)?);
    }
    if !once.is_empty() {
        let options = RunOptions { threads: std::num::NonZeroUsize::new(1), ..Default::default() };
        let loader = Loader { options: &options, ..*loader };
        let values = loader.values.iter().map(before_runs).collect();
        let slot_of = (0..loader.values.len() as u32).collect();
        let mut state = State::new(values, slot_of, loader.cpu, threads);
        for constant in known.values() {
            *state.value_mut(constant.id) = constant.value.clone();
            state.give(constant.id, constant.buffer.clone());
        }
        for step in once {
            let outputs = step.outputs.clone();
            Loaded::new(&loader, step)?.kernel.run(&mut state)?;
            for id in outputs {
                known.insert(id, stored(id, &state.tensor(id)?)?);
            }
        }
    }
    let mut constants: Vec<Constant> = known.into_values().collect();
    constants.sort_by_key(|constant| constant.id);
    Ok(constants)
}

/// A value that is known before the first run.
fn stored(id: ValueId, tensor: &Tensor) -> Result<Constant> {
    let shape = Shape::new(tensor.shape())?;
    Ok(match tensor.values() {
        Values::F32(floats) => {
            let mut buffer = Buffer::new(floats.len() * 4);
            buffer.f32s_mut().copy_from_slice(floats);
            Constant { id, value: Value { shape, ..Value::default() }, buffer }
        }
        _ => {
            let value = Value { shape, tensor: Some(tensor.clone()), ..Value::default() };
            Constant { id, value, buffer: Buffer::default() }
        }
    })
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
