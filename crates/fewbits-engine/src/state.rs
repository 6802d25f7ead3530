//! What a run works on: the values of the program and the memory they lie in.

use std::ops::Range;

use fewbits_ir::op::ByteScale;
use fewbits_ir::{Result, RuntimeError, Shape, Tensor, ValueId, Values};
use fewbits_kernels::{Buffer, Cpu, Halo, ImageLayout, Threads};

/// What is known of a value while a program runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    pub shape: Shape,
    /// The halo that its consumers want, if it is an image.
    pub halo: Halo,
    /// Whether it holds 64-bit integers.
    pub is_ints: bool,
    /// What the bytes of a dynamically quantized activation stand for.
    pub dynamic: Option<ByteScale>,
    /// Of a value that our own steps have no form for: strings and integers.
    pub tensor: Option<Tensor>,
}

/// The memory of one run; reused by the next.
pub(crate) struct State {
    values: Vec<Value>,
    buffers: Vec<Buffer>,
    slot_of: Vec<u32>,
    pub scratch: Scratch,
    pub cpu: Cpu,
    pub threads: Threads,
}

/// Memory that a step uses for itself.
#[derive(Default)]
pub(crate) struct Scratch {
    pub offsets: Vec<usize>,
    pub dynamic: DynamicScratch,
}

/// What a product corrects its sums by, when its input was dynamically quantized.
#[derive(Default)]
pub(crate) struct DynamicScratch {
    pub bias: Vec<i32>,
    pub scale: Vec<f32>,
}

impl State {
    pub(crate) fn new(values: Vec<Value>, slot_of: Vec<u32>, cpu: Cpu, threads: Threads) -> State {
        let slots = slot_of.iter().map(|&s| s as usize + 1).max().unwrap_or(0);
        State {
            values,
            buffers: vec![Buffer::default(); slots],
            slot_of,
            scratch: Scratch::default(),
            cpu,
            threads,
        }
    }

    pub(crate) fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    pub(crate) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    pub(crate) fn shape(&self, id: ValueId) -> Shape {
        self.value(id).shape
    }

    pub(crate) fn buffer(&self, id: ValueId) -> &Buffer {
        &self.buffers[self.slot_of[id.index()] as usize]
    }

    pub(crate) fn floats(&self, id: ValueId) -> &[f32] {
        self.buffer(id).f32s()
    }

    pub(crate) fn bytes(&self, id: ValueId) -> &[u8] {
        self.buffer(id).u8s()
    }

    /// The bytes that all values take.
    pub(crate) fn bytes_of_all(&self) -> usize {
        self.buffers.iter().map(Buffer::len_bytes).sum()
    }

    /// The memory of an output, to fill and to [`give`](State::give) back: inputs stay readable.
    pub(crate) fn take(&mut self, id: ValueId, shape: Shape, len_bytes: usize) -> Buffer {
        self.values[id.index()].shape = shape;
        let mut buffer = std::mem::take(&mut self.buffers[self.slot_of[id.index()] as usize]);
        buffer.resize(len_bytes);
        buffer
    }

    pub(crate) fn give(&mut self, id: ValueId, buffer: Buffer) {
        self.buffers[self.slot_of[id.index()] as usize] = buffer;
    }

    /// Gives back what holds 64-bit integers.
    pub(crate) fn give_ints(&mut self, id: ValueId, buffer: Buffer) {
        self.give(id, buffer);
        self.value_mut(id).is_ints = true;
    }

    /// How the bytes of an image value lie: channels last.
    pub(crate) fn image(&self, id: ValueId) -> ImageLayout {
        let value = self.value(id);
        image_layout(value.shape.dims(), value.halo)
    }

    /// A value as ONNX has it.
    pub(crate) fn tensor(&self, id: ValueId) -> Result<Tensor> {
        let value = self.value(id);
        match &value.tensor {
            Some(tensor) => Ok(tensor.clone()),
            None if value.is_ints => {
                Tensor::new(value.shape.dims().to_vec(), self.buffer(id).i64s().to_vec())
            }
            None => Tensor::new(value.shape.dims().to_vec(), self.floats(id).to_vec()),
        }
    }

    /// 64-bit integers, in whatever form they came.
    pub(crate) fn ints(&self, id: ValueId) -> Result<&[i64]> {
        match self.value(id).tensor.as_ref().map(Tensor::values) {
            Some(Values::I64(ints)) => Ok(ints),
            Some(other) => Err(RuntimeError::Run {
                reason: format!("64-bit integers are wanted, {:?} given", other.data_type()),
            }),
            None => Ok(self.buffer(id).i64s()),
        }
    }

    /// Stores what a caller or another executor gives.
    pub(crate) fn set_tensor(&mut self, id: ValueId, tensor: &Tensor) -> Result<()> {
        if let Values::F32(floats) = tensor.values() {
            self.set_floats(id, Shape::new(tensor.shape())?, floats);
        } else {
            self.value_mut(id).shape = Shape::new(tensor.shape())?;
            self.value_mut(id).tensor = Some(tensor.clone());
        }
        Ok(())
    }

    /// Some rows of a tensor.
    pub(crate) fn set_rows(
        &mut self,
        id: ValueId,
        tensor: &Tensor,
        rows: Range<usize>,
    ) -> Result<()> {
        let Values::F32(floats) = tensor.values() else {
            return self.set_tensor(id, &tensor.slice_rows(rows));
        };
        let row = floats.len() / tensor.rows().max(1);
        let mut dims = tensor.shape().to_vec();
        dims[0] = rows.len();
        self.set_floats(id, Shape::new(&dims)?, &floats[rows.start * row..rows.end * row]);
        Ok(())
    }

    fn set_floats(&mut self, id: ValueId, shape: Shape, floats: &[f32]) {
        let mut buffer = self.take(id, shape, floats.len() * 4);
        buffer.f32s_mut().copy_from_slice(floats);
        self.give(id, buffer);
        self.value_mut(id).tensor = None;
    }
}

/// The layout of images whose ONNX shape is `[images, channels, height, width]`, or without the
/// height.
pub(crate) fn image_layout(dims: &[usize], halo: Halo) -> ImageLayout {
    let size = |axis: usize| dims.get(axis).copied().unwrap_or(1);
    let (height, width) = if dims.len() == 3 { (1, size(2)) } else { (size(2), size(3)) };
    ImageLayout { images: size(0), height, width, channels: size(1), halo }
}
