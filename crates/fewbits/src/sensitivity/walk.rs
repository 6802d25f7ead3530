//! Going through a model node by node with the values of some rows, so that what lies before a
//! change is computed once.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_onnx::passes::section::{live_values, section};
use fewbits_onnx::proto::{DataType, TensorType, TypeProto, TypeValue, ValueInfoProto};
use fewbits_runtime::{FloatRunner, RunOptions, Runner, Tensor};

use crate::Result;
use crate::data::{Dataset, Labels};
use crate::padding::Tokens;
use crate::run::{call_of, fixed_rows, named};

/// Rows at a time.
const BATCH_ROWS: usize = 32;

/// The values that the rest of a model needs, batch by batch.
pub struct Walk {
    model: Model,
    run: RunOptions,
    position: usize,
    batches: Vec<Batch>,
}

/// The values of some rows.
pub struct Batch {
    values: HashMap<String, Tensor>,
    /// The positions that are not only padding, where some are.
    pub tokens: Option<Tokens>,
    /// The labels of the rows, where there are any.
    pub labels: Option<Labels>,
    /// The model's outputs.
    pub expected: Vec<Tensor>,
}

/// What follows a position, ready to run.
pub struct Rest {
    runner: Option<FloatRunner>,
    outputs: Vec<String>,
}

impl Walk {
    /// Starts before the first node, with the rows of `sample`.
    ///
    /// # Errors
    /// If the model cannot be run.
    pub fn new(model: &Model, sample: &Dataset, run: &RunOptions) -> Result<Walk> {
        let mut model = model.clone();
        model.graph_mut().sort_topologically();
        let runner = float_runner(&model, run)?;
        let whole = |inputs: Vec<(String, Tensor)>, labels| -> Result<Batch> {
            let tokens = Tokens::of(&inputs);
            let expected = runner.run(&inputs)?.into_iter().map(|(_, tensor)| tensor).collect();
            Ok(Batch { values: inputs.into_iter().collect(), tokens, labels, expected })
        };
        let labels = |rows: std::ops::Range<usize>| sample.labels().map(|l| l.slice_rows(rows));
        let batches = match fixed_rows(&runner) {
            // Fewer rows than it insists on: over again, and no labels for those.
            Some(fixed) if sample.rows() < fixed => vec![whole(call_of(sample, fixed)?, None)?],
            fixed => sample
                .batches(fixed.unwrap_or(BATCH_ROWS))
                .filter(|rows| fixed.is_none_or(|fixed| rows.len() == fixed))
                .map(|rows| whole(sample.batch(rows.clone()), labels(rows)))
                .collect::<Result<_>>()?,
        };
        Ok(Walk { model, run: run.clone(), position: 0, batches })
    }

    /// The model, its nodes in the order of the walk.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The batches, as far as the walk has come.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Where each of `names` is read first: the node's position, and the name's, in the order in
    /// which the walk comes by. What no node reads is left out.
    pub fn first_readers(&self, names: &[&str]) -> Vec<(usize, usize)> {
        let mut waiting: HashMap<&str, usize> =
            names.iter().enumerate().map(|(i, &name)| (name, i)).collect();
        let mut found = Vec::new();
        for (position, node) in self.model.graph().node.iter().enumerate() {
            node.for_each_use(&mut |name| {
                found.extend(waiting.remove(name).map(|i| (position, i)));
            });
        }
        found
    }

    /// Computes the nodes up to `position`, which must not lie behind.
    pub fn advance(&mut self, position: usize) -> Result<()> {
        if position <= self.position {
            return Ok(());
        }
        let live = live_values(&self.model, position);
        let nodes = &self.model.graph().node[self.position..position];
        let made: Vec<String> =
            nodes.iter().flat_map(|n| &n.output).filter(|o| live.contains(*o)).cloned().collect();
        if !made.is_empty() {
            let outputs = made.iter().map(|name| untyped(name)).collect();
            let part = section(&self.model, self.position..position, self.declared(), outputs);
            let runner = float_runner(&part, &self.run)?;
            for batch in &mut self.batches {
                let inputs = batch.inputs_of(&runner, None);
                batch.values.extend(runner.run(&inputs)?);
            }
        }
        for batch in &mut self.batches {
            batch.values.retain(|name, _| live.contains(name));
        }
        self.position = position;
        Ok(())
    }

    /// What is left of the model, with `fed` as an input: an initializer, or a value computed before.
    pub fn rest(&self, fed: &str) -> Result<Rest> {
        let graph = self.model.graph();
        let mut inputs = self.declared();
        if inputs.iter().all(|i| i.name() != fed) {
            inputs.push(of_any_shape(fed, DataType::Float));
        }
        let behind: Vec<_> =
            graph.output.iter().filter(|o| !self.is_computed(o.name())).cloned().collect();
        let outputs = graph.output.iter().map(|o| o.name().to_string()).collect();
        let runner = match behind.is_empty() {
            true => None,
            false => {
                let positions = self.position..graph.node.len();
                Some(float_runner(&section(&self.model, positions, inputs, behind), &self.run)?)
            }
        };
        Ok(Rest { runner, outputs })
    }

    fn is_computed(&self, value: &str) -> bool {
        self.batches.first().is_some_and(|b| b.values.contains_key(value))
    }

    /// The values computed so far, with the types that they have.
    fn declared(&self) -> Vec<ValueInfoProto> {
        let first = self.batches.first().map(|b| &b.values);
        let mut declared: Vec<ValueInfoProto> = first
            .into_iter()
            .flatten()
            .map(|(name, tensor)| of_any_shape(name, tensor.data_type()))
            .collect();
        declared.sort_by(|a, b| a.name().cmp(b.name()));
        declared
    }
}

/// Loads a part whose weights may be inputs, for which only the float executor is made.
fn float_runner(model: &Model, run: &RunOptions) -> Result<FloatRunner> {
    FloatRunner::new(model, run).map_err(|source| named(model, source))
}

/// A value of which nothing is known.
fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_string()), ..ValueInfoProto::default() }
}

/// A tensor of this type.
fn of_any_shape(name: &str, data_type: DataType) -> ValueInfoProto {
    let tensor = TensorType { elem_type: Some(data_type as i32), shape: None };
    let value = Some(TypeValue::TensorType(tensor));
    ValueInfoProto { r#type: Some(TypeProto { value, denotation: None }), ..untyped(name) }
}

impl Batch {
    /// What `runner` takes, one of it replaced.
    fn inputs_of(
        &self,
        runner: &FloatRunner,
        replaced: Option<(&str, &Tensor)>,
    ) -> Vec<(String, Tensor)> {
        let value = |name: &str| match replaced {
            Some((fed, tensor)) if fed == name => Some(tensor.clone()),
            _ => self.values.get(name).cloned(),
        };
        let specs = runner.inputs().iter();
        specs.filter_map(|spec| Some((spec.name.clone(), value(&spec.name)?))).collect()
    }
}

impl Batch {
    /// A value that is computed so far.
    pub fn value(&self, name: &str) -> Option<&Tensor> {
        self.values.get(name)
    }
}

impl Rest {
    /// The model's outputs for a batch if `fed` were `tensor`.
    pub fn outputs(&self, batch: &Batch, fed: &str, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let mut computed: HashMap<String, Tensor> = match &self.runner {
            Some(runner) => {
                runner.run(&batch.inputs_of(runner, Some((fed, tensor))))?.into_iter().collect()
            }
            None => HashMap::new(),
        };
        let outputs = self.outputs.iter().filter_map(|name| {
            computed.remove(name).or_else(|| match name == fed {
                true => Some(tensor.clone()),
                false => batch.values.get(name).cloned(),
            })
        });
        Ok(outputs.collect())
    }
}
