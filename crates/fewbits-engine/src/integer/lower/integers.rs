//! Arithmetic of 64-bit integers that come from data, which the float executor would hold in 32 bits.
//! What is computed from sizes alone stays with it: sizes fit.

use std::collections::HashSet;

use fewbits_onnx::proto::{DataType, GraphProto, NodeProto};

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::{Refusal, input};
use crate::integer::steps::integers::{
    From, IntegerBinary, IntegerRunningSum, IntegerSum, Operation, Which,
};
use crate::{Result as Loaded, RuntimeError};

/// What else makes integers that may be larger than those it reads.
const GROWS: [&str; 11] = [
    "Cast",
    "CumSum",
    "Einsum",
    "Gemm",
    "MatMul",
    "Pow",
    "ReduceL1",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Sum",
];

/// What is computed of integers.
enum Arithmetic {
    /// Floats, cut off.
    Cast,
    Binary(Operation),
    Sum(Vec<i64>),
    RunningSum(i64),
}

impl<'a> Lowering<'a> {
    /// Chooses the nodes that become steps on 64-bit integers.
    ///
    /// # Errors
    /// If there is none for a node whose integers may be beyond the 32 bits of the float executor.
    pub(crate) fn choose_integer_arithmetic(&mut self) -> Loaded<()> {
        let data = from_data(self.net.graph);
        let of_data = |node: &NodeProto| {
            let long = |name: &String| self.is_long(name) && data.contains(name.as_str());
            node.is_onnx() && !node.output.is_empty() && node.output.iter().all(long)
        };
        let mut chosen = HashSet::new();
        for (position, node) in self.net.graph.node.iter().enumerate() {
            if !of_data(node) {
                continue;
            }
            if self.arithmetic_of(node).is_some() {
                chosen.insert(position);
            } else if GROWS.contains(&node.op_type())
                && node.input.iter().any(|name| self.is_wide(name))
            {
                let (node, op) = (node.label(), node.op_type());
                let what = format!("a {op} of 64-bit integers");
                let reason = format!("node '{node}' is {what}, which the executor does not have");
                return Err(RuntimeError::Load { reason });
            }
        }
        self.integer_arithmetic = chosen;
        Ok(())
    }

    fn is_long(&self, name: &str) -> bool {
        self.types.get(name) == Some(&DataType::Int64)
    }

    /// Whether its numbers may be larger than 32 bits hold.
    fn is_wide(&self, name: &str) -> bool {
        use DataType::{Double, Float, Float16, Int64};
        matches!(self.types.get(name), Some(Int64 | Float | Float16 | Double))
    }

    /// What a node with 64-bit integers as output computes, where a step of ours does.
    fn arithmetic_of(&self, node: &NodeProto) -> Option<Arithmetic> {
        let [first, further @ ..] = node.input.as_slice() else { return None };
        let binary = |operation| {
            let fits = match operation {
                Operation::PowOfFloats => self.is_long(first) && self.is_float(further.first()?),
                _ => node.input.iter().all(|name| self.is_long(name)),
            };
            (fits && further.len() == 1).then_some(Arithmetic::Binary(operation))
        };
        match node.op_type() {
            "Add" => binary(Operation::Add),
            "Sub" => binary(Operation::Sub),
            "Mul" => binary(Operation::Mul),
            "Pow" => binary(Operation::Pow).or_else(|| binary(Operation::PowOfFloats)),
            "Cast" => (self.is_wide(first) && !self.is_long(first)).then_some(Arithmetic::Cast),
            "CumSum" => {
                let [axis] = self.net.ints(further.first()?)?[..] else { return None };
                self.is_long(first).then_some(Arithmetic::RunningSum(axis))
            }
            "ReduceSum" => {
                let axes = match node.given_input(1) {
                    Some(name) => self.net.ints(name)?,
                    None => node.ints("axes").to_vec(),
                };
                let stays = axes.is_empty() && node.int("noop_with_empty_axes", 0) != 0;
                (self.is_long(first) && !stays).then_some(Arithmetic::Sum(axes))
            }
            _ => None,
        }
    }

    /// The 64-bit integers that a node gives, as a step of ours.
    pub(super) fn integer_arithmetic(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        if !self.is_among(&self.integer_arithmetic, node) {
            return Err(Refusal::other());
        }
        let arithmetic = self.arithmetic_of(node).ok_or(Refusal::other())?;
        let first = input(node, 0)?;
        let (what, flag) = (node.op_type(), |name| node.int(name, 0) != 0);
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(first);
            let id =
                match arithmetic {
                    Arithmetic::Cast => lowering.convert(node, DataType::Int64),
                    Arithmetic::Binary(operation) => {
                        let inputs = [input, lowering.tensor(&node.input[1])];
                        lowering.step(Form::Plain, &inputs, what, node, |output| IntegerBinary {
                            inputs,
                            output,
                            operation,
                        })
                    }
                    Arithmetic::Sum(axes) => {
                        let keep_axes = node.int("keepdims", 1) != 0;
                        lowering.step(Form::Plain, &[input], what, node, |output| IntegerSum {
                            input,
                            output,
                            axes,
                            keep_axes,
                        })
                    }
                    Arithmetic::RunningSum(axis) => {
                        let which =
                            if flag("exclusive") { Which::BeforeThis } else { Which::UpToThis };
                        let from = if flag("reverse") { From::Last } else { From::First };
                        lowering.step(Form::Plain, &[input], what, node, |output| {
                            IntegerRunningSum { input, output, axis, which, from }
                        })
                    }
                };
            lowering.ints(id)
        }))
    }

    /// Integers of a step of ours as floats: the sums of a product of bytes, or 64-bit integers.
    pub(super) fn floats_of_integers(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let is_float = node.output.first().is_some_and(|output| self.is_float(output));
        if !is_float || !self.reads_integers_of_ours(node) {
            return Err(Refusal::other());
        }
        Ok(Box::new(move |lowering| lowering.convert(node, DataType::Float)))
    }

    /// Whether a Cast reads integers that are computed by a step of ours.
    fn reads_integers_of_ours(&self, node: &NodeProto) -> bool {
        let producer = node.input.first().and_then(|name| self.net.producer(name));
        producer.filter(|_| node.is("Cast")).is_some_and(|(position, _)| {
            self.integer_products.contains(&position) || self.integer_arithmetic.contains(&position)
        })
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
