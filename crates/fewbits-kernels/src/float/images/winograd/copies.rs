//! Padded copies of some rows of images with the channels last, so that a vector holds one pixel.

use std::ops::Range;

use crate::Cpu;
use crate::cpu::per_cpu;
use crate::float::images::slide::LANES;
use crate::transpose::transpose;

/// How the copies lie: `[image, row, column, channel]`, zero around the images.
#[derive(Clone, Copy)]
pub struct Copies {
    pub rows: usize,
    pub columns: usize,
    /// With those that fill the last vector up.
    pub channels: usize,
}

/// What is copied.
#[derive(Clone, Copy)]
pub struct Planes<'a> {
    /// `[image, channel, row, column]`.
    pub input: &'a [f32],
    pub channels: usize,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Rows above and columns before.
    pub pads: [usize; 2],
}

impl Copies {
    /// From a row to the next.
    pub fn row_pitch(&self) -> usize {
        self.columns * self.channels
    }

    /// From an image to the next.
    pub fn image_pitch(&self) -> usize {
        self.rows * self.row_pitch()
    }

    /// Copies the rows from number `first` of the padded images on.
    pub fn fill(
        &self,
        cpu: Cpu,
        planes: Planes,
        images: Range<usize>,
        first: usize,
        copies: &mut [f32],
    ) {
        let Planes { input, channels, size: [height, width], pads } = planes;
        assert!(width + pads[1] <= self.columns, "images wider than their copies");
        let image_len = channels * height * width;
        let top = first.saturating_sub(pads[0]).min(height);
        let bottom = (first + self.rows).saturating_sub(pads[0]).min(height);
        copies.fill(0.0);
        for (image, copy) in images.zip(copies.chunks_exact_mut(self.image_pitch())) {
            let image = &input[image * image_len..][..image_len];
            for block in (0..channels).step_by(LANES) {
                let corner = (top + pads[0]).saturating_sub(first) * self.columns + pads[1];
                let copy = &mut copy[corner * self.channels + block..];
                let lines = Lines { width, row_pitch: self.row_pitch(), pitch: self.channels };
                let planes = &image[block * height * width..];
                let count = LANES.min(channels - block);
                turn(cpu, planes, height * width, count, top * width..bottom * width, lines, copy);
            }
        }
    }
}

/// Where pixels go, of rows of `width`.
#[derive(Clone, Copy)]
struct Lines {
    width: usize,
    row_pitch: usize,
    /// From a pixel to the next.
    pitch: usize,
}

per_cpu! {
    /// Some pixels of `count` planes, at most [`LANES`], each to a vector of `copy`.
    fn turn(
        planes: &[f32],
        plane_len: usize,
        count: usize,
        pixels: Range<usize>,
        lines: Lines,
        copy: &mut [f32],
    ) {
        let Lines { width, row_pitch, pitch } = lines;
        let mut tile = [[0f32; LANES]; LANES];
        let (mut x, mut row) = (0, 0);
        for first in pixels.clone().step_by(LANES) {
            let len = LANES.min(pixels.end - first);
            for (values, plane) in tile[..count].iter_mut().zip(planes.chunks_exact(plane_len.max(1))) {
                // A copy of constant length is no call.
                match plane[first..].first_chunk() {
                    Some(plane) => *values = *plane,
                    None => values[..len].copy_from_slice(&plane[first..][..len]),
                }
            }
            for pixel in &transpose(&tile)[..len] {
                copy[row + x * pitch..][..LANES].copy_from_slice(pixel);
                x += 1;
                if x == width {
                    (x, row) = (0, row + row_pitch);
                }
            }
        }
    }
}
