//! A lowered graph: steps in an order, and what they work on.

use fewbits_kernels::{Buffer, Cpu, Threads};

use crate::integer::state::{State, Value, ValueId};
use crate::integer::steps::float_images::Convolution;
use crate::integer::steps::product::Product;
use crate::integer::steps::quantize::Quantize;
use crate::integer::steps::region::Region;
use crate::{Result, ValueSpec};

/// One thing to do.
pub(crate) trait Step: Send + Sync {
    /// Computes the outputs from the inputs.
    fn run(&self, state: &mut State) -> Result<()>;

    /// What it is there for.
    fn role(&self) -> StepRole {
        StepRole::Computes
    }
}

/// What a step is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepRole {
    /// It computes operators of the graph.
    Computes,
    /// It only brings a value into the form in which an operator on integers reads it.
    Converts,
}

/// A step, or one that later nodes may still be fused into.
pub(crate) enum AnyStep {
    Product(Box<Product>),
    Quantize(Quantize),
    Convolution(Box<Convolution>),
    Region(Box<Region>),
    Other(Box<dyn Step>),
}

impl AnyStep {
    pub(crate) fn run(&self, state: &mut State) -> Result<()> {
        match self {
            AnyStep::Product(product) => product.run(state),
            AnyStep::Quantize(quantize) => quantize.run(state),
            AnyStep::Convolution(convolution) => convolution.run(state),
            AnyStep::Region(region) => region.run(state),
            AnyStep::Other(step) => step.run(state),
        }
    }

    /// What the step is there for.
    pub(crate) fn role(&self) -> StepRole {
        match self {
            AnyStep::Quantize(quantize) => quantize.role(),
            AnyStep::Other(step) => step.role(),
            AnyStep::Product(_) | AnyStep::Convolution(_) | AnyStep::Region(_) => {
                StepRole::Computes
            }
        }
    }
}

/// A step with what it reads and writes.
pub(crate) struct Unit {
    pub step: AnyStep,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// The output lies where the first input lies.
    pub shares_memory: bool,
    /// What people call it: `Conv + Relu`.
    pub what: String,
    /// The ONNX node that it computes, or that gave it its name.
    pub node: String,
    /// Known once units have an order, as the three that follow.
    pub place: Place,
    /// The values of the graph that it gives.
    pub gives: Vec<String>,
    /// How many ONNX nodes it takes the place of.
    pub nodes: usize,
    /// Why these are not computed by steps of ours, if they are not.
    pub why: Vec<String>,
}

impl Unit {
    /// Whether every CPU gives the same bits.
    pub(crate) fn is_exact(&self) -> bool {
        match &self.step {
            AnyStep::Region(region) => region.is_exact,
            _ => true,
        }
    }
}

/// Where a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// On integers, or between integers and floats, in kernels of ours.
    Integers,
    /// On floats, in kernels of ours: the same bits on every CPU.
    Floats,
    /// In the float executor: where it rounds, the last bits may depend on the CPU.
    Rten,
}

/// Steps in the order in which they run.
pub(crate) struct Program {
    pub units: Vec<Unit>,
    /// The values before the first run: halos, and nothing else.
    pub values: Vec<Value>,
    /// Where in memory each value lies.
    pub slot_of: Vec<u32>,
    /// Values that no step computes.
    pub constants: Vec<(ValueId, Value, Buffer)>,
    pub inputs: Vec<(ValueSpec, ValueId)>,
    pub outputs: Vec<(ValueSpec, ValueId)>,
}

impl Program {
    /// Memory for runs.
    pub(crate) fn state(&self, cpu: Cpu, threads: Threads) -> State {
        let mut state = State::new(self.values.clone(), self.slot_of.clone(), cpu, threads);
        for (id, value, buffer) in &self.constants {
            *state.value_mut(*id) = value.clone();
            state.give(*id, buffer.clone());
        }
        state
    }

    /// The bytes that the values take which steps compute or callers feed.
    pub(crate) fn bytes_of_values(&self, state: &State) -> usize {
        let constants = self.constants.iter().map(|(_, _, buffer)| buffer.len_bytes()).sum();
        state.bytes_of_all().saturating_sub(constants)
    }
}
