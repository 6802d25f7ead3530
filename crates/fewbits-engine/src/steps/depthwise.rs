//! A convolution in which each channel has its own window.

use fewbits_kernels::bytes::{
    self, DepthwiseWeights, QuantizeTo, Requantize, Window, depthwise_rows,
};

use crate::steps::Kernel;
use crate::state::{State, ValueId, image_layout};
use crate::steps::windowed;
use crate::{Result, RuntimeError};

/// The step.
pub(crate) struct Depthwise {
    pub input: ValueId,
    pub output: ValueId,
    pub weights: DepthwiseWeights,
    pub window: Window,
    /// Padding at the end.
    pub end: [usize; 2],
    pub bias: Vec<i32>,
    pub scale: Vec<f32>,
    pub to: QuantizeTo,
}

impl Kernel for Depthwise {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let channels = self.weights.channels();
        let from = state.image(self.input);
        if from.channels != channels {
            return Err(RuntimeError::Run {
                reason: format!(
                    "a convolution of {channels} channels was given images of {}",
                    from.channels
                ),
            });
        }
        let shape = windowed(state.shape(self.input), channels, &self.window, self.end)?;
        let to = image_layout(shape.dims(), state.value(self.output).halo);
        let mut out = state.take(self.output, shape, to.len_bytes());
        let input = state.bytes(self.input);
        let requantize = Requantize { bias: &self.bias, scale: &self.scale, to: self.to };
        let depthwise =
            bytes::Depthwise { weights: &self.weights, window: self.window, requantize, from, to };
        threads.rows(out.u8s_mut(), to.image_pitch(), 1, |first, out| {
            for (i, out) in out.chunks_exact_mut(to.image_pitch().max(1)).enumerate() {
                let image = &input[(first + i) * from.image_pitch()..][..from.image_pitch()];
                let rows = to.halo.top * to.row_pitch()..(to.halo.top + to.height) * to.row_pitch();
                depthwise_rows(cpu, &depthwise, image, 0..to.height, &mut out[rows]);
            }
        });
        to.fill_halo(out.u8s_mut(), self.to.zero_point);
        state.give(self.output, out);
        Ok(())
    }
}
