//! Operators that move elements.

use super::{Computed, shape};
use crate::op::Concat;
use crate::shape::{Shape, axis_of};
use crate::{Result, RuntimeError, Tensor, Values};

pub(super) fn concat(op: &Concat, inputs: &[&Computed]) -> Result<Tensor> {
    let rank = inputs.first().map_or(0, |first| first.tensor.shape().len());
    let axis = axis_of(op.axis, rank)?;
    Tensor::concat_axis(axis, inputs.iter().map(|one| one.tensor.clone()).collect())
}

pub(super) fn transpose(tensor: &Tensor, permutation: &[usize]) -> Result<Tensor> {
    let from = shape(tensor)?;
    let dims = from.dims();
    let mut sorted = permutation.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..dims.len()) {
        let reason = format!("{permutation:?} does not permute the shape {from:?}");
        return Err(RuntimeError::Run { reason });
    }
    let to: Vec<usize> = permutation.iter().map(|&axis| dims[axis]).collect();
    let mut pitches = vec![1; dims.len()];
    for axis in (0..dims.len().saturating_sub(1)).rev() {
        pitches[axis] = pitches[axis + 1] * dims[axis + 1];
    }
    let order: Vec<usize> = (0..from.len())
        .map(|mut index| {
            let mut at = 0;
            for (axis, &size) in to.iter().enumerate().rev() {
                at += index % size * pitches[permutation[axis]];
                index /= size;
            }
            at
        })
        .collect();
    let values = match tensor.values() {
        Values::F32(v) => Values::from(order.iter().map(|&i| v[i]).collect::<Vec<f32>>()),
        Values::U8(v) => Values::from(order.iter().map(|&i| v[i]).collect::<Vec<u8>>()),
        other => {
            let reason = format!("{:?} cannot be transposed", other.data_type());
            return Err(RuntimeError::Run { reason });
        }
    };
    Tensor::new(Shape::new(&to)?.dims().to_vec(), values)
}
