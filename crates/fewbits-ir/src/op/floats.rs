//! Operators on floats, at the plain level of their kernels. Sums, means and maxima go one element after the
//! other: the same bits everywhere.

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{self, Binary, Function, layer_norm, rms_norm};
use serde::{Deserialize, Serialize};

use super::{f32s, refused, shape};
use crate::shape::Shape;
use crate::{Result, RuntimeError, Tensor};

/// What a row is divided by, and what is done with its mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// The deviation, once the mean is taken off.
    Layer {
        /// What is added, one for each column; empty if there is nothing.
        #[serde(with = "crate::stored::per_column")]
        bias: Vec<f32>,
    },
    /// The root of the mean of the squares.
    RootMeanSquare,
}

/// LayerNormalization or RMSNormalization over the last axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// Which of them.
    pub kind: NormKind,
    /// What each column is multiplied by.
    #[serde(with = "crate::stored::per_column")]
    pub gain: Vec<f32>,
    /// What is added to the variance.
    #[serde(with = "fewbits_kernels::exact_f32")]
    pub epsilon: f32,
}

/// What becomes of the last axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The greatest of them.
    Max,
}

/// A number for each row, or for each of the matrices and so on that a value is a stack of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// What is computed.
    pub reduction: Reduction,
    /// How many axes, counted from the end.
    pub axes: usize,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

fn like(tensor: &Tensor, values: Vec<f32>) -> Result<Tensor> {
    Tensor::new(tensor.shape().to_vec(), values)
}

pub(super) fn function(function: Function, tensor: &Tensor) -> Result<Tensor> {
    let mut values = f32s(tensor)?.to_vec();
    float::apply(Cpu::SCALAR, function, &mut values);
    like(tensor, values)
}

pub(super) fn binary(operation: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let to = shape(a)?.broadcast(shape(b)?)?;
    let mut out = vec![0.0; to.len()];
    float::broadcast(Cpu::SCALAR, operation, f32s(a)?, a.shape(), f32s(b)?, b.shape(), &mut out);
    Tensor::new(to.dims().to_vec(), out)
}

impl Norm {
    /// Checks that rows of `width` are those that are normalized.
    ///
    /// # Errors
    /// If they are not.
    pub fn check(&self, width: usize) -> Result<()> {
        let fits = match &self.kind {
            NormKind::Layer { bias } => bias.is_empty() || bias.len() == width,
            NormKind::RootMeanSquare => true,
        };
        if self.gain.len() == width && fits {
            return Ok(());
        }
        Err(refused(format!("rows of {} are normalized, {width} given", self.gain.len())))
    }
}

pub(super) fn norm(norm: &Norm, tensor: &Tensor) -> Result<Tensor> {
    let width = shape(tensor)?.last();
    norm.check(width)?;
    let (values, mut out) = (f32s(tensor)?, vec![0.0; tensor.len()]);
    match &norm.kind {
        NormKind::Layer { bias } => {
            layer_norm(Cpu::SCALAR, values, width, &norm.gain, bias, norm.epsilon, &mut out);
        }
        NormKind::RootMeanSquare => {
            rms_norm(Cpu::SCALAR, values, width, &norm.gain, norm.epsilon, &mut out);
        }
    }
    like(tensor, out)
}

pub(super) fn softmax(tensor: &Tensor) -> Result<Tensor> {
    let (width, mut values) = (shape(tensor)?.last(), f32s(tensor)?.to_vec());
    if width > 0 {
        float::softmax(Cpu::SCALAR, &mut values, width);
    }
    like(tensor, values)
}

impl Reduce {
    /// The elements that become one, and the shape of what comes out.
    ///
    /// # Errors
    /// If the value has fewer axes.
    pub fn shapes(&self, from: Shape) -> Result<(usize, Shape)> {
        let dims = from.dims();
        let kept = dims.len().checked_sub(self.axes).ok_or_else(|| RuntimeError::Run {
            reason: format!("{} axes are reduced of a value of shape {from:?}", self.axes),
        })?;
        let width: usize = dims[kept..].iter().product();
        let mut left = dims[..kept].to_vec();
        if self.keep_axes {
            left.resize(dims.len(), 1);
        }
        Ok((width, Shape::new(&left)?))
    }

    /// Reduces rows of `width`.
    pub fn reduce(&self, values: &[f32], width: usize, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            let row = values[i * width..][..width].iter().copied();
            *out = match self.reduction {
                Reduction::Sum => row.sum(),
                Reduction::Mean => row.sum::<f32>() / width as f32,
                // NaN stays: nothing is larger.
                Reduction::Max => {
                    row.fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a })
                }
            };
        }
    }
}
