//! Convolutions of floats, and pooling of bytes and of floats, over images of one or two spatial axes.

use fewbits_kernels::Cpu;
use fewbits_kernels::bytes::{Averaging, Divisor, QuantizeTo, Window};
use fewbits_kernels::float::{self, Function};
use serde::{Deserialize, Serialize};

use super::{f32s, refused, shape, u8s};
use crate::{Result, Tensor};

/// Pooling of bytes over windows of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BytesPool {
    /// The greatest byte; padding never wins.
    Max {
        /// How windows move.
        window: Window,
        /// The zero point, which fills a halo.
        zero_point: u8,
    },
    /// The average of what the bytes stand for.
    Average {
        /// How windows move.
        window: Window,
        /// What the average is taken of, and how it becomes bytes.
        averaging: Averaging,
    },
}

/// The average of bytes over the spatial axes of `[images, channels, ..]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalAverage {
    /// What it is taken of, and how it becomes bytes.
    pub averaging: Averaging,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

/// A convolution of floats `[images, channels, ..]` with weights `[filters, channels of a group, rows,
/// columns]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloatConv {
    /// Of four axes, floats.
    pub weights: Tensor,
    /// One for each filter, or none.
    #[serde(with = "crate::stored::per_column")]
    pub bias: Vec<f32>,
    /// Groups of channels.
    pub groups: usize,
    /// How windows move.
    pub window: Window,
    /// What follows.
    pub function: Option<Function>,
}

/// What is made of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatPooling {
    /// The greatest of it.
    Max,
    /// Its average.
    Average(Divisor),
}

/// MaxPool or AveragePool of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatPool {
    /// How windows move.
    pub window: Window,
    /// What is made of them.
    pub pooling: FloatPooling,
}

pub(super) fn bytes_pool(pool: &BytesPool, tensor: &Tensor) -> Result<Tensor> {
    match pool {
        BytesPool::Max { window, .. } => {
            over_windows(tensor, window, |taps| taps.iter().copied().max().unwrap_or(0))
        }
        BytesPool::Average { window, averaging } => {
            let all = window.kernel[0] * window.kernel[1];
            over_windows(tensor, window, |taps| average(averaging, taps, all))
        }
    }
}

/// The exact sum over the taps of a window, multiplied once and rounded.
fn average(averaging: &Averaging, taps: &[u8], all: usize) -> u8 {
    let zero_point = i32::from(averaging.from_zero_point);
    let sum: i32 = taps.iter().map(|&q| i32::from(q) - zero_point).sum();
    let count = match averaging.divisor {
        Divisor::PixelsInside => taps.len().max(1),
        Divisor::AllTaps => all,
    };
    let to = averaging.to;
    let multiplier = averaging.from_scale / count as f32 / to.scale;
    QuantizeTo { scale: 1.0, ..to }.byte(sum as f32 * multiplier)
}

/// A byte for the taps of each window that lie in the image, for each image and channel.
fn over_windows(tensor: &Tensor, window: &Window, byte: impl Fn(&[u8]) -> u8) -> Result<Tensor> {
    let from = shape(tensor)?;
    let channels = from.dims().get(1).copied().unwrap_or(1);
    let to = from.windowed(channels, window)?;
    let [height, width] = image_size(from.dims());
    let [out_height, out_width] = image_size(to.dims());
    let mut out = Vec::with_capacity(to.len());
    for plane in u8s(tensor)?.chunks_exact((height * width).max(1)) {
        for y in 0..out_height {
            for x in 0..out_width {
                let taps = window_taps(window, [y, x], [height, width]);
                let taps: Vec<u8> = taps.flatten().map(|(y, x)| plane[y * width + x]).collect();
                out.push(byte(&taps));
            }
        }
    }
    out.resize(to.len(), 0);
    Tensor::new(to.dims().to_vec(), out)
}

/// Rows and columns of images of one or two spatial axes.
pub(super) fn image_size(dims: &[usize]) -> [usize; 2] {
    match dims {
        [_, _, height, width] => [*height, *width],
        [_, _, width] => [1, *width],
        _ => [1, 1],
    }
}

/// The row and column of each tap of the window at `at`; `None` for one outside the image.
pub(super) fn window_taps(
    window: &Window,
    at: [usize; 2],
    size: [usize; 2],
) -> impl Iterator<Item = Option<(usize, usize)>> {
    let Window { kernel, stride, pads_begin, dilation, .. } = *window;
    let along = move |axis: usize, tap: usize| {
        let place = (at[axis] * stride[axis] + tap * dilation[axis]).checked_sub(pads_begin[axis]);
        place.filter(|&place| place < size[axis])
    };
    (0..kernel[0])
        .flat_map(move |i| (0..kernel[1]).map(move |j| Some((along(0, i)?, along(1, j)?))))
}

pub(super) fn global_average(op: &GlobalAverage, tensor: &Tensor) -> Result<Tensor> {
    let dims = tensor.shape();
    let (channels, spatial) = (dims[..2].to_vec(), &dims[2..]);
    let size: usize = spatial.iter().product();
    let mut to = channels;
    if op.keep_axes {
        to.resize(dims.len(), 1);
    }
    let mut out = vec![0; to.iter().product()];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = average(&op.averaging, &u8s(tensor)?[i * size..][..size], size);
    }
    Tensor::new(to, out)
}

pub(super) fn float_conv(conv: &FloatConv, tensor: &Tensor) -> Result<Tensor> {
    let weights = conv.weights.shape();
    let &[filters, group_channels, ..] = weights else {
        return Err(refused(format!("weights of shape {weights:?} are no filters")));
    };
    let to = shape(tensor)?.windowed(filters, &conv.window)?;
    let channels = group_channels * conv.groups;
    if tensor.shape()[1] != channels {
        let given = tensor.shape()[1];
        return Err(refused(format!(
            "a convolution of {channels} channels was given images of {given}"
        )));
    }
    let shape: [usize; 4] = weights.try_into().map_err(|_| refused("no filters"))?;
    let packed = float::Weights::new(
        Cpu::SCALAR,
        f32s(&conv.weights)?.to_vec(),
        shape,
        conv.groups,
        conv.window,
    );
    let convolution = float::Convolution {
        bias: &conv.bias,
        filters,
        channels,
        groups: conv.groups,
        window: conv.window,
        size: image_size(tensor.shape()),
        out_size: image_size(to.dims()),
        function: conv.function,
    };
    let mut out = vec![0.0; to.len()];
    let planes = 0..to.dims()[0] * filters;
    if !out.is_empty() {
        let mut scratch = Vec::new();
        float::convolve(
            Cpu::SCALAR,
            &convolution,
            &packed,
            f32s(tensor)?,
            planes,
            &mut out,
            &mut scratch,
        );
    }
    Tensor::new(to.dims().to_vec(), out)
}

pub(super) fn float_pool(pool: &FloatPool, tensor: &Tensor) -> Result<Tensor> {
    let from = shape(tensor)?;
    let channels = from.dims().get(1).copied().unwrap_or(1);
    let to = from.windowed(channels, &pool.window)?;
    let pooling = float::Pooling {
        window: pool.window,
        size: image_size(from.dims()),
        out_size: image_size(to.dims()),
    };
    let (mut out, mut scratch) = (vec![0.0; to.len()], Vec::new());
    match pool.pooling {
        FloatPooling::Max => {
            float::max_pool(Cpu::SCALAR, &pooling, f32s(tensor)?, &mut out, &mut scratch);
        }
        FloatPooling::Average(divisor) => {
            float::average_pool(
                Cpu::SCALAR,
                &pooling,
                divisor,
                f32s(tensor)?,
                &mut out,
                &mut scratch,
            );
        }
    }
    Tensor::new(to.dims().to_vec(), out)
}
