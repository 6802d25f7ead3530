//! The nodes that take the place of another.

use crate::facts::has_axes_input;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// The nodes in the making.
pub(in crate::passes) struct Emit<'a> {
    names: &'a mut Names,
    /// What the names of values begin with.
    prefix: String,
    nodes: Vec<NodeProto>,
}

impl<'a> Emit<'a> {
    /// Nodes that will write the outputs of `node`; what they give between is called after the first, and `what`.
    pub fn new(node: &NodeProto, what: &str, names: &'a mut Names) -> Emit<'a> {
        let output = node.output.iter().find(|output| !output.is_empty());
        let output = output.map_or("", String::as_str);
        Emit { names, prefix: format!("{output}_{what}"), nodes: Vec::new() }
    }

    pub fn into_nodes(self) -> Vec<NodeProto> {
        self.nodes
    }

    /// Adds a node; returns the name of its output.
    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.op_with(op, inputs, Vec::new())
    }

    /// Adds a node with attributes.
    pub fn op_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = self.fresh();
        self.op_as(op, inputs, attributes, &output);
        output
    }

    /// Adds a node that writes `output`.
    pub fn op_as(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        output: &str,
    ) {
        self.push(NodeProto { attribute: attributes, ..NodeProto::new(op, inputs, &[output]) });
    }

    /// Adds a node as it is.
    pub fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// A name that nothing bears.
    pub fn fresh(&mut self) -> String {
        self.names.fresh(&self.prefix)
    }

    pub fn cast(&mut self, value: &str, to: DataType) -> String {
        self.op_with("Cast", &[value], vec![AttributeProto::of_int("to", to as i64)])
    }

    /// Adds a constant. It is a node, since the product may lie in a subgraph.
    pub fn constant(&mut self, tensor: TensorProto) -> String {
        self.op_with("Constant", &[], vec![AttributeProto::of_tensor("value", tensor)])
    }

    pub fn float(&mut self, value: f32) -> String {
        self.constant(TensorProto::from_f32("", &[], &[value]))
    }

    pub fn floats(&mut self, values: &[f32]) -> String {
        self.constant(TensorProto::from_f32("", &[values.len()], values))
    }

    pub fn int32(&mut self, value: i32) -> String {
        self.constant(TensorProto::from_i32("", &[], &[value]))
    }

    /// A scalar that is a position.
    pub fn index(&mut self, value: i64) -> String {
        self.constant(TensorProto::from_i64("", &[], &[value]))
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant(TensorProto::from_i64("", &[values.len()], values))
    }

    pub fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.op("Reshape", &[value, &shape])
    }

    /// Positions in an array.
    pub fn table(&mut self, dims: &[usize], values: &[i64]) -> String {
        self.constant(TensorProto::from_i64("", dims, values))
    }

    /// Nodes that are added for a graph inside a node, and what else `add` gives.
    pub fn inside<T>(&mut self, add: impl FnOnce(&mut Emit<'a>) -> T) -> (Vec<NodeProto>, T) {
        let outer = std::mem::take(&mut self.nodes);
        let made = add(self);
        (std::mem::replace(&mut self.nodes, outer), made)
    }

    /// Adds a node on some axes, which are an attribute in older opsets.
    pub fn on_axes(
        &mut self,
        op: &str,
        value: &str,
        axes: &[i64],
        opset: i64,
        mut attributes: Vec<AttributeProto>,
    ) -> String {
        if has_axes_input(op, opset) {
            let axes = self.ints(axes);
            return self.op_with(op, &[value, &axes], attributes);
        }
        attributes.push(AttributeProto::of_ints("axes", axes));
        self.op_with(op, &[value], attributes)
    }

    /// Lets the last node write `output`, and carry the name of `node`.
    pub fn finish(&mut self, node: &NodeProto) {
        if let (Some(last), Some(output)) = (self.nodes.last_mut(), node.output.first()) {
            last.output[0].clone_from(output);
            last.name.clone_from(&node.name);
        }
    }
}
