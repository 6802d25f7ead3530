//! Arithmetic of 64-bit integers that come from data, which the other executor would hold in 32 bits.
//! What is computed from sizes alone stays with it: sizes fit.

use std::collections::HashSet;

use fewbits_onnx::proto::{DataType, GraphProto, NodeProto};

use crate::example::{Example, Net, tensor};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{CumSum, CumSumOf, From, IntegerBinary, Op, SumOfIntegers};
use crate::refusal::{Refusal, input};
use crate::rules::floats_of_integers::convert;
use crate::{Result as Loaded, RuntimeError};

pub(crate) const RULE: Rule =
    Rule { name: "integer_arithmetic", takes: Takes::Anywhere(integer_arithmetic), example };

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
    Binary(IntegerBinary),
    Sum(Vec<i64>),
    CumSum(i64),
}

impl<'a> Lowering<'a> {
    /// Chooses the nodes that become steps on 64-bit integers.
    ///
    /// # Errors
    /// If there is none for a node whose integers may be beyond the 32 bits of the float executor.
    pub(crate) fn choose_integer_arithmetic(&mut self) -> Loaded<()> {
        let data = from_data(self.view.graph);
        let of_data = |node: &NodeProto| {
            let long = |name: &String| self.is_long(name) && data.contains(name.as_str());
            node.is_onnx() && !node.output.is_empty() && node.output.iter().all(long)
        };
        let mut chosen = HashSet::new();
        for (position, node) in self.view.graph.node.iter().enumerate() {
            if !of_data(node) {
                continue;
            }
            if self.arithmetic_of(node).is_some() {
                chosen.insert(position);
            } else if GROWS.contains(&node.op_type())
                && !self.is_same(node)
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

    /// Whether it is a Cast of integers of 64 bits, none of which it makes larger.
    fn is_same(&self, node: &NodeProto) -> bool {
        node.is("Cast") && node.input.first().is_some_and(|name| self.is_long(name))
    }

    /// Whether its numbers may be larger than 32 bits hold.
    fn is_wide(&self, name: &str) -> bool {
        use DataType::{Double, Float, Float16, Int64};
        matches!(self.types.get(name), Some(Int64 | Float | Float16 | Double))
    }

    /// What a node with 64-bit integers as output computes, where a step of ours does.
    fn arithmetic_of(&self, node: &NodeProto) -> Option<Arithmetic> {
        let [first, further @ ..] = node.input.as_slice() else { return None };
        let binary = |operator| {
            let fits = match operator {
                IntegerBinary::PowOfFloats => {
                    self.is_long(first) && self.is_float(further.first()?)
                }
                _ => node.input.iter().all(|name| self.is_long(name)),
            };
            (fits && further.len() == 1).then_some(Arithmetic::Binary(operator))
        };
        match node.op_type() {
            "Add" => binary(IntegerBinary::Add),
            "Sub" => binary(IntegerBinary::Sub),
            "Mul" => binary(IntegerBinary::Mul),
            "Pow" => binary(IntegerBinary::Pow).or_else(|| binary(IntegerBinary::PowOfFloats)),
            "Cast" => (self.is_wide(first) && !self.is_long(first)).then_some(Arithmetic::Cast),
            "CumSum" => {
                let [axis] = self.view.ints(further.first()?)?[..] else { return None };
                self.is_long(first).then_some(Arithmetic::CumSum(axis))
            }
            "ReduceSum" => {
                let axes = match node.given_input(1) {
                    Some(name) => self.view.ints(name)?,
                    None => node.ints("axes").to_vec(),
                };
                let stays = axes.is_empty() && node.int("noop_with_empty_axes", 0) != 0;
                (self.is_long(first) && !stays).then_some(Arithmetic::Sum(axes))
            }
            _ => None,
        }
    }
}

/// The 64-bit integers that a node gives, as a step of ours.
fn integer_arithmetic<'a>(
    lowering: &Lowering<'a>,
    node: &'a NodeProto,
) -> Result<Rewrite<'a>, Refusal> {
    if !lowering.is_among(&lowering.integer_arithmetic, node) {
        return Err(Refusal::other());
    }
    let arithmetic = lowering.arithmetic_of(node).ok_or(Refusal::other())?;
    let first = input(node, 0)?;
    let flag = |name| node.int(name, 0) != 0;
    Ok(Box::new(move |lowering| {
        let mut inputs = vec![lowering.tensor(first)];
        let op = match arithmetic {
            Arithmetic::Cast => return convert(lowering, node, DataType::Int64),
            Arithmetic::Binary(operator) => {
                inputs.push(lowering.tensor(&node.input[1]));
                Op::IntegerBinary(operator)
            }
            Arithmetic::Sum(axes) => {
                let keep_axes = node.int("keepdims", 1) != 0;
                Op::SumOfIntegers(SumOfIntegers { axes, keep_axes })
            }
            Arithmetic::CumSum(axis) => Op::CumSum(CumSum {
                axis,
                of: if flag("exclusive") { CumSumOf::BeforeThis } else { CumSumOf::UpToThis },
                from: if flag("reverse") { From::Last } else { From::First },
            }),
        };
        lowering.step(floats(), &inputs, node.op_type(), node, op)
    }))
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

/// Products that 32 bits do not hold.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed(tensor(&[3], vec![1_i64 << 20, -3, 70_000]));
    let y = net.node("Mul", &[&x, &x], &[]);
    net.gives(&y, tensor(&[3], vec![1_i64 << 40, 9, 4_900_000_000]))
}
