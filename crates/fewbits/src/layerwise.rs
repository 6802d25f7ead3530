//! Going through a model node by node with the values of some rows, so that what lies before a
//! change is computed once.

use std::collections::HashMap;
use std::ops::Range;

use fewbits_engine::{FloatRunner, RunOptions, Runner, Tensor, input_specs};
use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::section::{live_values, section};
use fewbits_onnx::proto::{
    DataType, TensorProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};

use crate::Result;
use crate::data::Dataset;
use crate::layers::Product;
use crate::run::{call_of, named};

/// Rows at a time.
const BATCH_ROWS: usize = 32;

/// The values that the rest of a model needs, batch by batch, with what is known `about` each.
pub struct LayerwiseRun<T> {
    model: Model,
    run: RunOptions,
    position: usize,
    batches: Vec<Batch<T>>,
}

/// The values of some rows.
pub struct Batch<T> {
    values: HashMap<String, Tensor>,
    rows: usize,
    /// What else is known of the rows.
    pub about: T,
}

/// The inputs of one call.
pub struct Call {
    /// As the model takes them.
    pub inputs: Vec<(String, Tensor)>,
    /// The rows of the data that they hold; none where these are fewer than the model insists on and
    /// come over again.
    pub rows: Option<Range<usize>>,
}

/// The rows of `data` in calls of the model, a last one that is too short for it left out.
pub fn calls(model: &Model, data: &Dataset) -> Result<Vec<Call>> {
    let fixed = input_specs(model.graph()).iter().find_map(|spec| spec.fixed_rows());
    let fixed = fixed.or(data.most_rows_a_call());
    Ok(match fixed {
        Some(fixed) if data.rows() < fixed => {
            vec![Call { inputs: call_of(data, fixed), rows: None }]
        }
        fixed => data
            .batches(fixed.unwrap_or(BATCH_ROWS))
            .filter(|rows| fixed.is_none_or(|fixed| rows.len() == fixed))
            .map(|rows| Call { inputs: data.batch(rows.clone()), rows: Some(rows) })
            .collect(),
    })
}

/// An initializer or a value by its name, and what is taken instead of it.
pub type Fed<'a> = (&'a str, &'a Tensor);

/// What follows a position, ready to run.
pub struct Rest {
    runner: Option<FloatRunner>,
    outputs: Vec<String>,
}

impl<T> LayerwiseRun<T> {
    /// Starts before the first node.
    pub fn new(model: &Model, calls: Vec<(Call, T)>, run: &RunOptions) -> LayerwiseRun<T> {
        let mut model = model.clone();
        model.graph_mut().sort_topologically();
        let batches = calls.into_iter().map(|(call, about)| {
            let rows = call.inputs.first().map_or(0, |(_, input)| input.rows());
            Batch { values: call.inputs.into_iter().collect(), rows, about }
        });
        LayerwiseRun { model, run: run.clone(), position: 0, batches: batches.collect() }
    }

    /// The model, its nodes in the order of the run.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The batches, as far as the run has come.
    pub fn batches(&self) -> &[Batch<T>] {
        &self.batches
    }

    /// Where each of `names` is read first: the node's position, and the name's, in the order in
    /// which the run comes by. What no node reads is left out.
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

    /// The node at `position`, if it is a product and alone reads this weight.
    pub fn product_at(&self, position: usize, weight: &str) -> Option<Product> {
        let graph = self.model.graph();
        Product::of(graph, &Index::new(graph), position).filter(|product| product.weight == weight)
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
                let inputs = batch.inputs_of(&runner, &[]);
                batch.values.extend(runner.run(&inputs)?);
            }
        }
        for batch in &mut self.batches {
            batch.values.retain(|name, _| live.contains(name));
        }
        self.position = position;
        Ok(())
    }

    /// Gives a weight other values for what is computed from here on.
    pub fn set_weight(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        for tensor in self.model.graph_mut().initializer.iter_mut().filter(|t| t.name() == name) {
            *tensor = TensorProto::from_f32(name, shape, values);
        }
    }

    /// What is left of the model, with `fed` as inputs: initializers, or values computed before.
    pub fn rest(&self, fed: &[&str]) -> Result<Rest> {
        let graph = self.model.graph();
        let mut inputs = self.declared();
        for name in fed {
            if inputs.iter().all(|i| i.name() != *name) {
                inputs.push(of_any_shape(name, DataType::Float));
            }
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
pub fn float_runner(model: &Model, run: &RunOptions) -> Result<FloatRunner> {
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

impl<T> Batch<T> {
    /// What `runner` takes, some of it replaced.
    fn inputs_of(&self, runner: &FloatRunner, replaced: &[Fed]) -> Vec<(String, Tensor)> {
        let value = |name: &str| match replaced.iter().find(|(fed, _)| *fed == name) {
            Some((_, tensor)) => Some((*tensor).clone()),
            None => self.values.get(name).cloned(),
        };
        let specs = runner.inputs().iter();
        specs.filter_map(|spec| Some((spec.name.clone(), value(&spec.name)?))).collect()
    }

    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A value that is computed so far.
    pub fn value(&self, name: &str) -> Option<&Tensor> {
        self.values.get(name)
    }
}

impl Rest {
    /// The model's outputs for a batch if all that is `fed` were as given.
    pub fn outputs<T>(&self, batch: &Batch<T>, fed: &[Fed]) -> Result<Vec<Tensor>> {
        let mut computed: HashMap<String, Tensor> = match &self.runner {
            Some(runner) => runner.run(&batch.inputs_of(runner, fed))?.into_iter().collect(),
            None => HashMap::new(),
        };
        let outputs = self.outputs.iter().filter_map(|name| {
            computed.remove(name).or_else(|| match fed.iter().find(|(fed, _)| fed == name) {
                Some((_, tensor)) => Some((*tensor).clone()),
                None => batch.values.get(name).cloned(),
            })
        });
        Ok(outputs.collect())
    }
}
