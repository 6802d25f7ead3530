//! Pooling over windows of images.

use fewbits_ir::op::{self, BytesPool};
use fewbits_ir::{Shape, ValueId};
use fewbits_kernels::bytes::{
    ImagePooling, average_pool_image, global_average_pool_image, max_pool_image,
};

use crate::Result;
use crate::state::{State, image_layout};
use crate::steps::Kernel;

/// MaxPool or AveragePool.
pub(crate) struct Pool {
    pub input: ValueId,
    pub output: ValueId,
    pub pool: BytesPool,
}

impl Kernel for Pool {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let from = state.image(self.input);
        let (BytesPool::Max { window, .. } | BytesPool::Average { window, .. }) = self.pool;
        let shape = state.shape(self.input).windowed(from.channels, &window)?;
        let to = image_layout(shape.dims(), state.value(self.output).halo);
        let mut out = state.take(self.output, shape, to.len_bytes());
        let input = state.bytes(self.input);
        let pooling = ImagePooling { window, from, to };
        threads.rows(out.u8s_mut(), to.image_pitch(), 1, |first, out| {
            for (i, out) in out.chunks_exact_mut(to.image_pitch().max(1)).enumerate() {
                let image = &input[(first + i) * from.image_pitch()..][..from.image_pitch()];
                match self.pool {
                    BytesPool::Max { zero_point, .. } => {
                        max_pool_image(cpu, &pooling, image, zero_point, out);
                    }
                    BytesPool::Average { averaging, .. } => {
                        average_pool_image(cpu, &pooling, averaging, image, out);
                    }
                }
            }
        });
        state.give(self.output, out);
        Ok(())
    }
}

/// The average over the spatial axes.
pub(crate) struct GlobalAverage {
    pub input: ValueId,
    pub output: ValueId,
    pub op: op::GlobalAverage,
}

impl Kernel for GlobalAverage {
    fn run(&self, state: &mut State) -> Result<()> {
        let cpu = state.cpu;
        let from = state.image(self.input);
        let mut dims = vec![from.images, from.channels];
        if self.op.keep_axes {
            dims.resize(state.shape(self.input).dims().len(), 1);
        }
        let shape = Shape::new(&dims)?;
        let mut out = state.take(self.output, shape, shape.len());
        let images = state.bytes(self.input).chunks_exact(from.image_pitch().max(1));
        for (image, out) in images.zip(out.u8s_mut().chunks_exact_mut(from.channels.max(1))) {
            global_average_pool_image(cpu, &from, self.op.averaging, image, out);
        }
        state.give(self.output, out);
        Ok(())
    }
}
