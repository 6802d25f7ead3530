//! Functions of each element.

use super::{Known, along};
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, NodeProto};

/// `Celu`: alpha times the Elu of what is divided by it.
pub(super) fn celu(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let alpha = known.number(node.float("alpha", 1.0), x, emit)?;
    let scaled = emit.op("Div", &[x, &alpha]);
    let elu = emit.op_with("Elu", &[&scaled], vec![AttributeProto::of_float("alpha", 1.0)]);
    emit.op("Mul", &[&alpha, &elu]);
    emit.finish(node);
    Some(())
}

/// `Selu`: gamma times the Elu of alpha.
pub(super) fn selu(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let alpha = node.float("alpha", 1.673_263_2);
    let gamma = known.number(node.float("gamma", 1.050_701), x, emit)?;
    let elu = emit.op_with("Elu", &[x], vec![AttributeProto::of_float("alpha", alpha)]);
    emit.op("Mul", &[&gamma, &elu]);
    emit.finish(node);
    Some(())
}

/// `Shrink`: what is farther from 0 than lambd, nearer to it by the bias.
pub(super) fn shrink(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let (far, bias) = (node.float("lambd", 0.5), node.float("bias", 0.0));
    let above = known.number(far, x, emit)?;
    let below = known.number(-far, x, emit)?;
    let zero = known.number(0.0, x, emit)?;
    let bias = known.number(bias, x, emit)?;
    let (is_above, is_below) = (emit.op("Greater", &[x, &above]), emit.op("Less", &[x, &below]));
    let (less, more) = (emit.op("Sub", &[x, &bias]), emit.op("Add", &[x, &bias]));
    let rest = emit.op("Where", &[&is_above, &less, &zero]);
    emit.op("Where", &[&is_below, &more, &rest]);
    emit.finish(node);
    Some(())
}

/// `ThresholdedRelu`: 0 up to alpha.
pub(super) fn thresholded_relu(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let alpha = known.number(node.float("alpha", 1.0), x, emit)?;
    let zero = known.number(0.0, x, emit)?;
    let is_above = emit.op("Greater", &[x, &alpha]);
    emit.op("Where", &[&is_above, x, &zero]);
    emit.finish(node);
    Some(())
}

/// `Mish`: times the Tanh of the Softplus.
pub(super) fn mish(node: &NodeProto, _: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    let soft = emit.op("Softplus", &[x]);
    let gate = emit.op("Tanh", &[&soft]);
    emit.op("Mul", &[x, &gate]);
    emit.finish(node);
    Some(())
}

/// `SwiGLU`: one half times the Swish of the other.
pub(super) fn swiglu(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let (a, b) = (node.given_input(0)?, node.given_input(1)?);
    let alpha = known.number(node.float("alpha", 1.0), a, emit)?;
    let scaled = emit.op("Mul", &[a, &alpha]);
    let gate = emit.op("Sigmoid", &[&scaled]);
    let swish = emit.op("Mul", &[a, &gate]);
    emit.op("Mul", &[&swish, b]);
    emit.finish(node);
    Some(())
}

/// `Hardmax` along an axis: 1 where the first of the largest elements is.
pub(super) fn hardmax(node: &NodeProto, known: &Known, emit: &mut Emit) -> Option<()> {
    let x = node.given_input(0)?;
    (known.opset >= 13 && known.data_type(x)? == DataType::Float).then_some(())?;
    let rank = known.rank(x)?;
    let axis = node.int("axis", -1);
    let axis = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&axis).then_some(())?;
    let first = vec![AttributeProto::of_int("axis", axis), AttributeProto::of_int("keepdims", 0)];
    let place = emit.op_with("ArgMax", &[x], first);
    let (shape, at) = (emit.op("Shape", &[x]), emit.index(axis));
    let size = emit.op_with("Gather", &[&shape, &at], along(0));
    let off_and_on = emit.floats(&[0.0, 1.0]);
    emit.op_with("OneHot", &[&place, &size, &off_and_on], along(axis));
    emit.finish(node);
    Some(())
}
