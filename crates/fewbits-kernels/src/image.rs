//! How quantized images lie in memory: channels last, with a border.

use serde::{Deserialize, Serialize};

/// A batch of images, `[images, height, width, channels]`, each with a border ("halo") of whole
/// pixels around it that holds what a padded convolution reads there: the zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageLayout {
    /// Images in the batch.
    pub images: usize,
    /// Rows of an image, without the halo.
    pub height: usize,
    /// Pixels of a row, without the halo.
    pub width: usize,
    /// Bytes of a pixel, one a channel.
    pub channels: usize,
    /// The halo around each image.
    pub halo: Halo,
}

/// Whole pixels of padding on each side of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Halo {
    /// Rows above.
    pub top: usize,
    /// Pixels to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Pixels to the right.
    pub right: usize,
}

impl Halo {
    /// Returns the smallest halo that holds both.
    pub fn union(self, other: Halo) -> Halo {
        Halo {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

impl ImageLayout {
    /// Counts the bytes from a pixel to the one below it.
    pub fn row_pitch(&self) -> usize {
        (self.halo.left + self.width + self.halo.right) * self.channels
    }

    /// Counts the bytes from an image to the next.
    pub fn image_pitch(&self) -> usize {
        (self.halo.top + self.height + self.halo.bottom) * self.row_pitch()
    }

    /// Tells where the first pixel inside the halo of the first image lies.
    pub fn start(&self) -> usize {
        self.halo.top * self.row_pitch() + self.halo.left * self.channels
    }

    /// Tells where the pixel `(y, x)` of `image` lies; `y` and `x` count from inside the halo.
    pub fn offset(&self, image: usize, y: usize, x: usize) -> usize {
        self.start() + image * self.image_pitch() + y * self.row_pitch() + x * self.channels
    }

    /// Counts the bytes of the whole batch, halos included.
    pub fn len_bytes(&self) -> usize {
        self.images * self.image_pitch()
    }

    /// Fills the halo of every image with `value`.
    ///
    /// # Panics
    /// If `bytes` is shorter than the batch.
    pub fn fill_halo(&self, bytes: &mut [u8], value: u8) {
        if self.halo == Halo::default() || self.len_bytes() == 0 {
            return;
        }
        let row_pitch = self.row_pitch();
        let (left, right) = (self.halo.left * self.channels, self.halo.right * self.channels);
        for image in bytes[..self.len_bytes()].chunks_exact_mut(self.image_pitch()) {
            let inside = self.halo.top * row_pitch..(self.halo.top + self.height) * row_pitch;
            image[..inside.start].fill(value);
            image[inside.end..].fill(value);
            for row in image[inside].chunks_exact_mut(row_pitch) {
                row[..left].fill(value);
                row[row_pitch - right..].fill(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halo_is_all_that_is_not_a_pixel() {
        let halo = Halo { top: 1, left: 2, bottom: 0, right: 1 };
        let layout = ImageLayout { images: 2, height: 2, width: 1, channels: 3, halo };
        let mut bytes = vec![0; layout.len_bytes()];
        layout.fill_halo(&mut bytes, 9);
        for image in 0..2 {
            for y in 0..2 {
                let at = layout.offset(image, y, 0);
                assert_eq!(bytes[at..at + 3], [0; 3]);
                bytes[at..at + 3].fill(9);
            }
        }
        assert!(bytes.iter().all(|&b| b == 9));
    }
}
