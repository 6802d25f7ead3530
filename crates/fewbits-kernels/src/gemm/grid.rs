//! Where the rows of a product lie: pixels of images, or rows of a matrix.

use serde::{Deserialize, Serialize};

use crate::ImageLayout;
use crate::bytes::Window;

/// The rows of a product: `images` times `height` times `width` of them, in this order. A matrix
/// has one image of height 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Images of a batch.
    pub images: usize,
    /// Rows of pixels of an image.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl Grid {
    /// Describes the rows of a matrix.
    pub fn of_matrix(rows: usize) -> Grid {
        Grid { images: 1, height: 1, width: rows }
    }

    /// Counts the rows of the product.
    pub fn len(&self) -> usize {
        self.images * self.height * self.width
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `index`.
    pub(crate) fn position(&self, index: usize) -> Position {
        let (line, x) = (index / self.width, index % self.width);
        Position { image: line / self.height, y: line % self.height, x }
    }

    /// The start of the line behind that of `at`.
    fn next_line(&self, at: Position) -> Position {
        match at.y + 1 {
            y if y < self.height => Position { y, x: 0, ..at },
            _ => Position { image: at.image + 1, y: 0, x: 0 },
        }
    }
}

/// A row of a [`Grid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    image: usize,
    y: usize,
    x: usize,
}

/// How far apart the rows of a [`Grid`] lie in a slice, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowStrides {
    /// Where the first row starts.
    pub start: usize,
    /// From an image to the next.
    pub image: usize,
    /// From a row of pixels to the next.
    pub row: usize,
    /// From a pixel to the next.
    pub pixel: usize,
}

impl RowStrides {
    /// Returns those of the rows of a matrix, `pitch` apart.
    pub fn of_matrix(pitch: usize) -> RowStrides {
        RowStrides { start: 0, image: 0, row: 0, pixel: pitch }
    }

    /// Returns those of the pixels of images inside their halo.
    pub fn of_image(layout: &ImageLayout) -> RowStrides {
        RowStrides {
            start: layout.start(),
            image: layout.image_pitch(),
            row: layout.row_pitch(),
            pixel: layout.channels,
        }
    }

    /// Returns those of the upper left corners of the windows of a convolution, whose padding lies in the halo.
    ///
    /// # Panics
    /// If the halo is smaller than the padding.
    pub fn of_windows(layout: &ImageLayout, window: &Window) -> RowStrides {
        let Window { pads_begin, stride, .. } = *window;
        let corner = pads_begin[0] * layout.row_pitch() + pads_begin[1] * layout.channels;
        RowStrides {
            start: layout.start().checked_sub(corner).expect("the halo holds the padding"),
            image: layout.image_pitch(),
            row: stride[0] * layout.row_pitch(),
            pixel: stride[1] * layout.channels,
        }
    }

    /// Where rows of `grid` start, from row `at` on. Divisions and products for each of them would take
    /// longer than a small product of matrices.
    pub(crate) fn offsets(&self, grid: &Grid, mut at: Position, to: &mut [usize]) {
        let mut filled = 0;
        while filled < to.len() {
            let line = (grid.width - at.x).min(to.len() - filled);
            let start = self.offset(at);
            for (i, to) in to[filled..][..line].iter_mut().enumerate() {
                *to = start + i * self.pixel;
            }
            filled += line;
            at = grid.next_line(at);
        }
    }

    /// Where a row of the grid starts.
    fn offset(&self, at: Position) -> usize {
        self.start + at.image * self.image + at.y * self.row + at.x * self.pixel
    }

    /// Where the last row of `grid`, which has one, starts: the furthest, so that none of the others is beyond
    /// what a number holds. None if it is itself.
    pub(crate) fn furthest(&self, grid: &Grid) -> Option<usize> {
        [(grid.images, self.image), (grid.height, self.row), (grid.width, self.pixel)]
            .into_iter()
            .try_fold(self.start, |at, (count, pitch)| {
                at.checked_add(pitch.checked_mul(count - 1)?)
            })
    }

    /// Whether no two rows of `width` elements overlap; the end of the last must be a number.
    pub(crate) fn is_disjoint(&self, grid: &Grid, width: usize) -> bool {
        let pixel = grid.width <= 1 || self.pixel >= width;
        let line = (grid.width - 1) * self.pixel + width;
        let row = grid.height <= 1 || self.row >= line;
        let image = (grid.height - 1) * self.row + line;
        pixel && row && (grid.images <= 1 || self.image >= image)
    }
}
