//! `MatMulInteger` whose weight has a zero point for each column, without them.

use super::emit::{Emit, Why};
use super::{Outcome, Rewritten, input, optional, output, rewrite};
use crate::Model;
use crate::proto::{DataType, NodeProto, TensorProto};

/// Takes the zero points of single columns out of every `MatMulInteger` of the main graph, for
/// executors that mistake them. (rten 0.27 does from the 33rd column on.)
///
/// `(a - a0) (b - b0)` is `(a - a0) b` less the sum of each row of `a - a0` times `b0`: exact, and a
/// product with one column more. Zero points that are all the same become one.
pub fn split_column_zero_points(model: &mut Model) -> Rewritten {
    rewrite(model, |node, emit| match node.is("MatMulInteger") {
        true => replace(node, emit),
        false => Ok(Outcome::Untouched),
    })
}

fn replace(node: &NodeProto, emit: &mut Emit) -> Result<Outcome, Why> {
    let (a, b, a_zero_point) = (input(node, 0)?, input(node, 1)?, optional(node, 2));
    let Some(zero_point) = emit.constant(optional(node, 3)) else { return Ok(Outcome::Untouched) };
    let zero_points = zero_point.ints().map_err(|e| e.to_string())?;
    let [first, _, ..] = zero_points.as_slice() else { return Ok(Outcome::Untouched) };
    let data_type = zero_point.element_type().map_err(|e| e.to_string())?;
    if zero_points.iter().all(|z| z == first) {
        let one = emit.add(TensorProto::from_raw("z", &[], data_type, vec![*first as u8]));
        emit.op("MatMulInteger", &[a, b, a_zero_point, &one], "p", Vec::new());
        emit.name_after(node);
        emit.finish(output(node)?);
        return Ok(Outcome::Replaced);
    }
    let shape = emit.constant(b).and_then(|t| t.shape().ok());
    let Some(&[rows, columns]) = shape.as_deref() else {
        return Err("its weight is not a constant matrix".into());
    };
    if columns != zero_points.len() {
        return Err(format!("it has {columns} columns and {} zero points", zero_points.len()));
    }
    let offsets: Vec<i32> = zero_points.iter().map(|&z| z as i32).collect();
    let offsets = emit.add(TensorProto::from_i32("z", &[columns], &offsets));
    let ones = emit.add(TensorProto::from_raw("ones", &[rows, 1], DataType::Int8, vec![1; rows]));
    let product = emit.op("MatMulInteger", &[a, b, a_zero_point], "p", Vec::new());
    emit.name_after(node);
    let sums = emit.op("MatMulInteger", &[a, &ones, a_zero_point], "p", Vec::new());
    let surplus = emit.op("Mul", &[&sums, &offsets], "m", Vec::new());
    emit.op("Sub", &[&product, &surplus], "p", Vec::new());
    emit.finish(output(node)?);
    Ok(Outcome::Replaced)
}
