//! `MatMulNBits` as a float product.

use super::emit::{Emit, Why};
use super::{Outcome, Rewritten, input, optional, output, rewrite};
use crate::Model;
use crate::facts::is_mat_mul_n_bits;
use crate::proto::{DataType, NodeProto, TensorProto};
use crate::qweight::nbits::{Blocks, Fields};

/// Replaces every `MatMulNBits` of the main graph that has constant weights by a `MatMul` with the
/// weights as floats, for executors without it: they take as much memory as before the
/// quantization. Activations stay floats, whatever `accuracy_level` allows.
///
/// Weights that are grouped by an index, laid out for one runtime, or of another width than 2, 4
/// and 8 bits stay.
pub fn unpack_nbits(model: &mut Model) -> Rewritten {
    rewrite(model, |node, emit| match is_mat_mul_n_bits(node) {
        true => replace(node, emit),
        false => Ok(Outcome::Untouched),
    })
}

fn replace(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let (result, a) = (output(node)?, input(node, 0)?);
    let blocks = Blocks::of(node)?;
    let constant = |n: usize| {
        let name = input(node, n)?;
        emit.cast_constant(name).ok_or_else(|| format!("its input '{name}' is not constant"))
    };
    let zero_points = if optional(node, 3).is_empty() { None } else { Some(constant(3)?) };
    let weight = unpack(&blocks, constant(1)?, constant(2)?, zero_points)
        .ok_or("its weights do not fit its attributes; export the model again")?;
    let weight = emit.add(TensorProto::from_f32("w", &[blocks.k, blocks.n], &weight));
    let product = emit.op("MatMul", &[a, &weight], "y", Vec::new());
    emit.name_after(node);
    match optional(node, 5) {
        "" => {}
        bias => {
            emit.op("Add", &[&product, bias], "y", Vec::new());
        }
    }
    emit.finish(result);
    Ok(Outcome::Replaced)
}

/// The weight, transposed: `[k, n]`.
fn unpack(
    blocks: &Blocks,
    packed: &TensorProto,
    scales: &TensorProto,
    zero_points: Option<&TensorProto>,
) -> Option<Vec<f32>> {
    let (k, n, per_row) = (blocks.k, blocks.n, blocks.per_row());
    let codes = blocks.codes(packed)?;
    let scales = scales.floats().ok()?;
    let zero_points = match zero_points {
        None => ZeroPoints::One(f32::from(blocks.middle())),
        Some(z) if z.element_type().ok()? == DataType::Uint8 => {
            ZeroPoints::Packed(blocks.zero_points(z)?)
        }
        Some(z) => ZeroPoints::Floats(z.floats().ok()?),
    };
    let params = n.checked_mul(per_row)?;
    let floats_fit = match &zero_points {
        ZeroPoints::Floats(floats) => floats.len() == params,
        ZeroPoints::One(_) | ZeroPoints::Packed(_) => true,
    };
    if scales.len() != params || !floats_fit {
        return None;
    }
    let mut weight = vec![0f32; k.checked_mul(n)?];
    for row in 0..n {
        for column in 0..k {
            let block = column / blocks.size;
            let zero_point = match &zero_points {
                ZeroPoints::One(z) => *z,
                ZeroPoints::Packed(fields) => f32::from(fields.get(row, block)),
                ZeroPoints::Floats(floats) => floats[row * per_row + block],
            };
            let q = f32::from(codes.get(row, column));
            weight[column * n + row] = (q - zero_point) * scales[row * per_row + block];
        }
    }
    Some(weight)
}

enum ZeroPoints {
    One(f32),
    Packed(Fields),
    Floats(Vec<f32>),
}
