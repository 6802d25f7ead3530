//! Steps that move elements and leave them as they are.

use fewbits_onnx::facts::place;

use crate::integer::lower::Form;
use crate::integer::program::Step;
use crate::integer::state::{MAX_RANK, Shape, State, ValueId, image_layout};
use crate::integer::steps::shape;
use crate::{Result, RuntimeError};

/// How a shape changes, in the words of ONNX: negative axes count from the end.
#[derive(Clone, Debug)]
pub(crate) enum NewShape {
    Same,
    Flatten {
        axis: i64,
    },
    /// `-1` is what is left; 0 is the size of the input there if `zero`.
    Dims {
        dims: Vec<i64>,
        zero: bool,
    },
    /// All axes of size 1 if none is named.
    Squeeze {
        axes: Vec<i64>,
    },
    Unsqueeze {
        axes: Vec<i64>,
    },
}

impl NewShape {
    pub(crate) fn of(&self, from: Shape) -> Result<Shape> {
        let dims = from.dims();
        let fault = || RuntimeError::Run {
            reason: format!("a value of shape {from:?} cannot be reshaped by {self:?}"),
        };
        match self {
            NewShape::Same => Ok(from),
            NewShape::Flatten { axis } => {
                let axis = match *axis {
                    axis if axis == dims.len() as i64 => dims.len(),
                    axis => place(axis, dims.len()).ok_or_else(fault)?,
                };
                shape(&[dims[..axis].iter().product(), dims[axis..].iter().product()])
            }
            NewShape::Dims { dims: wanted, zero } => {
                let mut out = Vec::with_capacity(wanted.len());
                for (i, &dim) in wanted.iter().enumerate() {
                    out.push(match dim {
                        0 if *zero => *dims.get(i).ok_or_else(fault)?,
                        -1 => usize::MAX,
                        dim => usize::try_from(dim).map_err(|_| fault())?,
                    });
                }
                if let Some(free) = out.iter().position(|&d| d == usize::MAX) {
                    let known: usize = out
                        .iter()
                        .filter(|&&d| d != usize::MAX)
                        .try_fold(1usize, |n, &d| n.checked_mul(d))
                        .ok_or_else(fault)?;
                    out[free] = from.len().checked_div(known).unwrap_or(0);
                }
                let out = shape(&out)?;
                if out.len() == from.len() { Ok(out) } else { Err(fault()) }
            }
            NewShape::Squeeze { axes } => {
                let gone: Vec<usize> = match axes.as_slice() {
                    [] => (0..dims.len()).filter(|&a| dims[a] == 1).collect(),
                    axes => axes
                        .iter()
                        .map(|&a| place(a, dims.len()).filter(|&a| dims[a] == 1))
                        .collect::<Option<_>>()
                        .ok_or_else(fault)?,
                };
                let kept: Vec<usize> =
                    (0..dims.len()).filter(|a| !gone.contains(a)).map(|a| dims[a]).collect();
                shape(&kept)
            }
            NewShape::Unsqueeze { axes } => {
                let rank = dims.len() + axes.len();
                let new: Vec<usize> = axes
                    .iter()
                    .map(|&a| place(a, rank))
                    .collect::<Option<_>>()
                    .ok_or_else(fault)?;
                let mut old = dims.iter();
                let all: Option<Vec<usize>> = (0..rank)
                    .map(|a| if new.contains(&a) { Some(1) } else { old.next().copied() })
                    .collect();
                shape(&all.ok_or_else(fault)?)
            }
        }
    }
}

/// The same elements, in the same memory, of another shape; what lies in no memory of the program, such as
/// integers that a caller gives, is handed on.
pub(crate) struct Reshape {
    pub input: ValueId,
    pub output: ValueId,
    pub to: NewShape,
}

impl Step for Reshape {
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

impl Step for Transpose {
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
        let to = shape(&new)?;
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
    pub axis: i64,
    /// How the elements lie; images are joined along their channels.
    pub form: Form,
    /// What the halo is filled with.
    pub halo: u8,
    pub element_bytes: usize,
}

impl Step for Concat {
    fn run(&self, state: &mut State) -> Result<()> {
        let shapes: Vec<Shape> = self.inputs.iter().map(|&id| state.shape(id)).collect();
        let fault = || RuntimeError::Run {
            reason: format!(
                "values of shapes {shapes:?} cannot be joined along axis {}",
                self.axis
            ),
        };
        let first = shapes.first().ok_or_else(fault)?.dims();
        let axis = if self.axis < 0 { self.axis + first.len() as i64 } else { self.axis };
        let axis = usize::try_from(axis).ok().filter(|&a| a < first.len()).ok_or_else(fault)?;
        let mut dims = first.to_vec();
        dims[axis] = 0;
        for shape in &shapes {
            let fits = shape.dims().len() == dims.len()
                && (0..dims.len()).all(|a| a == axis || shape.dims()[a] == dims[a]);
            dims[axis] += if fits { shape.dims()[axis] } else { return Err(fault()) };
        }
        let to = shape(&dims)?;
        if self.form == Form::Image {
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
            layout.fill_halo(bytes, self.halo);
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
