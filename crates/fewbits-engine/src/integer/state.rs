//! What a run works on: the values of the program and the memory they lie in.

use fewbits_kernels::{Buffer, Cpu, Halo, ImageLayout, Threads};

use crate::Tensor;

/// A value of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ValueId(pub u32);

impl ValueId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Most axes of a value that our own steps handle.
pub(crate) const MAX_RANK: usize = 8;

/// The dimensions of a value.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// `None` beyond [`MAX_RANK`] axes.
    pub(crate) fn new(dims: &[usize]) -> Option<Shape> {
        let mut shape = Shape { rank: dims.len(), ..Shape::default() };
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(shape)
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    pub(crate) fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// The size of the last axis; 1 for a scalar.
    pub(crate) fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all axes but the last.
    pub(crate) fn rows(&self) -> usize {
        self.dims().split_last().map_or(1, |(_, rows)| rows.iter().product())
    }

    /// This shape with another last axis.
    pub(crate) fn with_last(mut self, last: usize) -> Shape {
        if self.rank > 0 {
            self.dims[self.rank - 1] = last;
        }
        self
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dims().fmt(f)
    }
}

/// The scale and zero point of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ByteScale {
    pub scale: f32,
    pub zero_point: u8,
}

/// What is known of a value while a program runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    pub shape: Shape,
    /// The halo that its consumers want, if it is an image.
    pub halo: Halo,
    /// Whether it holds 64-bit integers.
    pub is_ints: bool,
    /// Of bytes quantized as they come.
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

/// What a product corrects its sums by, when its input was quantized as it came.
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

    /// How the bytes of an image value lie: channels last.
    pub(crate) fn image(&self, id: ValueId) -> ImageLayout {
        let value = self.value(id);
        image_layout(value.shape.dims(), value.halo)
    }
}

/// The layout of images whose ONNX shape is `[images, channels, height, width]`, or without the
/// height.
pub(crate) fn image_layout(dims: &[usize], halo: Halo) -> ImageLayout {
    let size = |axis: usize| dims.get(axis).copied().unwrap_or(1);
    let (height, width) = if dims.len() == 3 { (1, size(2)) } else { (size(2), size(3)) };
    ImageLayout { images: size(0), height, width, channels: size(1), halo }
}
