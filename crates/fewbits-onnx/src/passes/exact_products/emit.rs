//! The nodes that take the place of a product.

use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

/// The nodes in the making.
pub(super) struct Emit<'a> {
    names: &'a mut Names,
    /// What the names of values begin with.
    prefix: String,
    nodes: Vec<NodeProto>,
}

impl<'a> Emit<'a> {
    /// Nodes that will write the output of `node`.
    pub fn new(node: &NodeProto, names: &'a mut Names) -> Emit<'a> {
        let output = node.output.first().map_or("", String::as_str);
        Emit { names, prefix: format!("{output}_exact"), nodes: Vec::new() }
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
        let output = self.names.fresh(&self.prefix);
        let mut node = NodeProto::new(op, inputs, &[&output]);
        node.attribute = attributes;
        self.nodes.push(node);
        output
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

    pub fn int32(&mut self, value: i32) -> String {
        self.constant(TensorProto::from_i32("", &[], &[value]))
    }

    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant(TensorProto::from_i64("", &[values.len()], values))
    }

    pub fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.op("Reshape", &[value, &shape])
    }

    /// Lets the last node write `output`, and carry the name of `node`.
    pub fn finish(&mut self, node: &NodeProto) {
        if let (Some(last), Some(output)) = (self.nodes.last_mut(), node.output.first()) {
            last.output[0].clone_from(output);
            last.name.clone_from(&node.name);
        }
    }
}
