//! Every form in which other tools write quantized models becomes one: float operators between
//! `DequantizeLinear` and `QuantizeLinear`.
//!
//! - [`to_qdq`]: operators on integers (`QLinearConv`, `QGemm`, …) become the float operator with
//!   `DequantizeLinear` before and `QuantizeLinear` behind it; products that give floats become
//!   `MatMulInteger` and what scales its sums.
//! - [`unpack_nbits`] and [`unpack_lstm`] are for executors that lack the operator or have a wrong one: less is left
//!   of the quantization behind them, so whoever computes on integers looks for those operators first.
//!
//! To add an operator: a line in `FORMS`, if it is a float operator between the two; a case in the
//! tests, here and in `tests/python/test_foreign_forms.py`.

mod carried;
mod emit;
mod forms;
mod lstm;
mod nbits;
mod products;
#[cfg(test)]
mod tests;
mod weights;

use self::emit::{Emit, Why};
pub use self::lstm::{is_dynamic_lstm, unpack_lstm};
pub use self::nbits::unpack_nbits;
use super::lower_ml::KeptNode;
use super::upgrade_opset::upgrade_opset;
use crate::proto::NodeProto;
use crate::{MICROSOFT, Model};

/// From here on `DequantizeLinear` may have a scale for each channel.
const CHANNELS_OPSET: i64 = 13;

/// What a pass of this folder did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// How many nodes were replaced.
    pub nodes: usize,
    /// The nodes of a form that is known which had to stay as they were.
    pub kept: Vec<KeptNode>,
}

/// What became of one node.
enum Outcome {
    /// The emitted nodes take its place.
    Replaced,
    /// It is none of those that the pass looks for.
    Untouched,
}

/// Brings the quantized operators of the main graph to the form with `QuantizeLinear` and
/// `DequantizeLinear`.
///
/// Values keep their names and types, outputs of the graph included. A model older than opset 13
/// that holds such operators is upgraded to 13, if it can be; otherwise only what has one scale a
/// tensor is rewritten. Constants that nobody reads any more stay for the clean-up.
pub fn to_qdq(model: &mut Model) -> Rewritten {
    let foreign = |n: &NodeProto| forms::find(n).is_some() || products::is_product(n);
    if model.opset() < CHANNELS_OPSET && model.graph().node.iter().any(foreign) {
        // What cannot be upgraded is named below, by the nodes that needed it.
        let _ = upgrade_opset(model, CHANNELS_OPSET);
    }
    rewrite(model, |node, emit| {
        if let Some(form) = forms::find(node) {
            return form.rewrite(node, emit);
        }
        match node.op_type() {
            "QuantizeLinear" | "DequantizeLinear" => forms::rewrite_linear(node, emit),
            _ if products::is_product(node) => products::rewrite(node, emit),
            _ => carried::rewrite(node, emit),
        }
    })
}

/// Replaces the nodes of the main graph, one after the other.
fn rewrite(
    model: &mut Model,
    mut replace: impl FnMut(&NodeProto, &mut Emit) -> Result<Outcome, Why>,
) -> Rewritten {
    let mut report = Rewritten::default();
    let mut emit = Emit::new(model.graph(), model.opset());
    for node in &model.graph().node {
        let before = emit.mark();
        match replace(node, &mut emit) {
            Ok(Outcome::Replaced) => report.nodes += 1,
            Ok(Outcome::Untouched) => {
                emit.back_to(before);
                emit.push(node.clone());
            }
            Err(why) => {
                emit.back_to(before);
                emit.push(node.clone());
                let (node, op) = (node.label().to_string(), node.op_type().to_string());
                report.kept.push(KeptNode { node, op, why });
            }
        }
    }
    let (nodes, mut constants) = emit.into_parts();
    if report.nodes > 0 {
        let graph = model.graph_mut();
        graph.node = nodes;
        graph.initializer.append(&mut constants);
    }
    report
}

/// Whether `node` is an operator of ONNX or of ONNX Runtime.
fn is_known_domain(node: &NodeProto) -> bool {
    node.is_onnx() || node.domain() == MICROSOFT
}

/// The node's input number `n`, which it must have.
fn input(node: &NodeProto, n: usize) -> Result<&str, Why> {
    match optional(node, n) {
        "" => Err(format!("its input {n} is missing; export the model again")),
        name => Ok(name),
    }
}

/// The node's input number `n`, empty if it is absent.
fn optional(node: &NodeProto, n: usize) -> &str {
    node.input.get(n).map_or("", String::as_str)
}

/// The node's first output.
fn output(node: &NodeProto) -> Result<&str, Why> {
    node.output.first().map(String::as_str).ok_or_else(|| "it has no output".to_string())
}
