//! Windows over images of floats, which lie as ONNX has them.

use fewbits_kernels::bytes::{Divisor, Window};
use fewbits_kernels::float::{self, Function};

use crate::steps::Kernel;
use crate::state::{State, ValueId, image_layout};
use crate::steps::windowed;
use crate::{Result, RuntimeError};

/// Products that a thread must have at least.
const LEAST_PRODUCTS: usize = 256 << 10;
/// Elements that a thread must have at least.
const LEAST: usize = 8 << 10;

/// A convolution with constant weights.
pub(crate) struct Convolution {
    pub input: ValueId,
    pub output: ValueId,
    pub weights: float::Weights,
    /// One for each filter, or none.
    pub bias: Vec<f32>,
    pub filters: usize,
    /// Channels of what goes in.
    pub channels: usize,
    pub groups: usize,
    pub window: Window,
    /// Padding at the end.
    pub end: [usize; 2],
    pub function: Option<Function>,
}

impl Kernel for Convolution {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let from = state.image(self.input);
        let shape = windowed(state.shape(self.input), self.filters, &self.window, self.end)?;
        if from.channels != self.channels {
            return Err(RuntimeError::Run {
                reason: format!(
                    "a convolution of {} channels was given images of {}",
                    self.channels, from.channels
                ),
            });
        }
        let to = image_layout(shape.dims(), Default::default());
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        let conv = float::Convolution {
            bias: &self.bias,
            filters: self.filters,
            channels: self.channels,
            groups: self.groups,
            window: self.window,
            size: [from.height, from.width],
            out_size: [to.height, to.width],
            function: self.function,
        };
        let plane = to.height * to.width;
        let [rows, columns] = self.window.kernel;
        let products = plane * self.channels / self.groups * rows * columns;
        threads.rows(out.f32s_mut(), plane, LEAST_PRODUCTS.div_ceil(products), |first, out| {
            super::with_scratch(|scratch| {
                let planes = first..first + out.len() / plane;
                float::convolve(cpu, &conv, &self.weights, input, planes, out, scratch);
            });
        });
        state.give(self.output, out);
        Ok(())
    }
}

/// What is made of a window.
#[derive(Clone, Copy)]
pub(crate) enum FloatPooling {
    Max,
    Average(Divisor),
}

/// MaxPool or AveragePool.
pub(crate) struct FloatPool {
    pub input: ValueId,
    pub output: ValueId,
    pub window: Window,
    /// Padding at the end.
    pub end: [usize; 2],
    pub pooling: FloatPooling,
}

impl Kernel for FloatPool {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads, window) = (state.cpu, state.threads, self.window);
        let from = state.image(self.input);
        let shape = windowed(state.shape(self.input), from.channels, &window, self.end)?;
        let to = image_layout(shape.dims(), Default::default());
        let (size, out_size) = ([from.height, from.width], [to.height, to.width]);
        let pooling = float::Pooling { window, size, out_size };
        let (plane, out_plane) = (from.height * from.width, to.height * to.width);
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        threads.rows(out.f32s_mut(), out_plane, LEAST.div_ceil(plane.max(1)), |first, out| {
            let input = &input[first * plane..];
            super::with_scratch(|scratch| match self.pooling {
                FloatPooling::Max => {
                    float::max_pool(cpu, &pooling, input, out, scratch);
                }
                FloatPooling::Average(divisor) => {
                    float::average_pool(cpu, &pooling, divisor, input, out, scratch);
                }
            });
        });
        state.give(self.output, out);
        Ok(())
    }
}
