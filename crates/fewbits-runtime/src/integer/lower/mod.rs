//! From an ONNX graph to steps: which nodes become which.
//!
//! Lowering goes backwards from what is needed. Bytes are asked for by the name of the
//! QuantizeLinear that writes them: the node before it is computed on bytes if it can be
//! ([`Lowering::quantized`]), otherwise in floats that a step quantizes. A float value is asked for
//! by its own name ([`Lowering::tensor`]): a product of bytes whose sums become floats, one of our
//! own float steps, or a node that is left to the float executor ("the rest").

mod attention;
mod constant_product;
mod dynamic;
mod elementwise;
mod embedding;
mod float;
mod float_images;
mod function;
mod image;
mod integer_product;
mod integers;
mod label;
mod movement;
mod product;
mod why;

use std::collections::{BTreeSet, HashMap, HashSet};

use fewbits_kernels::bytes::QuantizeTo;
use fewbits_kernels::{Cpu, Halo};
use fewbits_onnx::facts::ElementTypes;
use fewbits_onnx::proto::{DataType, NodeProto};
use fewbits_onnx::qweight::is_mat_mul_n_bits;

use crate::integer::lower::function::name_of;
use crate::integer::net::{ByteType, Net};
use crate::integer::program::{AnyStep, Place, Step, Unit};
use crate::integer::state::{ByteScale, ValueId};
use crate::integer::steps::float_images::Convolution;
use crate::integer::steps::product::{Epilogue, Product};
use crate::integer::steps::quantize::{Dequantize, GiveOut, LookUp, Quantize, Reorder};

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
    bytes: HashMap<&'a str, Option<Bytes>>,
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
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(net: Net<'a>, cpu: Cpu) -> Lowering<'a> {
        let types = net.facts.types().clone();
        let sizes = net.facts.sizes().iter();
        let ranks = sizes.map(|(name, dims)| (name.clone(), dims.len())).collect();
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

    /// The bytes that the QuantizeLinear with output `q` writes.
    pub(crate) fn quantized(&mut self, q: &'a str) -> Option<Bytes> {
        if let Some(known) = self.bytes.get(q) {
            return *known;
        }
        let bytes = self.quantized_anew(q);
        self.bytes.insert(q, bytes);
        bytes
    }

    fn quantized_anew(&mut self, q: &'a str) -> Option<Bytes> {
        let (_, node) = self.net.producer(q).filter(|(_, n)| n.is("QuantizeLinear"))?;
        let ty = self.net.byte_type(node)?;
        let float = node.input[0].as_str();
        if !self.is_float(float) {
            return None;
        }
        if self.net.has_one_use(float)
            && let Some(id) = self.computed_on_bytes(float, ty)
        {
            return Some(Bytes { id, ty });
        }
        let input = self.tensor(float);
        let to = QuantizeTo::all_bytes(ty.scale.scale, ty.scale.zero_point);
        if let Some(product) = self.open_product(float, input)
            && let Epilogue::Floats { quantize: quantize @ None, .. } = &mut product.epilogue
        {
            *quantize = Some(to);
            return Some(Bytes { id: self.fuse(input, Form::Plain, " + QuantizeLinear"), ty });
        }
        Some(Bytes { id: self.quantize(input, ty, Form::Plain, node), ty })
    }

    fn quantize(&mut self, input: ValueId, ty: ByteType, form: Form, node: &NodeProto) -> ValueId {
        let output = self.value(form);
        let step = AnyStep::Quantize(Quantize { input, output, scale: ty.scale, form });
        self.push(step, &[input], output, "QuantizeLinear", node);
        output
    }

    /// Computes the float value `name`, which a QuantizeLinear alone reads, as its bytes, if what
    /// produces it can be computed on bytes.
    fn computed_on_bytes(&mut self, name: &'a str, ty: ByteType) -> Option<ValueId> {
        let mut to = QuantizeTo::all_bytes(ty.scale.scale, ty.scale.zero_point);
        let mut name = name;
        let mut behind = String::new();
        loop {
            let (_, node) = self.net.producer(name)?;
            let Some((low, high)) = self.clip_bounds(node) else {
                return self.node_on_bytes(name, node, to, &behind);
            };
            // Rounding is monotone: clipping before it is the same as clipping its result.
            let (low, high) = (low.map(|x| to.byte(x)), high.map(|x| to.byte(x)));
            to.low = to.low.max(low.unwrap_or(0));
            to.high = to.high.min(high.unwrap_or(255));
            name = node.input[0].as_str();
            if to.low > to.high || !(self.net.has_one_use(name) || self.is_source(name)) {
                return None;
            }
            behind = format!(" + {}{behind}", node.op_type());
        }
    }

    fn node_on_bytes(
        &mut self,
        name: &'a str,
        node: &'a NodeProto,
        to: QuantizeTo,
        behind: &str,
    ) -> Option<ValueId> {
        if !node.is_onnx() {
            return None;
        }
        match node.op_type() {
            "DequantizeLinear" => {
                let from = self.source(name)?;
                Some(self.requantized(from, to, node))
            }
            "Conv" => self.convolution_to_bytes(node, to, behind),
            "MatMul" | "Gemm" => self.matrix_to_bytes(node, to, behind),
            "Add" => {
                self.matrix_to_bytes(node, to, behind).or_else(|| self.binary(node, to, behind))
            }
            "Mul" => self.function_table(node, to).or_else(|| self.binary(node, to, behind)),
            "MaxPool" | "AveragePool" | "GlobalAveragePool" => self.pool(node, to, behind),
            "Concat" => self.concat(node, to),
            _ => self.function_table(node, to).or_else(|| {
                let from = self.moved(node)?;
                Some(self.requantized(from, to, node))
            }),
        }
    }

    /// A function of each byte, as a table of its 256 values.
    fn function_table(&mut self, node: &'a NodeProto, to: QuantizeTo) -> Option<ValueId> {
        let (function, name) = self.function_at(node)?;
        let from = self.source(name)?;
        let table = table_of(from.ty.scale, to, |x| function.at(x));
        let what = format!("{} by a table", name_of(function, node));
        Some(self.looked_up(from.id, table, to.zero_point, what, node))
    }

    fn is_source(&self, name: &str) -> bool {
        self.net.producer(name).is_some_and(|(_, n)| n.is("DequantizeLinear"))
    }

    /// The bounds of a Relu or a Clip with constant ones.
    fn clip_bounds(&self, node: &NodeProto) -> Option<(Option<f32>, Option<f32>)> {
        if node.is("Relu") {
            return Some((Some(0.0), None));
        }
        if !node.is("Clip") {
            return None;
        }
        let bound = |i: usize, name: &str| match node.input.get(i).map_or("", String::as_str) {
            "" => Some(node.attr(name).map(|a| a.f())),
            input => self.net.scalar(input).map(Some),
        };
        Some((bound(1, "min")?, bound(2, "max")?))
    }

    /// The bytes behind a float value: it is a DequantizeLinear, or moves elements of one.
    pub(crate) fn source(&mut self, float: &'a str) -> Option<Bytes> {
        if let Some(known) = self.bytes.get(float) {
            return *known;
        }
        let (_, node) = self.net.producer(float)?;
        let bytes = if node.is("DequantizeLinear") {
            let ty = self.net.byte_type(node)?;
            let bytes = self.quantized(node.input[0].as_str());
            bytes.filter(|b| b.ty.signed == ty.signed).map(|b| self.with_meaning(b, ty, node))
        } else {
            self.moved(node)
        };
        self.bytes.insert(float, bytes);
        bytes
    }

    /// The same bytes with the scale and zero point that a DequantizeLinear gives them: copied if
    /// these are others, since the halo of an image holds its zero point.
    fn with_meaning(&mut self, bytes: Bytes, ty: ByteType, node: &NodeProto) -> Bytes {
        if bytes.ty == ty {
            return bytes;
        }
        let table = Box::new(std::array::from_fn(|q| q as u8));
        let what = "requantize".to_string();
        Bytes { id: self.looked_up(bytes.id, table, ty.scale.zero_point, what, node), ty }
    }

    /// A value as floats, or as whatever it is if it is no float.
    pub(crate) fn tensor(&mut self, name: &'a str) -> ValueId {
        if let Some(&id) = self.tensors.get(name) {
            return id;
        }
        let id = match self.net.producer(name) {
            Some((position, node)) => {
                match self.own_step(name, node).or_else(|| self.given_out(name, node)) {
                    Some(id) => id,
                    None => return self.leave(position, node, name),
                }
            }
            None => self.value(Form::Plain),
        };
        self.tensors.insert(name, id);
        id
    }

    /// One of our own steps that computes `name` as floats, or as labels.
    fn own_step(&mut self, name: &'a str, node: &'a NodeProto) -> Option<ValueId> {
        if is_mat_mul_n_bits(node) {
            return self.float_product(node);
        }
        if !node.is_onnx() {
            return None;
        }
        if !self.is_float(name) {
            return self
                .integer_product(name, node)
                .or_else(|| self.integer_arithmetic(name, node))
                .or_else(|| self.label(name, node));
        }
        match node.op_type() {
            "DequantizeLinear" => {
                let Bytes { id: input, ty } = self.source(name)?;
                let form = self.form(input);
                Some(self.step(Form::Plain, &[input], "DequantizeLinear", node, |output| {
                    Dequantize { input, output, scale: ty.scale, form }
                }))
            }
            "MatMul" | "Gemm" | "Add" => self
                .matrix_to_floats(node)
                .or_else(|| self.float_product(node))
                .or_else(|| self.dynamic_convolution_with_bias(node))
                .or_else(|| self.float_node(name, node)),
            "Mul" => self.dynamic_product(node).or_else(|| self.float_node(name, node)),
            "Cast" => self.floats_of_integers(node).or_else(|| self.float_node(name, node)),
            _ => self.float_node(name, node),
        }
    }

    /// The bytes of a QuantizeLinear as ONNX has them, for what is no step of ours: what is before
    /// it is computed once, so that it may be fused.
    fn given_out(&mut self, name: &'a str, node: &'a NodeProto) -> Option<ValueId> {
        let Bytes { id: input, ty } = self.quantized(name)?;
        let form = self.form(input);
        Some(self.step(Form::Plain, &[input], "QuantizeLinear", node, |output| GiveOut {
            input,
            output,
            signed: ty.signed,
            form,
        }))
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

    /// The value as images, channels last, with at least `halo` around them.
    pub(crate) fn as_image(&mut self, bytes: Bytes, halo: Halo, node: &NodeProto) -> ValueId {
        let image = self.in_form(bytes, Form::Image, node);
        self.widen_halo(image, halo);
        image
    }

    /// Makes sure that an image has at least `halo` around it.
    pub(crate) fn widen_halo(&mut self, image: ValueId, halo: Halo) {
        let known = &mut self.values[image.index()];
        known.halo = known.halo.union(halo);
    }

    /// The value in the order of ONNX, or as images.
    pub(crate) fn in_form(&mut self, bytes: Bytes, form: Form, node: &NodeProto) -> ValueId {
        let Bytes { id, ty } = bytes;
        if self.form(id) == form {
            return id;
        }
        if let Some(&other) = self.other_form.get(&id) {
            return other;
        }
        let unit = self.values[id.index()].unit.map(|unit| &self.units[unit].step);
        let other = match unit {
            // Floats are quantized straight into the order that is wanted.
            Some(AnyStep::Quantize(quantize)) => {
                let input = quantize.input;
                self.quantize(input, ty, form, node)
            }
            _ => {
                let what = match form {
                    Form::Image => "to channels last",
                    Form::Plain => "to channels first",
                };
                let halo = ty.scale.zero_point;
                self.step(form, &[id], what, node, |output| Reorder {
                    input: id,
                    output,
                    to: form,
                    halo,
                })
            }
        };
        self.other_form.insert(id, other);
        other
    }

    /// Bytes `from` as bytes `to`, by a table unless they are the same.
    pub(crate) fn requantized(&mut self, from: Bytes, to: QuantizeTo, node: &NodeProto) -> ValueId {
        let same = QuantizeTo::all_bytes(from.ty.scale.scale, from.ty.scale.zero_point);
        if to == same {
            self.shared.insert(from.id);
            return from.id;
        }
        let table = table_of(from.ty.scale, to, |x| x);
        self.looked_up(from.id, table, to.zero_point, "requantize".to_string(), node)
    }

    fn looked_up(
        &mut self,
        input: ValueId,
        table: Box<[u8; 256]>,
        halo: u8,
        what: String,
        node: &NodeProto,
    ) -> ValueId {
        let form = self.form(input);
        self.step(form, &[input], what, node, |output| LookUp { input, output, table, form, halo })
    }
}

/// What becomes of each byte of the scale `from`.
fn table_of(from: ByteScale, to: QuantizeTo, function: impl Fn(f32) -> f32) -> Box<[u8; 256]> {
    let real = |q: u8| (f32::from(q) - f32::from(from.zero_point)) * from.scale;
    Box::new(std::array::from_fn(|q| to.byte(function(real(q as u8)))))
}
