//! Steps in f32.

use fewbits_kernels::float::{
    self, Binary, Function, apply, binary, layer_norm, rms_norm, softmax,
};

use crate::steps::Kernel;
use crate::state::{State, ValueId};
use crate::steps::elementwise::broadcast;
use crate::{Result, RuntimeError};

/// Elements that a thread must have at least.
const LEAST: usize = 8 << 10;

/// A function of each element.
pub(crate) struct Elementwise {
    pub input: ValueId,
    pub output: ValueId,
    pub function: Function,
}

impl Kernel for Elementwise {
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

impl Kernel for FloatBinary {
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

impl Kernel for Norm {
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

impl Kernel for Softmax {
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

