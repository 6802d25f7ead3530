//! MatMulInteger and ConvInteger: sums of int32, which wrap.

use std::ops::RangeInclusive;

use fewbits_kernels::broadcast_shape;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::shape::{Broadcast, Shape, places};
use crate::{Result, Tensor, Values};

/// Which zero points of a product of integers are given, behind its factors among the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroPoints {
    /// None: both are 0.
    None,
    /// That of the first factor.
    First,
    /// That of the second.
    Second,
    /// Both.
    Both,
}

impl ZeroPoints {
    /// Says which are given.
    pub fn given(first: bool, second: bool) -> ZeroPoints {
        match (first, second) {
            (false, false) => ZeroPoints::None,
            (true, false) => ZeroPoints::First,
            (false, true) => ZeroPoints::Second,
            (true, true) => ZeroPoints::Both,
        }
    }

    /// How many are given.
    fn count(self) -> usize {
        match self {
            ZeroPoints::None => 0,
            ZeroPoints::First | ZeroPoints::Second => 1,
            ZeroPoints::Both => 2,
        }
    }

    /// Splits what stands behind the factors among the inputs into both zero points.
    pub fn split<T: Copy>(self, behind: &[T]) -> [Option<T>; 2] {
        let at = |i: usize| behind.get(i).copied();
        match self {
            ZeroPoints::None => [None, None],
            ZeroPoints::First => [at(0), None],
            ZeroPoints::Second => [None, at(0)],
            ZeroPoints::Both => [at(0), at(1)],
        }
    }
}

/// MatMulInteger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatMulInteger {
    /// The second factor if it is constant; then it is no input.
    pub right: Option<Tensor>,
    /// The zero points given.
    pub zero_points: ZeroPoints,
}

impl MatMulInteger {
    /// How many values it reads.
    pub(super) fn inputs(&self) -> RangeInclusive<usize> {
        let count = 1 + usize::from(self.right.is_none()) + self.zero_points.count();
        count..=count
    }
}

/// ConvInteger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvInteger {
    /// How windows move.
    pub windows: WindowsOfAnyRank,
    /// The zero points given.
    pub zero_points: ZeroPoints,
}

impl ConvInteger {
    /// How many values it reads.
    pub(super) fn inputs(&self) -> RangeInclusive<usize> {
        let count = 2 + self.zero_points.count();
        count..=count
    }
}

/// How a convolution moves over images of any number of axes; what is not given is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowsOfAnyRank {
    /// What is around the images.
    pub padding: Padding,
    /// From a window to the next.
    pub strides: Vec<usize>,
    /// From a tap to the next.
    pub dilations: Vec<usize>,
    /// Groups of channels.
    pub groups: usize,
}

/// What is around the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// At the begin of every axis, then at the end of every axis.
    Given(Vec<usize>),
    /// As much as gives a result at every stride, an odd one at the end.
    SameUpper,
    /// The same, an odd one at the begin.
    SameLower,
}

/// How windows lie along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowAxis {
    /// The size of the images.
    pub size: usize,
    /// Taps.
    pub kernel: usize,
    /// From a window to the next.
    pub stride: usize,
    /// From a tap to the next.
    pub dilation: usize,
    /// How far the first window begins before the image.
    pub pad: usize,
    /// Windows.
    pub out: usize,
}

impl WindowsOfAnyRank {
    /// The axes of images of size `sizes` under windows of size `kernel`.
    ///
    /// # Errors
    /// If the attributes are of another number of axes, or the images smaller than a window.
    pub fn axes(&self, sizes: &[usize], kernel: &[usize]) -> Result<Vec<WindowAxis>> {
        let rank = sizes.len();
        let given = |values: &[usize], axis: usize| values.get(axis).copied().unwrap_or(1);
        let fits = |values: &[usize], of: usize| values.is_empty() || values.len() == of;
        let pads = match &self.padding {
            Padding::Given(pads) => pads.as_slice(),
            _ => &[],
        };
        if !(fits(&self.strides, rank) && fits(&self.dilations, rank) && fits(pads, 2 * rank)) {
            let reason = format!("a convolution has attributes of other than {rank} axes");
            return Err(refused(reason));
        }
        let axis = |axis: usize| {
            let (size, stride) = (sizes[axis], given(&self.strides, axis));
            let dilation = given(&self.dilations, axis);
            if stride == 0 || kernel[axis] == 0 {
                return Err(refused("a convolution has a stride or a window of 0"));
            }
            let extent = (kernel[axis] - 1) * dilation + 1;
            let out = size.div_ceil(stride);
            let missing = (out.saturating_sub(1) * stride + extent).saturating_sub(size);
            let (pad, end) = match self.padding {
                Padding::Given(_) => {
                    let pad = |at: usize| pads.get(at).copied().unwrap_or(0);
                    (pad(axis), pad(rank + axis))
                }
                Padding::SameUpper => (missing / 2, missing - missing / 2),
                Padding::SameLower => (missing - missing / 2, missing / 2),
            };
            let left = (size + pad + end).checked_sub(extent).ok_or_else(|| {
                refused(format!("images of size {sizes:?} are smaller than a window of {extent}"))
            })?;
            let out = left / stride + 1;
            Ok(WindowAxis { size, kernel: kernel[axis], stride, dilation, pad, out })
        };
        (0..rank).map(axis).collect()
    }
}

/// Bytes of either type as integers.
fn ints(tensor: &Tensor) -> Result<Vec<i32>> {
    match tensor.values() {
        Values::U8(bytes) => Ok(bytes.iter().map(|&b| i32::from(b)).collect()),
        Values::I8(bytes) => Ok(bytes.iter().map(|&b| i32::from(b)).collect()),
        other => {
            let given = other.data_type();
            Err(refused(format!("a product of integers was given {given:?}, not 8 bits")))
        }
    }
}

pub(super) fn matmul_integer(op: &MatMulInteger, inputs: &[&Tensor]) -> Result<Tensor> {
    let mut inputs = inputs.to_vec();
    if let Some(right) = &op.right {
        inputs.insert(1, right);
    }
    let [left, right, zero_points @ ..] = inputs.as_slice() else {
        return Err(refused("a product of integers lacks a factor"));
    };
    let [left_zero, right_zero] = op.zero_points.split(zero_points);
    let left_dims = match left.shape() {
        [depth] => vec![1, *depth],
        dims => dims.to_vec(),
    };
    let right_dims = match right.shape() {
        [depth] => vec![*depth, 1],
        dims => dims.to_vec(),
    };
    let ([left_batch @ .., rows, depth], [right_batch @ .., right_depth, columns]) =
        (&left_dims[..], &right_dims[..])
    else {
        return Err(refused("a product of matrices was given a scalar"));
    };
    let (rows, depth, columns) = (*rows, *depth, *columns);
    let batch = broadcast_shape(left_batch, right_batch)
        .filter(|_| depth == *right_depth)
        .ok_or_else(|| {
            refused(format!("matrices of shapes {left_dims:?} and {right_dims:?} have no product"))
        })?;
    let to = Shape::new(&[&batch[..], &[rows, columns]].concat())?;
    let batch_shape = Shape::new(&batch)?;
    let left_at = Broadcast::new(Shape::new(left_batch)?, batch_shape);
    let right_at = Broadcast::new(Shape::new(right_batch)?, batch_shape);
    let left_zeros = zeros(left_zero, to, |size| vec![size, 1])?;
    let right_zeros = zeros(right_zero, to, |size| vec![1, size])?;
    let (a, b) = (ints(left)?, ints(right)?);
    let mut sums = Vec::with_capacity(to.len());
    for matrix in 0..batch_shape.len() {
        let a = &a[left_at.at(matrix) * rows * depth..];
        let b = &b[right_at.at(matrix) * depth * columns..];
        for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
            let (a_zero, b_zero) = (left_zeros(sums.len()), right_zeros(sums.len()));
            let products =
                (0..depth).map(|k| (a[i * depth + k] - a_zero) * (b[k * columns + j] - b_zero));
            sums.push(products.fold(0, i32::wrapping_add));
        }
    }
    let mut shape = batch;
    shape.extend((left.shape().len() > 1).then_some(rows));
    shape.extend((right.shape().len() > 1).then_some(columns));
    Tensor::new(shape, sums)
}

/// The zero point for each sum of a product of shape `to`: of a scalar, a vector, which gets another axis, or
/// what broadcasts to the product.
fn zeros(
    tensor: Option<&Tensor>,
    to: Shape,
    of_vector: impl Fn(usize) -> Vec<usize>,
) -> Result<impl Fn(usize) -> i32> {
    let values = match tensor {
        Some(tensor) => ints(tensor)?,
        None => vec![0],
    };
    let dims = match tensor.map_or(&[][..], |tensor| tensor.shape()) {
        _ if values.len() == 1 => Vec::new(),
        [size] => of_vector(*size),
        dims => dims.to_vec(),
    };
    let from = Shape::new(&dims)?;
    if from.broadcast(to)? != to {
        let dims = to.dims();
        let reason = format!("zero points of shape {from:?} do not fit a product of {dims:?}");
        return Err(refused(reason));
    }
    let at = Broadcast::new(from, to);
    Ok(move |i: usize| values[at.at(i)])
}

pub(super) fn conv_integer(op: &ConvInteger, inputs: &[&Tensor]) -> Result<Tensor> {
    let [images, filters, zero_points @ ..] = inputs else {
        return Err(refused("a product of integers lacks a factor"));
    };
    let [image_zero, filter_zero] = op.zero_points.split(zero_points);
    let (image_dims, filter_dims) = (images.shape(), filters.shape());
    let unfit = || {
        let shapes = format!("{image_dims:?} and filters of shape {filter_dims:?}");
        refused(format!("images of shape {shapes} have no convolution"))
    };
    let ([count, channels, sizes @ ..], [columns, group_channels, kernel @ ..]) =
        (image_dims, filter_dims)
    else {
        return Err(unfit());
    };
    let groups = op.windows.groups;
    let fits = kernel.len() == sizes.len()
        && groups > 0
        && group_channels.checked_mul(groups) == Some(*channels)
        && columns.is_multiple_of(groups);
    if !fits {
        return Err(unfit());
    }
    let axes = op.windows.axes(sizes, kernel)?;
    let image_zero = match image_zero.map(ints).transpose()?.as_deref() {
        None => 0,
        Some([zero]) => *zero,
        Some(_) => return Err(refused("the images of a convolution have several zero points")),
    };
    let filter_zeros = filter_zero.map(ints).transpose()?.unwrap_or(vec![0]);
    if filter_zeros.len() != 1 && filter_zeros.len() != *columns {
        return Err(unfit());
    }
    let (x, w) = (ints(images)?, ints(filters)?);
    let out_dims: Vec<usize> = axes.iter().map(|axis| axis.out).collect();
    let (plane, taps): (usize, usize) = (sizes.iter().product(), kernel.iter().product());
    let mut sums = Vec::new();
    for (image, filter) in (0..*count).flat_map(|i| (0..*columns).map(move |f| (i, f))) {
        let first = filter / (columns / groups) * group_channels;
        let zero = filter_zeros[filter % filter_zeros.len()];
        for at in 0..out_dims.iter().product() {
            let at = places(at, &out_dims);
            let mut sum = 0_i32;
            for tap in 0..taps {
                let tap_at = places(tap, kernel);
                let place =
                    axes.iter().zip(at.iter().zip(&tap_at)).try_fold(0, |place, (axis, (i, t))| {
                        let along = (i * axis.stride + t * axis.dilation).checked_sub(axis.pad)?;
                        (along < axis.size).then_some(place * axis.size + along)
                    });
                // What is outside the image is its zero point.
                let Some(place) = place else { continue };
                for channel in 0..*group_channels {
                    let x = x[(image * channels + first + channel) * plane + place] - image_zero;
                    let w = w[(filter * group_channels + channel) * taps + tap] - zero;
                    sum = sum.wrapping_add(x * w);
                }
            }
            sums.push(sum);
        }
    }
    Tensor::new([&[*count, *columns], &out_dims[..]].concat(), sums)
}
