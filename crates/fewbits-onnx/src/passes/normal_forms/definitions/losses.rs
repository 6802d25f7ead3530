//! Losses of classes.

use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, NodeProto};

/// `NegativeLogLikelihoodLoss`: the negative of what each target finds among the classes.
pub(super) fn negative_log_likelihood(
    node: &NodeProto,
    known: &Known,
    emit: &mut Emit,
) -> Option<()> {
    let (x, target) = (node.given_input(0)?, node.given_input(1)?);
    of_targets(node, x, x, target, known, emit)
}

/// `SoftmaxCrossEntropyLoss`: the same of the logarithms of a softmax, which are an output, too.
pub(super) fn cross_entropy(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (x, target) = (node.given_input(0)?, node.given_input(1)?);
    let logarithms = node.given_output(1).map_or_else(|| emit.fresh(), str::to_string);
    emit.op_as("LogSoftmax", &[x], along(1), &logarithms);
    of_targets(node, &logarithms, x, target, known, emit)
}

/// The loss of logarithms of probabilities, which have the type of `like`.
fn of_targets(
    node: &NodeProto,
    logarithms: &str,
    like: &str,
    target: &str,
    known: &Known,
    emit: &mut Emit,
) -> Option<()> {
    (known.opset >= 13).then_some(())?;
    let (one, zero) = (known.number(1.0, like, emit)?, known.number(0.0, like, emit)?);
    let first_class = known.integer(0, target, emit)?;
    let mut target = target.to_string();
    let is_ignored = match node.attr("ignore_index") {
        Some(index) => {
            let index = known.integer(index.i(), &node.input[1], emit)?;
            let ignored = emit.op("Equal", &[&target, &index]);
            // It need not be a class.
            target = emit.op("Where", &[&ignored, &first_class, &target]);
            Some(ignored)
        }
        None => None,
    };
    let class_axis = emit.ints(&[1]);
    let places = emit.op("Unsqueeze", &[&target, &class_axis]);
    let found = emit.op_with("GatherElements", &[logarithms, &places], along(1));
    let found = emit.op("Squeeze", &[&found, &class_axis]);
    let loss = emit.op("Neg", &[&found]);
    let weights =
        node.given_input(2).map(|weights| emit.op_with("Gather", &[weights, &target], along(0)));
    let weights = match (weights, is_ignored) {
        (Some(weights), Some(ignored)) => Some(emit.op("Where", &[&ignored, &zero, &weights])),
        (None, Some(ignored)) => Some(emit.op("Where", &[&ignored, &zero, &one])),
        (weights, None) => weights,
    };
    let weighted = weights.as_ref().map(|weights| emit.op("Mul", &[&loss, weights]));
    let whole = || vec![AttributeProto::of_int("keepdims", 0)];
    let loss = weighted.unwrap_or(loss);
    let result = node.given_output(0)?;
    match (node.string("reduction", "mean").as_str(), weights) {
        ("none", _) => emit.op_as("Identity", &[&loss], vec![], result),
        ("sum", _) => emit.op_as("ReduceSum", &[&loss], whole(), result),
        ("mean", None) => emit.op_as("ReduceMean", &[&loss], whole(), result),
        ("mean", Some(weights)) => {
            let sum = emit.op_with("ReduceSum", &[&loss], whole());
            let weight = emit.op_with("ReduceSum", &[&weights], whole());
            emit.op_as("Div", &[&sum, &weight], vec![], result);
        }
        _ => return None,
    }
    Some(())
}
