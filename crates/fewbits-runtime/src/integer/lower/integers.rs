//! Arithmetic of 64-bit integers that come from data, which the float executor would hold in 32 bits.
//! What is computed from sizes alone stays with it: sizes fit.

use std::collections::HashSet;

use fewbits_onnx::proto::{DataType, GraphProto, NodeProto};

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::Refusal;
use crate::integer::steps::cast::ToFloats;
use crate::integer::steps::integers::{IntegerBinary, Operation};

impl<'a> Lowering<'a> {
    /// Chooses the nodes that become steps on 64-bit integers.
    pub(crate) fn choose_integer_arithmetic(&mut self) {
        let data = from_data(self.net.graph);
        let is_long = |name: &String| self.types.get(name) == Some(&DataType::Int64);
        let nodes = self.net.graph.node.iter().enumerate().filter(|(_, node)| {
            let is_arithmetic = operation_of(node).is_some() && node.input.iter().all(is_long);
            is_arithmetic && node.output.iter().all(|output| data.contains(output.as_str()))
        });
        self.integer_arithmetic = nodes.map(|(position, _)| position).collect();
    }

    /// The 64-bit integers that a node gives, as a step of ours.
    pub(super) fn integer_arithmetic(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let operation = operation_of(node).ok_or(Refusal::other())?;
        let [a, b] = node.input.as_slice() else { return Err(Refusal::other()) };
        if !self.is_among(&self.integer_arithmetic, node) {
            return Err(Refusal::other());
        }
        Ok(Box::new(move |lowering| {
            let inputs = [lowering.tensor(a), lowering.tensor(b)];
            let what = node.op_type();
            let id = lowering.step(Form::Plain, &inputs, what, node, |output| IntegerBinary {
                inputs,
                output,
                operation,
            });
            lowering.ints(id)
        }))
    }

    /// Integers of a step of ours as floats: the sums of a product of bytes, or 64-bit integers.
    pub(super) fn floats_of_integers(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let is_float = node.output.first().is_some_and(|output| self.is_float(output));
        if !is_float || !self.reads_integers_of_ours(node) {
            return Err(Refusal::other());
        }
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[0]);
            let what = "Cast";
            lowering.step(Form::Plain, &[input], what, node, |output| ToFloats { input, output })
        }))
    }

    /// Whether a Cast reads integers that are computed by a step of ours.
    fn reads_integers_of_ours(&self, node: &NodeProto) -> bool {
        let producer = node.input.first().and_then(|name| self.net.producer(name));
        producer.filter(|_| node.is("Cast")).is_some_and(|(position, _)| {
            self.integer_products.contains(&position) || self.integer_arithmetic.contains(&position)
        })
    }
}

fn operation_of(node: &NodeProto) -> Option<Operation> {
    match node.op_type() {
        _ if !node.is_onnx() => None,
        "Add" => Some(Operation::Add),
        "Sub" => Some(Operation::Sub),
        "Mul" => Some(Operation::Mul),
        _ => None,
    }
}

/// The values that depend on what is fed, not on its sizes alone.
fn from_data(graph: &GraphProto) -> HashSet<&str> {
    let mut data: HashSet<&str> = graph.required_inputs().map(|input| input.name()).collect();
    for node in &graph.node {
        let mut depends = false;
        node.for_each_use(&mut |name| depends |= data.contains(name));
        if depends && !node.is("Shape") && !node.is("Size") {
            data.extend(node.output.iter().map(String::as_str));
        }
    }
    data
}
