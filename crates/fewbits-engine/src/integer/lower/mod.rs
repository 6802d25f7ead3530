//! From an ONNX graph to steps: which nodes become which.
//!
//! Lowering goes backwards from what is needed. Bytes are asked for by the name of the
//! QuantizeLinear that writes them: the node before it is computed on bytes if it can be
//! ([`Lowering::quantized`]), otherwise in floats that a step quantizes. A float value is asked for
//! by its own name ([`Lowering::tensor`]): a product of bytes whose sums become floats, one of our
//! own float steps, or a node that is left to the float executor ("the rest").

mod account;
mod attention;
mod bytes;
mod constant_product;
mod dynamic;
mod elementwise;
mod embedding;
mod float;
mod float_binary;
mod float_images;
mod forms;
mod function;
mod image;
mod integer_product;
mod integers;
mod label;
mod movement;
mod product;
mod reduce;
mod resize;
mod rules;
mod sums;
mod why;

use std::collections::{BTreeSet, HashMap, HashSet};

use fewbits_kernels::{Cpu, Halo};
use fewbits_onnx::facts::ElementTypes;
use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::net::{ByteType, Net};
use crate::integer::program::{AnyStep, Place, Step, Unit};
use crate::integer::refusal::Refusal;
use crate::integer::state::ValueId;
use crate::integer::steps::float_images::Convolution;
use crate::integer::steps::product::Product;

/// How the elements of a value lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// As ONNX orders them.
    Plain,
    /// Bytes of images, channels last, with a halo.
    Image,
}

/// A value while lowering.
pub(crate) struct Known {
    pub form: Form,
    pub halo: Halo,
    /// Whether it holds 64-bit integers.
    pub is_ints: bool,
    /// The unit that computes it.
    pub unit: Option<usize>,
}

/// Bytes and what they mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    pub id: ValueId,
    pub ty: ByteType,
}

/// A graph on its way to a program.
pub(crate) struct Lowering<'a> {
    pub net: Net<'a>,
    pub cpu: Cpu,
    pub types: ElementTypes,
    pub ranks: HashMap<String, usize>,
    pub values: Vec<Known>,
    pub units: Vec<Unit>,
    /// Nodes left to the float executor.
    pub rest: BTreeSet<usize>,
    /// ONNX values as floats, or as whatever the float executor gives.
    pub tensors: HashMap<&'a str, ValueId>,
    bytes: HashMap<&'a str, Result<Bytes, Refusal>>,
    other_form: HashMap<ValueId, ValueId>,
    /// Bytes that stand for several values of the graph.
    pub shared: HashSet<ValueId>,
    /// Outputs of DynamicQuantizeLinear, in the forms in which they are read.
    dynamic: HashMap<(&'a str, Form), ValueId>,
    /// Float nodes that become steps of ours.
    own_float: HashSet<usize>,
    /// Products of bytes that become steps of ours.
    integer_products: HashSet<usize>,
    /// Nodes that become steps on 64-bit integers.
    integer_arithmetic: HashSet<usize>,
    /// Whether an activation in the graph is quantized.
    quantizes: bool,
    /// What the rules answered that did not compute a node.
    refusals: HashMap<usize, Refusal>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(net: Net<'a>, cpu: Cpu) -> Lowering<'a> {
        let types = net.facts.types().clone();
        let sizes = net.facts.sizes().iter();
        let ranks = sizes.map(|(name, dims)| (name.clone(), dims.len())).collect();
        let quantizes = net
            .graph
            .node
            .iter()
            .any(|node| node.is("QuantizeLinear") || node.is("DynamicQuantizeLinear"));
        Lowering {
            net,
            cpu,
            types,
            ranks,
            values: Vec::new(),
            units: Vec::new(),
            rest: BTreeSet::new(),
            tensors: HashMap::new(),
            bytes: HashMap::new(),
            other_form: HashMap::new(),
            shared: HashSet::new(),
            dynamic: HashMap::new(),
            own_float: HashSet::new(),
            integer_products: HashSet::new(),
            integer_arithmetic: HashSet::new(),
            quantizes,
            refusals: HashMap::new(),
        }
    }

    /// A new value.
    pub(crate) fn value(&mut self, form: Form) -> ValueId {
        self.values.push(Known { form, halo: Halo::default(), is_ints: false, unit: None });
        ValueId(self.values.len() as u32 - 1)
    }

    pub(crate) fn form(&self, id: ValueId) -> Form {
        self.values[id.index()].form
    }

    /// Adds a step that computes `output`.
    pub(crate) fn push(
        &mut self,
        step: AnyStep,
        inputs: &[ValueId],
        output: ValueId,
        what: impl Into<String>,
        node: &NodeProto,
    ) {
        self.values[output.index()].unit = Some(self.units.len());
        self.units.push(Unit {
            step,
            inputs: inputs.to_vec(),
            outputs: vec![output],
            shares_memory: false,
            what: what.into(),
            node: node.label().to_string(),
            place: Place::Integers,
            gives: Vec::new(),
            nodes: 0,
            why: Vec::new(),
        });
    }

    /// Adds a step with a new output of `form`.
    pub(crate) fn step<S: Step + 'static>(
        &mut self,
        form: Form,
        inputs: &[ValueId],
        what: impl Into<String>,
        node: &NodeProto,
        make: impl FnOnce(ValueId) -> S,
    ) -> ValueId {
        let output = self.value(form);
        let step = AnyStep::Other(Box::new(make(output)));
        self.push(step, inputs, output, what, node);
        output
    }

    /// Whether `name` is known to be f32.
    pub(crate) fn is_float(&self, name: &str) -> bool {
        self.types.get(name) == Some(&DataType::Float)
    }

    fn rank(&self, name: &str) -> Option<usize> {
        self.ranks.get(name).copied()
    }

    /// Whether a node is one of those at these positions.
    fn is_among(&self, positions: &HashSet<usize>, node: &NodeProto) -> bool {
        let position = node.output.first().and_then(|output| self.net.index.producer(output));
        position.is_some_and(|position| positions.contains(&position))
    }

    /// A value as floats, or as whatever it is if it is no float.
    pub(crate) fn tensor(&mut self, name: &'a str) -> ValueId {
        if let Some(&id) = self.tensors.get(name) {
            return id;
        }
        let id = match self.net.producer(name) {
            Some((position, node)) => match self.own_step(position, node) {
                Some(id) => id,
                None => return self.leave(position, node, name),
            },
            None => self.value(Form::Plain),
        };
        self.tensors.insert(name, id);
        id
    }

    /// The product of matrices that computes `id`, the float value `name`, if nothing else reads it:
    /// more can be done where its sums become floats.
    fn open_product(&mut self, name: &str, id: ValueId) -> Option<&mut Product> {
        self.net.has_one_use(name).then_some(())?;
        // Pixels of a convolution lie in another order than what would be added to them.
        self.product_of(id).filter(|product| product.conv.is_none())
    }

    /// The product that computes `id`.
    fn product_of(&mut self, id: ValueId) -> Option<&mut Product> {
        let unit = self.values[id.index()].unit?;
        match &mut self.units[unit].step {
            AnyStep::Product(product) if product.output == id => Some(product),
            _ => None,
        }
    }

    /// The convolution of floats that computes `id`.
    fn convolution_of(&mut self, id: ValueId) -> Option<&mut Convolution> {
        let unit = self.values[id.index()].unit?;
        match &mut self.units[unit].step {
            AnyStep::Convolution(convolution) if convolution.output == id => Some(convolution),
            _ => None,
        }
    }

    /// Gives the product or convolution of `unit` another output, and says in words what was fused.
    fn fuse(&mut self, from: ValueId, form: Form, what: &str) -> ValueId {
        let output = self.value(form);
        let unit = self.values[from.index()].unit.expect("a unit computes it");
        self.values[output.index()].unit = Some(unit);
        self.units[unit].outputs[0] = output;
        self.units[unit].what.push_str(what);
        match &mut self.units[unit].step {
            AnyStep::Product(product) => product.output = output,
            AnyStep::Convolution(convolution) => convolution.output = output,
            _ => {}
        }
        output
    }

    /// Leaves a node to the float executor.
    fn leave(&mut self, position: usize, node: &'a NodeProto, name: &'a str) -> ValueId {
        let id = self.value(Form::Plain);
        self.tensors.insert(name, id);
        if self.rest.insert(position) {
            let mut inputs = Vec::new();
            node.for_each_use(&mut |input| inputs.push(input));
            // What else it reads is an initializer, or inside a subgraph of its own.
            for input in inputs {
                if self.net.producer(input).is_some() || self.net.is_input(input) {
                    self.tensor(input);
                }
            }
        }
        id
    }
}
