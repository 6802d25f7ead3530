//! Between floats and bytes, and between the orders in which bytes lie.

use fewbits_kernels::bytes::{
    QuantizeTo, dequantize, dequantize_image, dynamic_parameters, image_from_bytes, image_to_bytes,
    look_up, min_max, quantize, quantize_image,
};

use fewbits_ir::op::{ByteScale, Lut};
use fewbits_ir::{Layout, Tensor, ValueId, Values};
use fewbits_onnx::proto::DataType;

use crate::Result;
use crate::state::{State, image_layout};
use crate::steps::Kernel;

/// Elements that a thread must have at least.
const LEAST: usize = 16 << 10;

/// QuantizeLinear.
#[derive(Clone, Copy)]
pub(crate) struct Quantize {
    pub input: ValueId,
    pub output: ValueId,
    pub scale: ByteScale,
    pub layout: Layout,
}

impl Kernel for Quantize {
    fn run(&self, state: &mut State) -> Result<()> {
        let Quantize { input, output, scale, layout } = *self;
        to_bytes(state, input, output, scale, layout);
        Ok(())
    }
}

/// Quantizes floats to bytes of `scale`, which lie as `layout` says.
fn to_bytes(state: &mut State, input: ValueId, output: ValueId, scale: ByteScale, layout: Layout) {
    let (cpu, threads) = (state.cpu, state.threads);
    let to = QuantizeTo::all_bytes(scale.scale, scale.zero_point);
    let shape = state.shape(input);
    match layout {
        Layout::RowMajor => {
            let mut out = state.take(output, shape, shape.len());
            let input = state.floats(input);
            threads.rows(out.u8s_mut(), 1, LEAST, |first, out| {
                quantize(cpu, &input[first..][..out.len()], to, out);
            });
            state.give(output, out);
        }
        Layout::ChannelsLast(_) => {
            let layout = image_layout(shape.dims(), state.value(output).halo);
            let mut out = state.take(output, shape, layout.len_bytes());
            let input = state.floats(input);
            let size = layout.channels * layout.height * layout.width;
            threads.rows(out.u8s_mut(), layout.image_pitch(), 1, |first, out| {
                let images = out.chunks_exact_mut(layout.image_pitch().max(1));
                for (i, out) in images.enumerate() {
                    quantize_image(cpu, &input[(first + i) * size..][..size], &layout, to, out);
                }
            });
            state.give(output, out);
        }
    }
}

/// DynamicQuantizeLinear: the scale and zero point go with the bytes.
pub(crate) struct DynamicQuantize {
    pub input: ValueId,
    pub output: ValueId,
    pub layout: Layout,
}

impl Kernel for DynamicQuantize {
    fn run(&self, state: &mut State) -> Result<()> {
        let (least, most) = min_max(state.cpu, state.floats(self.input));
        let (scale, zero_point) = dynamic_parameters(least, most);
        let scale = ByteScale { scale, zero_point };
        to_bytes(state, self.input, self.output, scale, self.layout);
        state.value_mut(self.output).dynamic = Some(scale);
        Ok(())
    }
}

/// DequantizeLinear.
pub(crate) struct Dequantize {
    pub input: ValueId,
    pub output: ValueId,
    pub scale: ByteScale,
    /// How the bytes lie.
    pub layout: Layout,
}

impl Kernel for Dequantize {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let shape = state.shape(self.input);
        let ByteScale { scale, zero_point } = self.scale;
        let mut out = state.take(self.output, shape, shape.len() * 4);
        let input = state.bytes(self.input);
        match self.layout {
            Layout::RowMajor => threads.rows(out.f32s_mut(), 1, LEAST, |first, out| {
                dequantize(cpu, &input[first..][..out.len()], scale, zero_point, out);
            }),
            Layout::ChannelsLast(_) => {
                let layout = state.image(self.input);
                let (size, pitch) =
                    (layout.channels * layout.height * layout.width, layout.image_pitch());
                threads.rows(out.f32s_mut(), size, 1, |first, out| {
                    for (i, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
                        let image = &input[(first + i) * pitch..][..pitch];
                        dequantize_image(cpu, image, &layout, scale, zero_point, out);
                    }
                });
            }
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// Bytes in another order.
pub(crate) struct ChangeLayout {
    pub input: ValueId,
    pub output: ValueId,
    pub to: Layout,
    /// What the halo is filled with.
    pub zero_point: u8,
}

impl Kernel for ChangeLayout {
    fn run(&self, state: &mut State) -> Result<()> {
        let cpu = state.cpu;
        let shape = state.shape(self.input);
        match self.to {
            Layout::ChannelsLast(_) => {
                let layout = image_layout(shape.dims(), state.value(self.output).halo);
                let mut out = state.take(self.output, shape, layout.len_bytes());
                let size = layout.channels * layout.height * layout.width;
                let images = state.bytes(self.input).chunks_exact(size.max(1));
                let outs = out.u8s_mut().chunks_exact_mut(layout.image_pitch().max(1));
                for (input, out) in images.zip(outs) {
                    image_from_bytes(cpu, input, &layout, self.zero_point, out);
                }
                state.give(self.output, out);
            }
            Layout::RowMajor => {
                let mut out = state.take(self.output, shape, shape.len());
                planes(state, self.input, out.u8s_mut());
                state.give(self.output, out);
            }
        }
        Ok(())
    }
}

/// Bytes as a tensor of the type that ONNX gives them.
pub(crate) struct GiveOut {
    pub input: ValueId,
    pub output: ValueId,
    /// INT8 or UINT8.
    pub data_type: DataType,
    /// How the bytes lie.
    pub layout: Layout,
}

impl Kernel for GiveOut {
    fn run(&self, state: &mut State) -> Result<()> {
        let shape = state.shape(self.input);
        let mut bytes = vec![0; shape.len()];
        match self.layout {
            Layout::RowMajor => bytes.copy_from_slice(state.bytes(self.input)),
            Layout::ChannelsLast(_) => planes(state, self.input, &mut bytes),
        }
        let values = match self.data_type {
            DataType::Int8 => Values::I8(bytes.into_iter().map(|q| (q ^ 0x80) as i8).collect()),
            _ => Values::U8(bytes),
        };
        let tensor = Tensor::new(shape.dims().to_vec(), values)?;
        state.set_tensor(self.output, &tensor)
    }
}

/// Lays images out as ONNX has them.
fn planes(state: &State, input: ValueId, out: &mut [u8]) {
    let layout = state.image(input);
    let size = layout.channels * layout.height * layout.width;
    let images = state.bytes(input).chunks_exact(layout.image_pitch().max(1));
    for (input, out) in images.zip(out.chunks_exact_mut(size.max(1))) {
        image_to_bytes(state.cpu, input, &layout, out);
    }
}

/// A function of each byte.
pub(crate) struct LookUp {
    pub input: ValueId,
    pub output: ValueId,
    pub lut: Lut,
    pub layout: Layout,
}

impl Kernel for LookUp {
    fn run(&self, state: &mut State) -> Result<()> {
        let cpu = state.cpu;
        let shape = state.shape(self.input);
        match self.layout {
            Layout::RowMajor => {
                let mut out = state.take(self.output, shape, shape.len());
                look_up(cpu, &self.lut.table, state.bytes(self.input), out.u8s_mut());
                state.give(self.output, out);
            }
            Layout::ChannelsLast(_) => {
                let from = state.image(self.input);
                let to = image_layout(shape.dims(), state.value(self.output).halo);
                let mut out = state.take(self.output, shape, to.len_bytes());
                let (input, bytes) = (state.bytes(self.input), out.u8s_mut());
                let width = from.width * from.channels;
                for image in 0..from.images {
                    for y in 0..from.height {
                        let row = &input[from.offset(image, y, 0)..][..width];
                        let to = &mut bytes[to.offset(image, y, 0)..][..width];
                        look_up(cpu, &self.lut.table, row, to);
                    }
                }
                to.fill_halo(bytes, self.lut.zero_point);
                state.give(self.output, out);
            }
        }
        Ok(())
    }
}
