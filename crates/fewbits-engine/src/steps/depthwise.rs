//! A convolution in which each channel has its own window.

use fewbits_ir::op::Conv;
use fewbits_ir::{RuntimeError, ValueId};
use fewbits_kernels::bytes::{
    self, DepthwiseWeights, QuantizeTo, Requantize, Window, depthwise_rows,
};

use crate::Result;
use crate::state::{State, image_layout};
use crate::steps::product::corrected;
use crate::steps::{Io, Kernel};

/// The step.
pub(crate) struct Depthwise {
    input: ValueId,
    output: ValueId,
    weights: DepthwiseWeights,
    window: Window,
    bias: Vec<i32>,
    scale: Vec<f32>,
    to: QuantizeTo,
}

impl Depthwise {
    /// Packs a convolution [of this kind](Conv::is_depthwise), which gives bytes `to`.
    pub(crate) fn new(conv: Conv, to: QuantizeTo, io: &Io) -> Depthwise {
        let Conv { product, window, .. } = conv;
        let ints = product.weights.ints();
        let filters = product.weights.columns();
        let bytes: Vec<i8> = ints.iter().map(|&w| w as i8).collect();
        Depthwise {
            input: io.input(),
            output: io.output(),
            weights: DepthwiseWeights::new(&bytes, filters, window.kernel),
            window,
            bias: corrected(&product, &ints),
            scale: product.scale,
            to,
        }
    }
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
        let shape = state.shape(self.input).windowed(channels, &self.window)?;
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
