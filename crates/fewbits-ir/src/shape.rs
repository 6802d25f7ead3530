//! The sizes of a value while a program runs.

use fewbits_kernels::broadcast_sizes;
use fewbits_kernels::bytes::Window;
use fewbits_onnx::facts::place;

use crate::{Result, RuntimeError};

/// Most axes of a value.
pub const MAX_RANK: usize = 8;

/// The sizes of the axes of a value, at most [`MAX_RANK`] of them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// Takes the sizes of all axes.
    ///
    /// # Errors
    /// Beyond [`MAX_RANK`] axes.
    pub fn new(dims: &[usize]) -> Result<Shape> {
        let mut shape = Shape { rank: dims.len(), ..Shape::default() };
        match shape.dims.get_mut(..dims.len()) {
            Some(own) => own.copy_from_slice(dims),
            None => {
                let reason =
                    format!("a value has {} axes; at most {MAX_RANK} can be run", dims.len());
                return Err(RuntimeError::Run { reason });
            }
        }
        Ok(shape)
    }

    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the last axis; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all axes but the last.
    pub fn rows(&self) -> usize {
        self.dims().split_last().map_or(1, |(_, rows)| rows.iter().product())
    }

    /// This shape with another last axis.
    pub fn with_last(mut self, last: usize) -> Shape {
        if self.rank > 0 {
            self.dims[self.rank - 1] = last;
        }
        self
    }

    /// The shape of what two values give element by element, as ONNX broadcasts them.
    ///
    /// # Errors
    /// If they do not go together.
    pub fn broadcast(self, other: Shape) -> Result<Shape> {
        let sizes = broadcast_sizes(self.dims(), other.dims());
        let rank = sizes.len();
        let mut dims = [0; MAX_RANK];
        for (dim, size) in dims.iter_mut().zip(sizes) {
            *dim = size.ok_or_else(|| RuntimeError::Run {
                reason: format!("values of shapes {self:?} and {other:?} do not go together"),
            })?;
        }
        Shape::new(&dims[..rank])
    }

    /// The shape of `[images, channels, ..]` behind a window over images.
    ///
    /// # Errors
    /// If these are no images of one or two spatial axes, or smaller than the window.
    pub fn windowed(self, channels: usize, window: &Window) -> Result<Shape> {
        let dims = self.dims();
        let spatial = dims.len().saturating_sub(2);
        if !(1..=2).contains(&spatial) || (spatial == 1 && window.kernel[0] != 1) {
            let needed = "[images, channels, height, width] is needed";
            let reason = format!("images of shape {self:?} where {needed}");
            return Err(RuntimeError::Run { reason });
        }
        let mut out = vec![dims[0], channels];
        for (i, &size) in dims[2..].iter().enumerate() {
            let axis = 2 - spatial + i;
            let extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            let padded = size + window.pads_begin[axis] + window.pads_end[axis];
            let steps = padded.checked_sub(extent).ok_or_else(|| RuntimeError::Run {
                reason: format!("images of shape {self:?} are smaller than a window of {extent}"),
            })?;
            out.push(steps / window.stride[axis] + 1);
        }
        Shape::new(&out)
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dims().fmt(f)
    }
}

/// Counts an axis of a value with `rank` of them from the front; ONNX counts from either end.
///
/// # Errors
/// If there is no such axis.
pub fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    place(axis, rank).ok_or_else(|| RuntimeError::Run {
        reason: format!("axis {axis} of a value with {rank} axes"),
    })
}

/// Where the elements of a value lie that is broadcast.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// The sizes of the result, and how far the value's elements lie apart along each of its axes.
    axes: Vec<(usize, usize)>,
}

impl Broadcast {
    /// Broadcasts a value of shape `from` to `to`, which it must fit.
    pub fn new(from: Shape, to: Shape) -> Broadcast {
        let missing = to.dims().len() - from.dims().len();
        let mut pitches = [0; MAX_RANK];
        let mut pitch = 1;
        for (axis, &size) in from.dims().iter().enumerate().rev() {
            pitches[missing + axis] = if size == 1 { 0 } else { pitch };
            pitch *= size;
        }
        Broadcast { axes: to.dims().iter().copied().zip(pitches).collect() }
    }

    /// The position of the value's element that meets the one at `index` of the result.
    pub fn at(&self, mut index: usize) -> usize {
        let mut found = 0;
        for &(size, pitch) in self.axes.iter().rev() {
            found += index % size * pitch;
            index /= size;
        }
        found
    }
}

/// The place of element `index` of `dims` along each axis.
pub fn places(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut places = vec![0; dims.len()];
    for (place, &size) in places.iter_mut().zip(dims).rev() {
        *place = index % size;
        index /= size;
    }
    places
}
