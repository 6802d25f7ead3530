//! What a convolution is, and what part of it is computed at a time.

use std::ops::Range;

use crate::bytes::Window;
use crate::float::function::Function;

/// A convolution over images of one size.
#[derive(Clone, Copy, Debug)]
pub struct Convolution<'a> {
    /// One for each filter, or none at all.
    pub bias: &'a [f32],
    /// Channels of what comes out.
    pub filters: usize,
    /// Channels of what goes in.
    pub channels: usize,
    /// Groups of channels, each with its own filters.
    pub groups: usize,
    /// How it moves.
    pub window: Window,
    /// Rows and columns of the images.
    pub size: [usize; 2],
    /// Rows and columns of the result, at least one; what windows read beyond the image is zero.
    pub out_size: [usize; 2],
    /// Computed of each sum, the bias included.
    pub function: Option<Function>,
}

impl Convolution<'_> {
    /// Elements of a channel of the result.
    pub(super) fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }
}

/// Some rows of some filters over some images.
pub(super) struct Part<'a> {
    pub input: &'a [f32],
    pub images: Range<usize>,
    pub filters: Range<usize>,
    /// Of windows, or of tiles of them.
    pub rows: Range<usize>,
}
