//! `ConvInteger` as a float convolution.

use super::emit::{Emit, Why};
use super::{Outcome, Rewritten, input, optional, output, rewrite};
use crate::Model;
use crate::proto::{DataType, NodeProto, TensorProto};

/// Replaces every `ConvInteger` of the main graph by a `Conv` of what its integers stand for, and a
/// `Cast` of the sums: for executors without a right one of their own. (rten 0.27 pads with the
/// integer 0 where the zero point is meant.)
///
/// The sums are the same up to a magnitude of 2^24, below which floats hold every integer: with
/// 8-bit weights around zero and 8-bit inputs any sum of up to 514 products is. Beyond, each
/// addition rounds, by 2^-24 of the sum.
pub fn integer_convolutions_to_float(model: &mut Model) -> Rewritten {
    rewrite(model, |node, emit| match node.is("ConvInteger") {
        true => replace(node, emit),
        false => Ok(Outcome::Untouched),
    })
}

fn replace(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let (result, x, w) = (output(node)?, input(node, 0)?, input(node, 1)?);
    let x = centered(x, optional(node, 2), emit);
    let zero_point = optional(node, 3);
    let w = match (emit.constant(w), emit.constant(zero_point)) {
        (Some(w), z) if z.is_some() || zero_point.is_empty() => {
            let floats = centered_constant(w, z)
                .ok_or("its weight or the weight's zero point has a wrong type or shape")?;
            emit.add(floats)
        }
        _ if emit.rank(zero_point) == Some(0) || zero_point.is_empty() => {
            centered(w, zero_point, emit)
        }
        _ => return Err("its weight and the weight's zero point are not constant".into()),
    };
    let sums = emit.op("Conv", &[&x, &w], "f", node.attribute.clone());
    emit.name_after(node);
    emit.cast(&sums, DataType::Int32);
    emit.finish(result);
    Ok(Outcome::Replaced)
}

/// `x - zero_point` as floats.
fn centered(x: &str, zero_point: &str, emit: &mut Emit) -> String {
    let floats = emit.cast(x, DataType::Float);
    if zero_point.is_empty() {
        return floats;
    }
    let zero_point = emit.cast(zero_point, DataType::Float);
    emit.op("Sub", &[&floats, &zero_point], "c", Vec::new())
}

/// The same of a weight, whose zero points may be one for each of its first axis.
fn centered_constant(w: &TensorProto, zero_point: Option<&TensorProto>) -> Option<TensorProto> {
    let (shape, integers) = (w.shape().ok()?, w.ints().ok()?);
    let zero_points = zero_point.map_or_else(|| Some(vec![0]), |z| z.ints().ok())?;
    let channels = *shape.first()?;
    if zero_points.len() != 1 && zero_points.len() != channels {
        return None;
    }
    let each = (integers.len() / channels.max(1)).max(1);
    let floats: Vec<f32> = integers
        .iter()
        .enumerate()
        .map(|(i, q)| (q - zero_points[(i / each) % zero_points.len()]) as f32)
        .collect();
    Some(TensorProto::from_f32("w", &shape, &floats))
}
