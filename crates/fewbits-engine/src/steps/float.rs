//! Steps in f32.

use fewbits_ir::ValueId;
use fewbits_ir::op::{Norm, NormKind, Reduce};
use fewbits_kernels::float::{
    self, Binary, Function, apply, binary, layer_norm, rms_norm, softmax,
};

use crate::Result;
use crate::state::State;
use crate::steps::Kernel;

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
        let shape = a_shape.broadcast(b_shape)?;
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

/// LayerNormalization or RMSNormalization over the last axis.
pub(crate) struct Normalize {
    pub input: ValueId,
    pub output: ValueId,
    pub norm: Norm,
}

impl Kernel for Normalize {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let shape = state.shape(self.input);
        let width = shape.last();
        self.norm.check(width)?;
        let Norm { kind, gain, epsilon } = &self.norm;
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        threads.rows(out.f32s_mut(), width, LEAST.div_ceil(width.max(1)), |first, out| {
            let input = &input[first * width..][..out.len()];
            match kind {
                NormKind::Layer { bias } => {
                    layer_norm(cpu, input, width, gain, bias, *epsilon, out);
                }
                NormKind::RootMeanSquare => {
                    rms_norm(cpu, input, width, gain, *epsilon, out);
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

/// A sum, mean or maximum over the last axes.
pub(crate) struct Reduction {
    pub input: ValueId,
    pub output: ValueId,
    pub op: Reduce,
}

impl Kernel for Reduction {
    fn run(&self, state: &mut State) -> Result<()> {
        let (width, to) = self.op.shapes(state.shape(self.input))?;
        let mut out = state.take(self.output, to, to.len() * 4);
        self.op.reduce(state.floats(self.input), width, out.f32s_mut());
        state.give(self.output, out);
        Ok(())
    }
}
