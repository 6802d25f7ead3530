//! Pooling over windows of images.

use fewbits_kernels::bytes::{
    Averaging, Divisor, ImagePooling, QuantizeTo, Window, average_pool_image,
    global_average_pool_image, max_pool_image,
};

use crate::Result;
use crate::steps::Kernel;
use crate::state::{ByteScale, State, ValueId, image_layout};
use crate::steps::{shape, windowed};

/// What is made of a window.
pub(crate) enum Pooling {
    /// The greatest byte; the halo is filled with `halo`.
    Max {
        halo: u8,
    },
    Average {
        from: ByteScale,
        divisor: Divisor,
        to: QuantizeTo,
    },
}

/// MaxPool or AveragePool.
pub(crate) struct Pool {
    pub input: ValueId,
    pub output: ValueId,
    pub window: Window,
    /// Padding at the end.
    pub end: [usize; 2],
    pub pooling: Pooling,
}

impl Kernel for Pool {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let from = state.image(self.input);
        let shape = windowed(state.shape(self.input), from.channels, &self.window, self.end)?;
        let to = image_layout(shape.dims(), state.value(self.output).halo);
        let mut out = state.take(self.output, shape, to.len_bytes());
        let input = state.bytes(self.input);
        let pooling = ImagePooling { window: self.window, from, to };
        threads.rows(out.u8s_mut(), to.image_pitch(), 1, |first, out| {
            for (i, out) in out.chunks_exact_mut(to.image_pitch().max(1)).enumerate() {
                let image = &input[(first + i) * from.image_pitch()..][..from.image_pitch()];
                match self.pooling {
                    Pooling::Max { halo } => {
                        max_pool_image(cpu, &pooling, image, halo, out);
                    }
                    Pooling::Average { from: scale, divisor, to } => {
                        let averaging = Averaging {
                            divisor,
                            from_scale: scale.scale,
                            from_zero_point: scale.zero_point,
                            to,
                        };
                        average_pool_image(cpu, &pooling, averaging, image, out);
                    }
                }
            }
        });
        state.give(self.output, out);
        Ok(())
    }
}

/// GlobalAveragePool.
pub(crate) struct GlobalAverage {
    pub input: ValueId,
    pub output: ValueId,
    pub from: ByteScale,
    pub to: QuantizeTo,
}

impl Kernel for GlobalAverage {
    fn run(&self, state: &mut State) -> Result<()> {
        let cpu = state.cpu;
        let from = state.image(self.input);
        let mut dims = vec![from.images, from.channels];
        dims.resize(state.shape(self.input).dims().len(), 1);
        let shape = shape(&dims)?;
        let mut out = state.take(self.output, shape, shape.len());
        let images = state.bytes(self.input).chunks_exact(from.image_pitch().max(1));
        for (image, out) in images.zip(out.u8s_mut().chunks_exact_mut(from.channels.max(1))) {
            let averaging = Averaging {
                divisor: Divisor::PixelsInside,
                from_scale: self.from.scale,
                from_zero_point: self.from.zero_point,
                to: self.to,
            };
            global_average_pool_image(cpu, &from, averaging, image, out);
        }
        state.give(self.output, out);
        Ok(())
    }
}
