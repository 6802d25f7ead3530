//! The steps of a program, one kind a file.

pub(crate) mod attention;
pub(crate) mod binary_of_bytes;
pub(crate) mod cast;
pub(crate) mod constant_product;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod float;
pub(crate) mod float_images;
pub(crate) mod integer_product;
pub(crate) mod integers;
pub(crate) mod label;
pub(crate) mod movement;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod quantize;
pub(crate) mod region;
pub(crate) mod resize;

use std::cell::RefCell;

use fewbits_kernels::bytes::Window;
use fewbits_onnx::facts::place;

use crate::state::{MAX_RANK, Shape};
use crate::{Result, RuntimeError};

/// Calls `work` with memory of this thread, which it may use for anything.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Vec<f32>) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(work)
}

/// A shape of at most [`MAX_RANK`] axes.
pub(crate) fn shape(dims: &[usize]) -> Result<Shape> {
    Shape::new(dims).ok_or_else(|| RuntimeError::Run {
        reason: format!("a value has {} axes; at most {MAX_RANK} can be run", dims.len()),
    })
}

/// The place of an axis of a value with `rank` of them, which ONNX counts from either end.
pub(crate) fn place_of(axis: i64, rank: usize) -> Result<usize> {
    place(axis, rank).ok_or_else(|| RuntimeError::Run {
        reason: format!("axis {axis} of a value with {rank} axes"),
    })
}

/// The shape of `[images, channels, ..]` behind a window over images.
pub(crate) fn windowed(
    input: Shape,
    channels: usize,
    window: &Window,
    end: [usize; 2],
) -> Result<Shape> {
    let dims = input.dims();
    let spatial = dims.len().saturating_sub(2);
    if !(1..=2).contains(&spatial) || (spatial == 1 && window.kernel[0] != 1) {
        return Err(RuntimeError::Run {
            reason: format!(
                "images of shape {input:?} where [images, channels, height, width] is needed"
            ),
        });
    }
    let mut out = vec![dims[0], channels];
    for (i, &size) in dims[2..].iter().enumerate() {
        let axis = 2 - spatial + i;
        let extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
        let padded = size + window.pads_begin[axis] + end[axis];
        let steps = padded.checked_sub(extent).ok_or_else(|| RuntimeError::Run {
            reason: format!("images of shape {input:?} are smaller than a window of {extent}"),
        })?;
        out.push(steps / window.stride[axis] + 1);
    }
    shape(&out)
}
