//! The walk from an ONNX graph to steps: which nodes become which.
//!
//! Lowering goes backwards from what is needed. Bytes are asked for by the name of the
//! QuantizeLinear that writes them: the node before it is computed on bytes if it can be
//! ([`Lowering::quantized`]), otherwise in floats that a step quantizes. A float value is asked for
//! by its own name ([`Lowering::tensor`]): a product of bytes whose sums become floats, one of our
//! own float steps, or a node that is left to another executor ("the rest"). How a node becomes a step
//! is what the rules say that it is given.

mod account;
mod ask;
mod bytes;
mod layout;
mod movement;
mod rule;
mod sums;
mod why;
pub(crate) mod window;

use std::collections::{BTreeSet, HashMap, HashSet};

use fewbits_onnx::facts::ElementTypes;
use fewbits_onnx::proto::{DataType, NodeProto};

use crate::op::{ByteScale, FloatConv, Op, Product};
use crate::program::{Backend, Layout, Quantization, Step, Value, ValueId};
use crate::refusal::Refusal;
use crate::view::{ByteType, GraphView};

pub(crate) use layout::table_of;
pub(crate) use movement::{VIEWS, permutation};
pub(crate) use rule::{Rewrite, Rule, Takes, Wanted};
pub(crate) use sums::{Bias, Sums};

/// Bytes and what they mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    pub id: ValueId,
    pub ty: ByteType,
}

/// A value of floats, or of whatever ONNX has there.
pub(crate) fn floats() -> Value {
    Value::default()
}

/// A value of bytes.
pub(crate) fn bytes(scale: ByteScale, layout: Layout) -> Value {
    Value { layout, quantization: Some(Quantization::Static(scale)), ..Value::default() }
}

/// A graph on its way to a program.
pub(crate) struct Lowering<'a> {
    pub view: GraphView<'a>,
    /// In the order in which they are tried.
    rules: &'static [Rule],
    pub types: ElementTypes,
    pub ranks: HashMap<String, usize>,
    pub values: Vec<Value>,
    /// The step that computes each value.
    pub step_of: Vec<Option<usize>>,
    pub steps: Vec<Step>,
    /// Nodes left to another executor.
    pub rest: BTreeSet<usize>,
    /// ONNX values as floats, or as whatever the other executor gives.
    pub tensors: HashMap<&'a str, ValueId>,
    bytes: HashMap<&'a str, Result<Bytes, Refusal>>,
    /// The same bytes in the other layout.
    other_layout: HashMap<ValueId, ValueId>,
    /// Bytes that stand for several values of the graph.
    pub shared: HashSet<ValueId>,
    /// Outputs of DynamicQuantizeLinear, and whether their channels are last.
    pub dynamic: HashMap<(&'a str, bool), ValueId>,
    /// Float nodes that become steps of ours.
    pub own_float: HashSet<usize>,
    /// Products of bytes that become steps of ours.
    pub integer_products: HashSet<usize>,
    /// Nodes that become steps on 64-bit integers.
    pub integer_arithmetic: HashSet<usize>,
    /// Whether an activation in the graph is quantized.
    pub quantizes: bool,
    /// The rule that is tried.
    pub rule: Option<&'static str>,
    /// What the rules answered that did not compute a node.
    refusals: HashMap<usize, Refusal>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(view: GraphView<'a>, rules: &'static [Rule]) -> Lowering<'a> {
        let types = view.facts.types().clone();
        let sizes = view.facts.sizes().iter();
        let ranks = sizes.map(|(name, dims)| (name.clone(), dims.len())).collect();
        let quantizes = view
            .graph
            .node
            .iter()
            .any(|node| node.is("QuantizeLinear") || node.is("DynamicQuantizeLinear"));
        Lowering {
            view,
            rules,
            types,
            ranks,
            values: Vec::new(),
            step_of: Vec::new(),
            steps: Vec::new(),
            rest: BTreeSet::new(),
            tensors: HashMap::new(),
            bytes: HashMap::new(),
            other_layout: HashMap::new(),
            shared: HashSet::new(),
            dynamic: HashMap::new(),
            own_float: HashSet::new(),
            integer_products: HashSet::new(),
            integer_arithmetic: HashSet::new(),
            quantizes,
            rule: None,
            refusals: HashMap::new(),
        }
    }

    /// Adds a value.
    pub(crate) fn value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        self.step_of.push(None);
        ValueId(self.values.len() as u32 - 1)
    }

    pub(crate) fn layout(&self, id: ValueId) -> Layout {
        self.values[id.index()].layout
    }

    /// Adds a step with a new output.
    pub(crate) fn step(
        &mut self,
        output: Value,
        inputs: &[ValueId],
        what: impl Into<String>,
        node: &NodeProto,
        op: Op,
    ) -> ValueId {
        let output = self.value(output);
        self.step_of[output.index()] = Some(self.steps.len());
        self.steps.push(Step {
            op,
            inputs: inputs.to_vec(),
            outputs: vec![output],
            what: what.into(),
            node: node.label().to_string(),
            rule: self.rule.map(str::to_string),
            backend: Backend::Integers,
            nodes: 0,
            why: Vec::new(),
        });
        output
    }

    /// Gives the last step a further output, which it may compute on the way.
    pub(crate) fn further_output(&mut self, value: Value) {
        let id = self.value(value);
        if let Some(step) = self.steps.last_mut() {
            step.outputs.push(id);
        }
    }

    /// Whether `name` is known to be f32.
    pub(crate) fn is_float(&self, name: &str) -> bool {
        self.types.get(name) == Some(&DataType::Float)
    }

    pub(crate) fn rank(&self, name: &str) -> Option<usize> {
        self.ranks.get(name).copied()
    }

    /// Whether a node is one of those at these positions.
    pub(crate) fn is_among(&self, positions: &HashSet<usize>, node: &NodeProto) -> bool {
        let position = node.output.first().and_then(|output| self.view.index.producer(output));
        position.is_some_and(|position| positions.contains(&position))
    }

    /// A value as floats, or as whatever it is if it is no float.
    pub(crate) fn tensor(&mut self, name: &'a str) -> ValueId {
        if let Some(&id) = self.tensors.get(name) {
            return id;
        }
        let id = match self.view.producer(name) {
            Some((position, node)) => match self.own_step(position, node) {
                Some(id) => id,
                None => return self.leave(position, node, name),
            },
            None => self.value(floats()),
        };
        self.tensors.insert(name, id);
        id
    }

    /// The product of matrices that computes `id`, the float value `name`, if nothing else reads it:
    /// more can be done where its sums become floats.
    pub(crate) fn open_product(&mut self, name: &str, id: ValueId) -> Option<&mut Product> {
        self.view.has_one_use(name).then_some(())?;
        // Pixels of a convolution lie in another order than what would be added to them.
        match self.op_of(id)? {
            Op::MatMul(product) => Some(product),
            _ => None,
        }
    }

    /// The product, of matrices or a convolution, that computes `id`.
    pub(crate) fn product_of(&mut self, id: ValueId) -> Option<&mut Product> {
        match self.op_of(id)? {
            Op::MatMul(product) => Some(product),
            Op::Conv(conv) => Some(&mut conv.product),
            _ => None,
        }
    }

    /// The convolution of floats that computes `id`.
    pub(crate) fn convolution_of(&mut self, id: ValueId) -> Option<&mut FloatConv> {
        match self.op_of(id)? {
            Op::FloatConv(conv) => Some(conv),
            _ => None,
        }
    }

    /// What computes `id` as its first output.
    fn op_of(&mut self, id: ValueId) -> Option<&mut Op> {
        let step = &mut self.steps[self.step_of[id.index()]?];
        (step.outputs[0] == id).then_some(&mut step.op)
    }

    /// Gives the step that computes `from` another output, and says in words what was fused.
    pub(crate) fn fuse(&mut self, from: ValueId, value: Value, what: &str) -> ValueId {
        let output = self.value(value);
        let step = self.step_of[from.index()].expect("a step computes it");
        self.step_of[output.index()] = Some(step);
        self.steps[step].outputs[0] = output;
        self.steps[step].what.push_str(what);
        output
    }

    /// Leaves a node to another executor.
    fn leave(&mut self, position: usize, node: &'a NodeProto, name: &'a str) -> ValueId {
        let id = self.value(floats());
        self.tensors.insert(name, id);
        if self.rest.insert(position) {
            let mut inputs = Vec::new();
            node.for_each_use(&mut |input| inputs.push(input));
            // What else it reads is an initializer, or inside a subgraph of its own.
            for input in inputs {
                if self.view.producer(input).is_some() || self.view.is_input(input) {
                    self.tensor(input);
                }
            }
        }
        id
    }
}
