//! What the kernels of depthwise convolution work on.

use super::weights::DepthwiseWeights;
use crate::bytes::quantize::Requantize;

/// One row of the output to be.
pub(super) struct Row<'a> {
    pub weights: &'a DepthwiseWeights,
    /// From the first tap of the first pixel on.
    pub input: &'a [u8],
    /// Bytes from a tap to the one below it, and to the one to its right.
    pub steps: [usize; 2],
    /// Bytes from the first tap of a pixel to that of the next.
    pub pixel_step: usize,
    pub requantize: Requantize<'a>,
}
