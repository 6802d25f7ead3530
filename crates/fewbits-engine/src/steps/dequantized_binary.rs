//! A float operator on two values that are bytes.

use fewbits_ir::op::{self, ByteScale};
use fewbits_ir::{Layout, ValueId};
use fewbits_kernels::bytes::{dequantize, dequantize_image};
use fewbits_kernels::float::{self, apply, binary_in_place};

use crate::Result;
use crate::state::State;
use crate::steps::{Kernel, with_scratch};

/// Elements that are worked on together where they lie as ONNX has them: they stay in the cache.
const CHUNK: usize = 4 << 10;

/// Elements that a thread must have at least.
const LEAST: usize = 16 << 10;

/// DequantizeLinear of both, the operator, and a function of the result.
pub(crate) struct DequantizedBinary {
    pub inputs: [ValueId; 2],
    pub output: ValueId,
    pub op: op::DequantizedBinary,
    /// How the bytes of both lie.
    pub layout: Layout,
}

impl DequantizedBinary {
    /// The floats of an input from `first` on, as many as `out` takes: elements, or of images whole
    /// ones.
    fn floats(&self, state: &State, input: usize, first: usize, out: &mut [f32]) {
        let (id, ByteScale { scale, zero_point }) = (self.inputs[input], self.op.scales[input]);
        let bytes = state.bytes(id);
        match self.layout {
            Layout::RowMajor => {
                dequantize(state.cpu, &bytes[first..][..out.len()], scale, zero_point, out);
            }
            Layout::ChannelsLast(_) => {
                let layout = state.image(id);
                let size = layout.channels * layout.height * layout.width;
                let pitch = layout.image_pitch();
                for (i, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
                    let image = &bytes[(first / size + i) * pitch..][..pitch];
                    dequantize_image(state.cpu, image, &layout, scale, zero_point, out);
                }
            }
        }
    }

    /// As DequantizeLinear of each and the operator have it, for shapes that differ.
    fn apart(&self, state: &State, out: &mut [f32]) {
        let [a, b] = [0, 1].map(|input| {
            let shape = state.shape(self.inputs[input]);
            let mut floats = vec![0.0; shape.len()];
            self.floats(state, input, 0, &mut floats);
            (floats, shape)
        });
        let (a_dims, b_dims) = (a.1.dims(), b.1.dims());
        float::broadcast(state.cpu, self.op.operation, &a.0, a_dims, &b.0, b_dims, out);
        if let Some(function) = self.op.function {
            apply(state.cpu, function, out);
        }
    }
}

impl Kernel for DequantizedBinary {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let [a, b] = self.inputs.map(|id| state.shape(id));
        let shape = a.broadcast(b)?;
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let state_now = &*state;
        if a != b {
            self.apart(state_now, out.f32s_mut());
        } else {
            let (width, chunk) = match self.layout {
                Layout::RowMajor => (1, CHUNK),
                Layout::ChannelsLast(_) => {
                    let size = shape.dims().iter().skip(1).product::<usize>().max(1);
                    (size, size)
                }
            };
            threads.rows(out.f32s_mut(), width, LEAST.div_ceil(width), |first, out| {
                for (i, out) in out.chunks_mut(chunk).enumerate() {
                    let first = first * width + i * chunk;
                    self.floats(state_now, 0, first, out);
                    with_scratch(|scratch| {
                        scratch.resize(out.len().max(scratch.len()), 0.0);
                        let other = &mut scratch[..out.len()];
                        self.floats(state_now, 1, first, other);
                        binary_in_place(cpu, self.op.operation, out, other);
                    });
                    if let Some(function) = self.op.function {
                        apply(cpu, function, out);
                    }
                }
            });
        }
        state.give(self.output, out);
        Ok(())
    }
}
