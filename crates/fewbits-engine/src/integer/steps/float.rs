//! Steps in f32.

use fewbits_kernels::float::{
    self, Binary, Function, apply, binary, layer_norm, rms_norm, softmax,
};

use crate::integer::program::Step;
use crate::integer::state::{State, ValueId};
use crate::integer::steps::elementwise::broadcast;
use crate::{Result, RuntimeError};

/// Elements that a thread must have at least.
const LEAST: usize = 8 << 10;

/// A function of each element.
pub(crate) struct Elementwise {
    pub input: ValueId,
    pub output: ValueId,
    pub function: Function,
}

impl Step for Elementwise {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let shape = state.shape(self.input);
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        threads.rows(out.f32s_mut(), 1, LEAST, |first, out| {
            out.copy_from_slice(&input[first..][..out.len()]);
            apply(cpu, self.function, out);
        });
        state.give(self.output, out);
        Ok(())
    }
}

/// An operator on two values.
#[derive(Clone, Copy)]
pub(crate) struct FloatBinary {
    pub inputs: [ValueId; 2],
    pub output: ValueId,
    pub operation: Binary,
}

impl Step for FloatBinary {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads, [a, b]) = (state.cpu, state.threads, self.inputs);
        let (a_shape, b_shape) = (state.shape(a), state.shape(b));
        let shape = broadcast(a_shape, b_shape)?;
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let (left, right) = (state.floats(a), state.floats(b));
        if a_shape == b_shape {
            threads.rows(out.f32s_mut(), 1, LEAST, |first, out| {
                let part = first..first + out.len();
                binary(cpu, self.operation, &left[part.clone()], &right[part], out);
            });
        } else {
            let (a_dims, b_dims) = (a_shape.dims(), b_shape.dims());
            float::broadcast(cpu, self.operation, left, a_dims, right, b_dims, out.f32s_mut());
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// What a row is divided by, and what is done with its mean.
pub(crate) enum NormKind {
    /// The deviation, once the mean is taken off; a bias is added, if there is one.
    Layer { bias: Vec<f32> },
    /// The root of the mean of the squares.
    RootMeanSquare,
}

/// LayerNormalization or RMSNormalization over the last axis.
pub(crate) struct Norm {
    pub input: ValueId,
    pub output: ValueId,
    pub kind: NormKind,
    pub gain: Vec<f32>,
    pub epsilon: f32,
}

impl Step for Norm {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let shape = state.shape(self.input);
        let width = shape.last();
        let fits = match &self.kind {
            NormKind::Layer { bias } => bias.is_empty() || bias.len() == width,
            NormKind::RootMeanSquare => true,
        };
        if self.gain.len() != width || !fits {
            return Err(RuntimeError::Run {
                reason: format!("rows of {} are normalized, {width} given", self.gain.len()),
            });
        }
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        threads.rows(out.f32s_mut(), width, LEAST.div_ceil(width.max(1)), |first, out| {
            let input = &input[first * width..][..out.len()];
            match &self.kind {
                NormKind::Layer { bias } => {
                    layer_norm(cpu, input, width, &self.gain, bias, self.epsilon, out);
                }
                NormKind::RootMeanSquare => {
                    rms_norm(cpu, input, width, &self.gain, self.epsilon, out);
                }
            }
        });
        state.give(self.output, out);
        Ok(())
    }
}

/// Softmax over the last axis.
pub(crate) struct Softmax {
    pub input: ValueId,
    pub output: ValueId,
}

impl Step for Softmax {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let shape = state.shape(self.input);
        let width = shape.last();
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        threads.rows(out.f32s_mut(), width, LEAST.div_ceil(width.max(1)), |first, out| {
            out.copy_from_slice(&input[first * width..][..out.len()]);
            if width > 0 {
                softmax(cpu, out, width);
            }
        });
        state.give(self.output, out);
        Ok(())
    }
}

/// What becomes of the last axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Mean,
    Max,
}

/// A number for each row, or for each of the matrices and so on that a value is a stack of.
pub(crate) struct Reduce {
    pub input: ValueId,
    pub output: ValueId,
    pub reduction: Reduction,
    /// How many axes, counted from the end.
    pub axes: usize,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

impl Step for Reduce {
    fn run(&self, state: &mut State) -> Result<()> {
        let from = state.shape(self.input);
        let dims = from.dims();
        let kept = dims.len().checked_sub(self.axes).ok_or_else(|| RuntimeError::Run {
            reason: format!("{} axes are reduced of a value of shape {from:?}", self.axes),
        })?;
        let width: usize = dims[kept..].iter().product();
        let mut left = dims[..kept].to_vec();
        if self.keep_axes {
            left.resize(dims.len(), 1);
        }
        let to = super::shape(&left)?;
        let mut out = state.take(self.output, to, to.len() * 4);
        let input = state.floats(self.input);
        for (i, out) in out.f32s_mut().iter_mut().enumerate() {
            let row = input[i * width..][..width].iter().copied();
            // One after the other: the same bits everywhere.
            *out = match self.reduction {
                Reduction::Sum => row.sum(),
                Reduction::Mean => row.sum::<f32>() / width as f32,
                // NaN stays: nothing is larger.
                Reduction::Max => {
                    row.fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a })
                }
            };
        }
        state.give(self.output, out);
        Ok(())
    }
}
