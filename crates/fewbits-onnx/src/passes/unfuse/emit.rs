//! The nodes that a fused one becomes.

use std::collections::HashMap;

use crate::facts::{Dims, ElementTypes};
use crate::graph::Names;
use crate::passes::normal_forms::on_axes;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Why a node stays as it is.
pub(super) type Why = String;

/// Collects what takes the place of one node.
pub(super) struct Emit<'a> {
    /// What the names of values begin with.
    prefix: String,
    pub opset: i64,
    names: &'a mut Names,
    types: &'a ElementTypes,
    sizes: &'a HashMap<String, Dims>,
    /// The nodes and constants so far.
    made: GraphProto,
}

impl<'a> Emit<'a> {
    pub fn new(
        node: &NodeProto,
        opset: i64,
        names: &'a mut Names,
        types: &'a ElementTypes,
        sizes: &'a HashMap<String, Dims>,
    ) -> Emit<'a> {
        let prefix = node.output.first().cloned().unwrap_or_default();
        Emit { prefix, opset, names, types, sizes, made: GraphProto::default() }
    }

    pub fn into_parts(self) -> (Vec<NodeProto>, Vec<TensorProto>) {
        (self.made.node, self.made.initializer)
    }

    /// The number of axes of a value of the graph.
    pub fn rank(&self, value: &str) -> Result<usize, Why> {
        let sizes = self.sizes.get(value);
        sizes.map(Vec::len).ok_or_else(|| format!("the number of axes of '{value}' is not known"))
    }

    /// The size of the last axis of a value of the graph.
    pub fn last_size(&self, value: &str) -> Result<usize, Why> {
        let size = self.sizes.get(value).and_then(|dims| *dims.last()?);
        size.ok_or_else(|| format!("the size of the last axis of '{value}' is not known"))
    }

    /// The type of the first of these values whose type is known.
    pub fn type_of(&self, values: &[&str]) -> Result<DataType, Why> {
        let known = values.iter().find_map(|value| self.types.get(*value).copied());
        known.ok_or_else(|| format!("the element type of '{}' is not known", values[0]))
    }

    /// An operator with one output; returns its name.
    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.op_with(op, inputs, Vec::new())
    }

    /// An operator with attributes.
    pub fn op_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = self.names.fresh(&format!("{}_{}", self.prefix, op.to_lowercase()));
        let given = inputs.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        let node = NodeProto::new(op, &inputs[..given], &[&output]);
        self.made.node.push(attributes.into_iter().fold(node, NodeProto::with));
        output
    }

    /// An operator on axes, which are an attribute or an input.
    pub fn op_on(&mut self, op: &str, input: &str, axes: &[i64]) -> String {
        let output = self.names.fresh(&format!("{}_{}", self.prefix, op.to_lowercase()));
        let node = NodeProto::new(op, &[input], &[&output]);
        let node = on_axes(&mut self.made, self.names, self.opset, node, axes);
        self.made.node.push(node);
        output
    }

    /// A node of the fused one's attributes and name but for those that only the fused one has.
    pub fn op_like(&mut self, op: &str, node: &NodeProto, inputs: &[&str], not: &[&str]) -> String {
        let attributes = node.attribute.iter().filter(|attribute| !not.contains(&attribute.name()));
        self.op_with(op, inputs, attributes.cloned().collect())
    }

    pub fn transpose(&mut self, value: &str, perm: &[i64]) -> String {
        self.op_with("Transpose", &[value], vec![AttributeProto::of_ints("perm", perm)])
    }

    pub fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.op("Reshape", &[value, &shape])
    }

    /// Adds a constant; returns its name.
    pub fn add(&mut self, tensor: TensorProto) -> String {
        let name = self.names.fresh(&format!("{}_constant", self.prefix));
        self.made.initializer.push(TensorProto { name: Some(name.clone()), ..tensor });
        name
    }

    /// A number of a type of floats.
    pub fn float(&mut self, value: f32, data_type: DataType) -> Result<String, Why> {
        let tensor = Some(data_type).filter(|data_type| *data_type != DataType::Bfloat16);
        let tensor = tensor.and_then(|data_type| TensorProto::from_float(value, data_type));
        Ok(self.add(tensor.ok_or_else(|| format!("it computes in {data_type:?}"))?))
    }

    /// The places along the second axis of a value: 0, 1, …
    pub fn places(&mut self, value: &str) -> String {
        let sizes = self.op("Shape", &[value]);
        let [zero, one] = [0, 1].map(|value| self.add(TensorProto::from_i64("", &[], &[value])));
        let count = self.op("Gather", &[&sizes, &one]);
        self.op("Range", &[&zero, &count, &one])
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        self.add(TensorProto::from_i64("", &[values.len()], values))
    }

    /// Lets the node that gives `value` write `output` instead, and those that read it read that.
    pub fn rename(&mut self, value: &str, output: &str) {
        self.made.replace_uses(value, output);
        for name in self.made.node.iter_mut().flat_map(|node| &mut node.output) {
            if name == value {
                *name = output.to_string();
            }
        }
    }

    /// Lets `value` be what `node` gives, and the last node bear its name.
    pub fn finish(&mut self, node: &NodeProto, value: &str) -> Result<(), Why> {
        self.rename(value, node.given_output(0).ok_or("it has no output")?);
        if let Some(last) = self.made.node.last_mut() {
            last.name.clone_from(&node.name);
        }
        Ok(())
    }
}

/// The input number `place` of a node, which it must have.
pub(super) fn input(node: &NodeProto, place: usize) -> Result<&str, Why> {
    node.given_input(place).ok_or_else(|| format!("its input {place} is missing"))
}

/// Fails if the output number `place` is asked for, which is called `what`.
pub(super) fn without_output(node: &NodeProto, place: usize, what: &str) -> Result<(), Why> {
    match node.given_output(place).is_some() {
        true => Err(format!("it gives {what}")),
        false => Ok(()),
    }
}

/// Fails if the input number `place` is given, which is called `what`.
pub(super) fn without_input(node: &NodeProto, place: usize, what: &str) -> Result<(), Why> {
    match node.given_input(place) {
        Some(_) => Err(format!("it takes {what}")),
        None => Ok(()),
    }
}
