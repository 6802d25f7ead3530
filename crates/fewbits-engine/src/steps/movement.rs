//! Steps that move elements and leave them as they are.

use fewbits_ir::op::{self, NewShape};
use fewbits_ir::{Layout, MAX_RANK, RuntimeError, Shape, ValueId, axis_of};

use crate::Result;
use crate::state::{State, image_layout};
use crate::steps::Kernel;

/// The same elements, in the same memory, of another shape; what lies in no memory of the program, such as
/// integers that a caller gives, is handed on.
pub(crate) struct Reshape {
    pub input: ValueId,
    pub output: ValueId,
    pub to: NewShape,
}

impl Kernel for Reshape {
    fn run(&self, state: &mut State) -> Result<()> {
        let input = state.value(self.input);
        let shape = self.to.of(input.shape)?;
        let tensor = match &input.tensor {
            Some(tensor) => Some(tensor.clone().reshaped(shape.dims().to_vec())?),
            None => None,
        };
        let is_ints = input.is_ints;
        let output = state.value_mut(self.output);
        (output.shape, output.tensor, output.is_ints) = (shape, tensor, is_ints);
        Ok(())
    }
}

/// Transpose of values that lie as ONNX has them.
pub(crate) struct Transpose {
    pub input: ValueId,
    pub output: ValueId,
    pub permutation: Vec<usize>,
    pub element_bytes: usize,
}

impl Kernel for Transpose {
    fn run(&self, state: &mut State) -> Result<()> {
        let from = state.shape(self.input);
        let dims = from.dims();
        let rank = dims.len();
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..rank) {
            return Err(RuntimeError::Run {
                reason: format!("{:?} does not permute the shape {from:?}", self.permutation),
            });
        }
        let mut pitches = [1; MAX_RANK];
        for axis in (0..rank.saturating_sub(1)).rev() {
            pitches[axis] = pitches[axis + 1] * dims[axis + 1];
        }
        let new: Vec<usize> = self.permutation.iter().map(|&p| dims[p]).collect();
        let strides: Vec<usize> = self.permutation.iter().map(|&p| pitches[p]).collect();
        let to = Shape::new(&new)?;
        let element = self.element_bytes;
        let mut out = state.take(self.output, to, to.len() * element);
        let bytes = state.buffer(self.input);
        match element {
            1 => permute(bytes.u8s(), &new, &strides, out.u8s_mut()),
            _ => permute(bytes.f32s(), &new, &strides, out.f32s_mut()),
        }
        state.give(self.output, out);
        Ok(())
    }
}

/// Fills `out`, of the shape `dims`, from elements `strides` apart along each axis.
fn permute<T: Copy>(from: &[T], dims: &[usize], strides: &[usize], out: &mut [T]) {
    let (Some((&width, outer)), Some((&step, outer_strides))) =
        (dims.split_last(), strides.split_last())
    else {
        out.copy_from_slice(from);
        return;
    };
    if out.is_empty() {
        return;
    }
    let mut index = [0; MAX_RANK];
    let mut start = 0;
    for row in out.chunks_exact_mut(width) {
        if step == 1 {
            row.copy_from_slice(&from[start..start + width]);
        } else {
            row.iter_mut().zip(from[start..].iter().step_by(step)).for_each(|(to, &x)| *to = x);
        }
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            start += outer_strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            start -= outer_strides[axis] * outer[axis];
            index[axis] = 0;
        }
    }
}

/// Concat.
pub(crate) struct Concat {
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
    pub op: op::Concat,
    /// How the elements lie; images are joined along their channels.
    pub layout: Layout,
    pub element_bytes: usize,
}

impl Kernel for Concat {
    fn run(&self, state: &mut State) -> Result<()> {
        let shapes: Vec<Shape> = self.inputs.iter().map(|&id| state.shape(id)).collect();
        let fault = || RuntimeError::Run {
            reason: format!(
                "values of shapes {shapes:?} cannot be joined along axis {}",
                self.op.axis
            ),
        };
        let first = shapes.first().ok_or_else(fault)?.dims();
        let axis = axis_of(self.op.axis, first.len())?;
        let mut dims = first.to_vec();
        dims[axis] = 0;
        for shape in &shapes {
            let fits = shape.dims().len() == dims.len()
                && (0..dims.len()).all(|a| a == axis || shape.dims()[a] == dims[a]);
            dims[axis] += if fits { shape.dims()[axis] } else { return Err(fault()) };
        }
        let to = Shape::new(&dims)?;
        if self.layout.is_channels_last() {
            let layout = image_layout(&dims, state.value(self.output).halo);
            let mut out = state.take(self.output, to, layout.len_bytes());
            let bytes = out.u8s_mut();
            let mut start = 0;
            for &id in &self.inputs {
                let (input, from) = (state.bytes(id), state.image(id));
                for image in 0..from.images {
                    for y in 0..from.height {
                        let row = &input[from.offset(image, y, 0)..];
                        let to = &mut bytes[layout.offset(image, y, 0)..];
                        for x in 0..from.width {
                            let pixel = &row[x * from.channels..][..from.channels];
                            to[x * layout.channels + start..][..from.channels]
                                .copy_from_slice(pixel);
                        }
                    }
                }
                start += from.channels;
            }
            layout.fill_halo(bytes, self.op.zero_point);
            state.give(self.output, out);
            return Ok(());
        }
        let mut out = state.take(self.output, to, to.len() * self.element_bytes);
        let inner: usize = dims[axis + 1..].iter().product::<usize>() * self.element_bytes;
        let pitch = dims[axis] * inner;
        let mut start = 0;
        for (&id, shape) in self.inputs.iter().zip(&shapes) {
            let width = shape.dims()[axis] * inner;
            if width > 0 {
                let rows = state.bytes(id).chunks_exact(width);
                for (row, to) in rows.zip(out.u8s_mut().chunks_exact_mut(pitch)) {
                    to[start..start + width].copy_from_slice(row);
                }
            }
            start += width;
        }
        state.give(self.output, out);
        Ok(())
    }
}
