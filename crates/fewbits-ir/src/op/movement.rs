//! Operators that move elements and leave them as they are.

use fewbits_onnx::facts::place;
use serde::{Deserialize, Serialize};

use super::{Computed, shape};
use crate::shape::{Shape, axis_of};
use crate::{Result, RuntimeError, Tensor, Values};

/// How a shape changes, in the words of ONNX: negative axes count from the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewShape {
    /// Not at all.
    Same,
    /// To two axes.
    Flatten {
        /// The first of the second.
        axis: i64,
    },
    /// To these sizes: `-1` is what is left; 0 is the size of the input there if `zero`.
    Dims {
        /// The sizes.
        dims: Vec<i64>,
        /// Whether 0 is the size of the input.
        zero: bool,
    },
    /// Axes of size 1 go, all of them if none is named.
    Squeeze {
        /// Those that go.
        axes: Vec<i64>,
    },
    /// Axes of size 1 come.
    Unsqueeze {
        /// Where they are then.
        axes: Vec<i64>,
    },
}

impl NewShape {
    /// The new shape of a value of shape `from`.
    ///
    /// # Errors
    /// If it does not have as many elements.
    pub fn of(&self, from: Shape) -> Result<Shape> {
        let dims = from.dims();
        let fault = || RuntimeError::Run {
            reason: format!("a value of shape {from:?} cannot be reshaped by {self:?}"),
        };
        match self {
            NewShape::Same => Ok(from),
            NewShape::Flatten { axis } => {
                let axis = match *axis {
                    axis if axis == dims.len() as i64 => dims.len(),
                    axis => place(axis, dims.len()).ok_or_else(fault)?,
                };
                Shape::new(&[dims[..axis].iter().product(), dims[axis..].iter().product()])
            }
            NewShape::Dims { dims: wanted, zero } => {
                let mut out = Vec::with_capacity(wanted.len());
                for (i, &dim) in wanted.iter().enumerate() {
                    out.push(match dim {
                        0 if *zero => *dims.get(i).ok_or_else(fault)?,
                        -1 => usize::MAX,
                        dim => usize::try_from(dim).map_err(|_| fault())?,
                    });
                }
                if let Some(free) = out.iter().position(|&d| d == usize::MAX) {
                    let known: usize = out
                        .iter()
                        .filter(|&&d| d != usize::MAX)
                        .try_fold(1usize, |n, &d| n.checked_mul(d))
                        .ok_or_else(fault)?;
                    out[free] = from.len().checked_div(known).unwrap_or(0);
                }
                let out = Shape::new(&out)?;
                if out.len() == from.len() { Ok(out) } else { Err(fault()) }
            }
            NewShape::Squeeze { axes } => {
                let gone: Vec<usize> = match axes.as_slice() {
                    [] => (0..dims.len()).filter(|&a| dims[a] == 1).collect(),
                    axes => axes
                        .iter()
                        .map(|&a| place(a, dims.len()).filter(|&a| dims[a] == 1))
                        .collect::<Option<_>>()
                        .ok_or_else(fault)?,
                };
                let kept: Vec<usize> =
                    (0..dims.len()).filter(|a| !gone.contains(a)).map(|a| dims[a]).collect();
                Shape::new(&kept)
            }
            NewShape::Unsqueeze { axes } => {
                let rank = dims.len() + axes.len();
                let new: Vec<usize> = axes
                    .iter()
                    .map(|&a| place(a, rank))
                    .collect::<Option<_>>()
                    .ok_or_else(fault)?;
                let mut old = dims.iter();
                let all: Option<Vec<usize>> = (0..rank)
                    .map(|a| if new.contains(&a) { Some(1) } else { old.next().copied() })
                    .collect();
                Shape::new(&all.ok_or_else(fault)?)
            }
        }
    }
}

/// Transpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transpose {
    /// Which axis of the input each axis of the output is.
    pub permutation: Vec<usize>,
}

/// Concat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concat {
    /// As ONNX counts it, from either end; images are joined along their channels.
    pub axis: i64,
    /// The zero point of bytes, which fills a halo.
    pub zero_point: u8,
}

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
