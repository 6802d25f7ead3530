//! Inputs in 64 bits, which no executor of ours computes with: what shifts and scales them before
//! they are cast to 32 bits.
//!
//! A column such as a time stamp has more digits than 32 bits hold. Less its mean it has not, so a
//! model may begin with `Sub` and `Div` of doubles and a `Cast` to floats. These nodes are cut off
//! and computed when inputs are fed, each operation in 64 bits and in the model's order.

use std::borrow::Cow;

use fewbits_onnx::passes::double_heads::{Arithmetic, cut_double_heads};
use fewbits_onnx::proto::{DataType, GraphProto};
use serde::{Deserialize, Serialize};

use crate::{Result, RuntimeError, Tensor, ValueSpec, Values};

/// The part of a graph that works on doubles, cut off to be run before the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct F64Prologue {
    inputs: Vec<F64Input>,
}

/// One input, as a caller feeds it and as the rest of the graph takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct F64Input {
    spec: ValueSpec,
    steps: Vec<F64Step>,
    /// The input of the rest.
    gives: String,
}

/// An operation with a constant for every column, or one for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct F64Step {
    operation: Operation,
    /// Doubles.
    constant: Tensor,
}

/// What is done with each number and its constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Add,
    Sub,
    Mul,
    Div,
}

impl F64Prologue {
    /// Cuts what works on doubles out of `graph`, whose inputs are floats behind it.
    ///
    /// # Errors
    /// If a constant is damaged.
    pub fn cut(graph: &mut GraphProto) -> Result<F64Prologue> {
        let specs: Vec<ValueSpec> = graph.required_inputs().map(ValueSpec::new).collect();
        let mut inputs = Vec::new();
        for head in cut_double_heads(graph)? {
            let Some(spec) = specs.iter().find(|spec| spec.name == head.input) else { continue };
            let mut steps = Vec::new();
            for step in head.steps {
                let operation = match step.operation {
                    Arithmetic::Add => Operation::Add,
                    Arithmetic::Sub => Operation::Sub,
                    Arithmetic::Mul => Operation::Mul,
                    Arithmetic::Div => Operation::Div,
                };
                let constant = Tensor::new(vec![step.constant.len()], step.constant)?;
                steps.push(F64Step { operation, constant });
            }
            inputs.push(F64Input { spec: spec.clone(), steps, gives: head.gives });
        }
        Ok(F64Prologue { inputs })
    }

    /// What a caller feeds, of what the rest of the graph takes.
    pub fn outer(&self, inner: &[ValueSpec]) -> Vec<ValueSpec> {
        let outer = |spec: &ValueSpec| {
            let cut = self.inputs.iter().find(|input| input.gives == spec.name);
            cut.map_or(spec, |input| &input.spec).clone()
        };
        inner.iter().map(outer).collect()
    }

    /// What the rest of the graph takes, of what a caller feeds.
    ///
    /// # Errors
    /// If data is not of the input's type and shape.
    pub fn feed<'a>(&self, inputs: &'a [(String, Tensor)]) -> Result<Cow<'a, [(String, Tensor)]>> {
        if self.inputs.is_empty() {
            return Ok(Cow::Borrowed(inputs));
        }
        let feed = |(name, tensor): &(String, Tensor)| match self
            .inputs
            .iter()
            .find(|input| input.spec.name == *name)
        {
            Some(input) => Ok((input.gives.clone(), input.narrowed(tensor)?)),
            None => Ok((name.clone(), tensor.clone())),
        };
        inputs.iter().map(feed).collect::<Result<Vec<_>>>().map(Cow::Owned)
    }
}

impl F64Input {
    fn narrowed(&self, tensor: &Tensor) -> Result<Tensor> {
        self.spec.check(tensor)?;
        let Values::F64(values) = tensor.values() else {
            return Err(RuntimeError::Cast { from: tensor.data_type(), to: DataType::Double });
        };
        let width = tensor.shape().last().copied().unwrap_or(1).max(1);
        let mut narrow = Vec::with_capacity(values.len());
        for row in values.chunks(width) {
            narrow.extend(row.iter().enumerate().map(|(column, &x)| {
                self.steps.iter().fold(x, |x, step| step.at(column, x)) as f32
            }));
        }
        Tensor::new(tensor.shape().to_vec(), narrow)
    }
}

impl F64Step {
    fn at(&self, column: usize, x: f64) -> f64 {
        let Values::F64(constant) = self.constant.values() else { return x };
        let y = constant[column % constant.len()];
        match self.operation {
            Operation::Add => x + y,
            Operation::Sub => x - y,
            Operation::Mul => x * y,
            Operation::Div => x / y,
        }
    }
}
