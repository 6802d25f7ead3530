//! Windows over images of floats, which lie as ONNX has them.

use fewbits_ir::op::{self, FloatConv, FloatPooling};
use fewbits_ir::{RuntimeError, ValueId, Values};
use fewbits_kernels::Cpu;
use fewbits_kernels::bytes::Window;
use fewbits_kernels::float::{self, Function};

use crate::Result;
use crate::state::{State, image_layout};
use crate::steps::Kernel;

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
    pub function: Option<Function>,
}

impl Convolution {
    /// Packs the weights.
    ///
    /// # Errors
    /// If they are no floats of four axes.
    pub(crate) fn new(
        cpu: Cpu,
        conv: FloatConv,
        input: ValueId,
        output: ValueId,
    ) -> Result<Convolution> {
        let FloatConv { weights, bias, groups, window, function } = conv;
        let (shape, values) = weights.into_parts();
        let (Values::F32(values), &[filters, group_channels, rows, columns]) =
            (values, shape.as_slice())
        else {
            let reason = format!("a convolution has weights of shape {shape:?}");
            return Err(RuntimeError::Load { reason });
        };
        let shape = [filters, group_channels, rows, columns];
        let weights = float::Weights::new(cpu, values, shape, groups, window);
        let channels = groups * group_channels;
        Ok(Convolution {
            input,
            output,
            weights,
            bias,
            filters,
            channels,
            groups,
            window,
            function,
        })
    }
}

impl Kernel for Convolution {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let from = state.image(self.input);
        let shape = state.shape(self.input).windowed(self.filters, &self.window)?;
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

/// MaxPool or AveragePool.
pub(crate) struct FloatPool {
    pub input: ValueId,
    pub output: ValueId,
    pub pool: op::FloatPool,
}

impl Kernel for FloatPool {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads, window) = (state.cpu, state.threads, self.pool.window);
        let from = state.image(self.input);
        let shape = state.shape(self.input).windowed(from.channels, &window)?;
        let to = image_layout(shape.dims(), Default::default());
        let (size, out_size) = ([from.height, from.width], [to.height, to.width]);
        let pooling = float::Pooling { window, size, out_size };
        let (plane, out_plane) = (from.height * from.width, to.height * to.width);
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.floats(self.input);
        threads.rows(out.f32s_mut(), out_plane, LEAST.div_ceil(plane.max(1)), |first, out| {
            let input = &input[first * plane..];
            super::with_scratch(|scratch| match self.pool.pooling {
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
