//! The windows that pooling and depthwise convolution slide over an image.

use serde::{Deserialize, Serialize};

use crate::{Halo, ImageLayout};

/// A sliding window; each pair is of rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Taps, at least one.
    pub kernel: [usize; 2],
    /// Pixels from a window to the next.
    pub stride: [usize; 2],
    /// How far the first window begins before the image.
    pub pads_begin: [usize; 2],
    /// How far windows may reach behind the image.
    pub pads_end: [usize; 2],
    /// Pixels from a tap to the next.
    pub dilation: [usize; 2],
}

/// The taps of a window along one axis that lie in the image.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// The place of the first.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

impl Window {
    /// Describes a window of neighbouring taps that moves by one pixel, without padding.
    pub const fn of(kernel: [usize; 2]) -> Window {
        let (none, one) = ([0; 2], [1; 2]);
        Window { kernel, stride: one, pads_begin: none, pads_end: none, dilation: one }
    }

    /// Returns the padding, as the halo of an image that holds it.
    pub fn halo(&self) -> Halo {
        let ([top, left], [bottom, right]) = (self.pads_begin, self.pads_end);
        Halo { top, left, bottom, right }
    }

    /// Counts the pixels from the first under a window to the last along `axis` (0: rows, 1: columns).
    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Counts the windows along `axis` of an image of `size` and its padding; none if not even one
    /// fits.
    pub fn count(&self, axis: usize, size: usize) -> Option<usize> {
        let padded = self.pads_begin[axis] + size + self.pads_end[axis];
        Some(padded.checked_sub(self.extent(axis))? / self.stride[axis] + 1)
    }

    /// The taps of the `at`-th window along `axis` (0: rows, 1: columns) within `size` pixels.
    pub(crate) fn span(&self, axis: usize, at: usize, size: usize) -> Span {
        let (pad, dilation) = (self.pads_begin[axis], self.dilation[axis]);
        let begin = at * self.stride[axis];
        let before = pad.saturating_sub(begin).div_ceil(dilation);
        let first = begin + before * dilation - pad;
        let inside = size.saturating_sub(first).div_ceil(dilation);
        Span { first, count: self.kernel[axis].saturating_sub(before).min(inside) }
    }

    /// Checks that the windows of the output, halo of the input included, lie in the input.
    pub(super) fn assert_within_halo(&self, input: &ImageLayout, output: &ImageLayout) {
        let halo = input.halo;
        for (axis, out, size, before, after) in [
            (0, output.height, input.height, halo.top, halo.bottom),
            (1, output.width, input.width, halo.left, halo.right),
        ] {
            let last = out.saturating_sub(1) * self.stride[axis] + self.extent(axis) - 1;
            assert!(
                self.pads_begin[axis] <= before && last < self.pads_begin[axis] + size + after,
                "windows leave the halo"
            );
        }
    }
}

/// Where blocks of `block` channels begin that cover all `channels`, at least as many. The last
/// may overlap the one before: what is computed twice is the same.
#[inline(always)]
pub(super) fn blocks(channels: usize, block: usize) -> impl Iterator<Item = usize> {
    (0..channels).step_by(block).map(move |first| first.min(channels - block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_the_taps_inside() {
        for (kernel, stride, pad, dilation, size) in
            [(3, 1, 1, 1, 5), (3, 2, 1, 1, 4), (2, 2, 0, 1, 5), (3, 1, 4, 2, 3), (5, 3, 2, 3, 9)]
        {
            let window = Window {
                stride: [stride; 2],
                pads_begin: [pad; 2],
                dilation: [dilation; 2],
                ..Window::of([kernel; 2])
            };
            for at in 0..6 {
                let inside: Vec<usize> = (0..kernel)
                    .filter_map(|k| (at * stride + k * dilation).checked_sub(pad))
                    .filter(|&place| place < size)
                    .collect();
                let span = window.span(1, at, size);
                assert_eq!(span.count, inside.len());
                if let Some(&first) = inside.first() {
                    assert_eq!(span.first, first);
                }
            }
        }
    }

    #[test]
    fn padding_is_counted_at_both_ends() {
        let window = Window {
            kernel: [3, 2],
            stride: [2, 1],
            pads_begin: [1, 0],
            pads_end: [0, 4],
            dilation: [2, 3],
        };
        assert_eq!([window.extent(0), window.extent(1)], [5, 4]);
        assert_eq!(
            [3, 4, 5, 6, 7].map(|size| window.count(0, size)),
            [None, Some(1), Some(1), Some(2), Some(2)]
        );
        assert_eq!([window.count(1, 0), window.count(1, 7)], [Some(1), Some(8)]);
        assert_eq!(window.halo(), Halo { top: 1, left: 0, bottom: 0, right: 4 });
    }

    #[test]
    fn blocks_cover_all_channels() {
        assert_eq!(blocks(40, 16).collect::<Vec<_>>(), [0, 16, 24]);
        assert_eq!(blocks(16, 16).collect::<Vec<_>>(), [0]);
    }
}
