//! New nodes and constants.

use super::QWeightWriter;
use crate::proto::{AttributeProto, DataType, NodeProto, TensorProto};

impl QWeightWriter<'_> {
    pub(super) fn reshape(&mut self, value: String, shape: &[i64]) -> String {
        let shape = self.constant("k", |n| TensorProto::from_i64(n, &[shape.len()], shape));
        self.step("Reshape", &[value, shape])
    }

    pub(super) fn cast(&mut self, from: &str, to: DataType, output: &str) {
        let node = NodeProto::new("Cast", &[from], &[output])
            .with(AttributeProto::of_int("to", to as i64));
        self.nodes.push(node);
    }

    pub(super) fn step(&mut self, op: &str, inputs: &[String]) -> String {
        let output = self.names.fresh("u");
        let node = self.node(op, inputs, &output);
        self.nodes.push(node);
        output
    }

    pub(super) fn node(&self, op: &str, inputs: &[String], output: &str) -> NodeProto {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        NodeProto::new(op, &inputs, &[output])
    }

    pub(super) fn constant(
        &mut self,
        prefix: &str,
        make: impl FnOnce(&str) -> TensorProto,
    ) -> String {
        let name = self.names.fresh(prefix);
        self.initializers.push(make(&name));
        name
    }
}
