//! `DynamicQuantizeLSTM` as an `LSTM` of floats.

use super::emit::{Emit, Why};
use super::{Outcome, Rewritten, input, optional, rewrite};
use crate::MICROSOFT;
use crate::Model;
use crate::proto::{NodeProto, TensorProto};

/// The inputs of an `LSTM`; those of a `DynamicQuantizeLSTM` go on with the parameters of its weights.
const LSTM_INPUTS: usize = 8;

/// Replaces every `DynamicQuantizeLSTM` of the main graph by an `LSTM` with the floats that its integers stand for:
/// for executors whose products of bytes saturate. Its activations are not rounded, so the answers are closer to those
/// of the float model than the file's own.
pub fn unpack_lstm(model: &mut Model) -> Rewritten {
    rewrite(model, |node, emit| match is_dynamic_lstm(node) {
        true => replace(node, emit),
        false => Ok(Outcome::Untouched),
    })
}

/// Whether `node` is an LSTM whose products are of bytes.
pub fn is_dynamic_lstm(node: &NodeProto) -> bool {
    node.domain() == MICROSOFT && node.op_type() == "DynamicQuantizeLSTM"
}

fn replace(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let mut inputs: Vec<String> = (0..LSTM_INPUTS).map(|n| optional(node, n).to_string()).collect();
    for (at, scale) in [(1, LSTM_INPUTS), (2, LSTM_INPUTS + 2)] {
        let constant = |n: usize| {
            let name = input(node, n)?;
            emit.constant(name).ok_or_else(|| format!("its input '{name}' is not constant"))
        };
        let (codes, scales) = (constant(at)?, constant(scale)?);
        let zero_point = match optional(node, scale + 1) {
            "" => None,
            _ => Some(constant(scale + 1)?),
        };
        let weight = unpack(codes, scales, zero_point)
            .ok_or("its weights and their scales do not fit; export the model again")?;
        inputs[at] = emit.add(weight);
    }
    while inputs.last().is_some_and(String::is_empty) {
        inputs.pop();
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let outputs: Vec<&str> = node.output.iter().map(String::as_str).collect();
    let mut lstm = NodeProto::new("LSTM", &inputs, &outputs);
    lstm.name.clone_from(&node.name);
    lstm.attribute.clone_from(&node.attribute);
    emit.push(lstm);
    Ok(Outcome::Replaced)
}

/// The weights `[directions, inputs, gates]` as floats `[directions, gates, inputs]`, with a scale and a zero point for
/// each direction, or each gate of it.
fn unpack(
    weight: &TensorProto,
    scale: &TensorProto,
    zero_point: Option<&TensorProto>,
) -> Option<TensorProto> {
    let [directions, inputs, gates] = weight.shape().ok()?[..] else { return None };
    let (codes, scales) = (weight.ints().ok()?, scale.floats().ok()?);
    let zero_points = match zero_point {
        None => vec![0; scales.len()],
        Some(tensor) => tensor.ints().ok()?,
    };
    let each = [directions, directions.checked_mul(gates)?].contains(&scales.len());
    if !each || zero_points.len() != scales.len() || codes.len() != directions * inputs * gates {
        return None;
    }
    let of_direction = scales.len() / directions.max(1);
    let mut floats = Vec::with_capacity(codes.len());
    for direction in 0..directions {
        for gate in 0..gates {
            let at = direction * of_direction + gate % of_direction;
            let code = |i: usize| codes[(direction * inputs + i) * gates + gate];
            floats.extend((0..inputs).map(|i| (code(i) - zero_points[at]) as f32 * scales[at]));
        }
    }
    Some(TensorProto::from_f32("w", &[directions, gates, inputs], &floats))
}
