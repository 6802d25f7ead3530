//! Operators on integers as ONNX has them.

use serde::{Deserialize, Serialize};

use crate::{Result, RuntimeError, Tensor};

/// What is done with two 64-bit integers; beyond 64 bits it wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegerBinary {
    /// Their sum.
    Add,
    /// Their difference.
    Sub,
    /// Their product.
    Mul,
    /// A power.
    Pow,
    /// A power whose exponents are floats; what comes of them is cut off.
    PowOfFloats,
}

/// The sums over some axes; beyond 64 bits they wrap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumOfIntegers {
    /// As ONNX counts them, from either end; all if there are none.
    pub axes: Vec<i64>,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

/// The sums of all elements up to each, along an axis; beyond 64 bits they wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// As ONNX counts it, from either end.
    pub axis: i64,
    /// Which elements are summed.
    pub of: CumSumOf,
    /// From where.
    pub from: From,
}

/// Which elements a running sum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CumSumOf {
    /// Those up to the element, with it.
    UpToThis,
    /// Those before it.
    BeforeThis,
}

/// From where a running sum begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// From the first element.
    First,
    /// From the last.
    Last,
}

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

/// ConvInteger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvInteger {
    /// How windows move.
    pub windows: WindowsOfAnyRank,
    /// The zero points given.
    pub zero_points: ZeroPoints,
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
        let refused = |reason: String| RuntimeError::Run { reason };
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
                return Err(refused("a convolution has a stride or a window of 0".into()));
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
