//! Operators on bytes.

use fewbits_kernels::Cpu;
use fewbits_kernels::bytes::{Averaging, Divisor, QuantizeTo, Window, dynamic_parameters, min_max};
use fewbits_onnx::proto::DataType;

use super::{Computed, f32s, shape, u8s};
use crate::op::{
    ByteScale, BytesBinary, BytesOperator, BytesPool, DequantizedBinary, GlobalAverage, Lut,
};
use crate::shape::Broadcast;
use crate::{Result, Tensor, Values};

pub(super) fn quantize(tensor: &Tensor, scale: ByteScale) -> Result<Tensor> {
    let to = scale.all_bytes();
    each(tensor, f32s(tensor)?, |&x| to.byte(x))
}

pub(super) fn dynamic_quantize(tensor: &Tensor) -> Result<Computed> {
    let (least, most) = min_max(Cpu::SCALAR, f32s(tensor)?);
    let (scale, zero_point) = dynamic_parameters(least, most);
    let scale = ByteScale { scale, zero_point };
    Ok(Computed { tensor: quantize(tensor, scale)?, dynamic: Some(scale) })
}

pub(super) fn dequantize(tensor: &Tensor, scale: ByteScale) -> Result<Tensor> {
    each(tensor, u8s(tensor)?, |&q| scale.float(q))
}

pub(super) fn give_out(tensor: &Tensor, data_type: DataType) -> Result<Tensor> {
    match data_type {
        DataType::Int8 => each(tensor, u8s(tensor)?, |&q| (q ^ 0x80) as i8),
        _ => Ok(tensor.clone()),
    }
}

pub(super) fn look_up(tensor: &Tensor, lut: &Lut) -> Result<Tensor> {
    each(tensor, u8s(tensor)?, |&q| lut.table[usize::from(q)])
}

fn each<T, O>(tensor: &Tensor, elements: &[T], function: impl Fn(&T) -> O) -> Result<Tensor>
where
    Values: From<Vec<O>>,
{
    Tensor::new(tensor.shape().to_vec(), elements.iter().map(function).collect::<Vec<O>>())
}

pub(super) fn binary(op: &BytesBinary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let scales = op.scales;
    let of_a = ByteScale { scale: scales.a_scale, zero_point: scales.a_zero_point };
    let of_b = ByteScale { scale: scales.b_scale, zero_point: scales.b_zero_point };
    let to = shape(a)?.broadcast(shape(b)?)?;
    let at = [Broadcast::new(shape(a)?, to), Broadcast::new(shape(b)?, to)];
    let (a, b) = (u8s(a)?, u8s(b)?);
    let byte = |i: usize| {
        let (a, b) = (of_a.float(a[at[0].at(i)]), of_b.float(b[at[1].at(i)]));
        scales.to.byte(match op.operator {
            BytesOperator::Add => a + b,
            BytesOperator::Mul => a * b,
        })
    };
    Tensor::new(to.dims().to_vec(), (0..to.len()).map(byte).collect::<Vec<u8>>())
}

pub(super) fn dequantized_binary(op: &DequantizedBinary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (dequantize(a, op.scales[0])?, dequantize(b, op.scales[1])?);
    let result = super::floats::binary(op.operation, &a, &b)?;
    match op.function {
        Some(function) => super::floats::function(function, &result),
        None => Ok(result),
    }
}

pub(super) fn pool(pool: &BytesPool, tensor: &Tensor) -> Result<Tensor> {
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
