//! Between planes, `[channels, height, width]`, and an image of channels-last bytes, or floats, with a
//! halo.

use super::quantize::{QuantizeTo, Rounding, real};
use super::window::blocks;
use crate::ImageLayout;
use crate::cpu::per_cpu;
use crate::transpose::{SIDE, transpose};

per_cpu! {
    /// Lays planes of bytes out as the image `out`, and fills its halo with `halo`.
    ///
    /// # Panics
    /// If `input` is not one image, or `out` is not [`ImageLayout::image_pitch`] bytes.
    pub fn image_from_bytes(input: &[u8], layout: &ImageLayout, halo: u8, out: &mut [u8]) {
        planes_to_image(input, layout, out, halo, &Same);
    }
}

per_cpu! {
    /// Quantizes planes of floats, as [`quantize`](super::quantize()) does, and lays them out as the
    /// image `out`, whose halo becomes the zero point.
    ///
    /// # Panics
    /// If `input` is not one image, or `out` is not [`ImageLayout::image_pitch`] bytes.
    pub fn quantize_image(input: &[f32], layout: &ImageLayout, to: QuantizeTo, out: &mut [u8]) {
        let encode = Encode { scale: to.scale, rounding: to.rounding() };
        planes_to_image(input, layout, out, to.zero_point, &encode);
    }
}

per_cpu! {
    /// Lays an image out as planes of bytes, without its halo.
    ///
    /// # Panics
    /// If `input` is not [`ImageLayout::image_pitch`] bytes, or `out` is not one image.
    pub fn image_to_bytes(input: &[u8], layout: &ImageLayout, out: &mut [u8]) {
        image_to_planes(input, layout, out, &Same);
    }
}

per_cpu! {
    /// Lays an image out as planes of the floats that its bytes stand for, without its halo.
    ///
    /// # Panics
    /// If `input` is not [`ImageLayout::image_pitch`] bytes, or `out` is not one image.
    pub fn dequantize_image(
        input: &[u8], layout: &ImageLayout, scale: f32, zero_point: u8, out: &mut [f32],
    ) {
        image_to_planes(input, layout, out, &Decode { scale, zero_point });
    }
}

per_cpu! {
    /// Lays an image of floats out as planes, without its halo.
    ///
    /// # Panics
    /// If `input` is not [`ImageLayout::image_pitch`] floats, or `out` is not one image.
    pub fn image_to_floats(input: &[f32], layout: &ImageLayout, out: &mut [f32]) {
        image_to_planes(input, layout, out, &Same);
    }
}

/// What becomes of an element on its way. Not a closure, which would not be compiled for the CPU.
trait Convert<From, To> {
    fn convert(&self, from: From) -> To;
}

struct Same;

impl<T> Convert<T, T> for Same {
    #[inline(always)]
    fn convert(&self, element: T) -> T {
        element
    }
}

struct Encode {
    scale: f32,
    rounding: Rounding,
}

impl Convert<f32, u8> for Encode {
    #[inline(always)]
    fn convert(&self, x: f32) -> u8 {
        self.rounding.byte(x / self.scale)
    }
}

struct Decode {
    scale: f32,
    zero_point: u8,
}

impl Convert<u8, f32> for Decode {
    #[inline(always)]
    fn convert(&self, byte: u8) -> f32 {
        real(byte, self.scale, self.zero_point)
    }
}

/// Converts elements, of which there are mostly as many as a vector holds.
#[inline(always)]
fn convert<From: Copy, To>(by: &impl Convert<From, To>, from: &[From], to: &mut [To]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<SIDE>(), to.first_chunk_mut::<SIDE>()) {
        for i in 0..SIDE {
            to[i] = by.convert(from[i]);
        }
    } else {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = by.convert(from);
        }
    }
}

#[inline(always)]
fn planes_to_image<T: Copy>(
    input: &[T],
    layout: &ImageLayout,
    out: &mut [u8],
    halo: u8,
    by: &impl Convert<T, u8>,
) {
    let (channels, size) = (layout.channels, layout.height * layout.width);
    assert_eq!((input.len(), out.len()), (channels * size, layout.image_pitch()));
    match channels {
        1 => return few_planes_to_image::<1, T>(input, layout, out, halo, by),
        2 => return few_planes_to_image::<2, T>(input, layout, out, halo, by),
        3 => return few_planes_to_image::<3, T>(input, layout, out, halo, by),
        4 => return few_planes_to_image::<4, T>(input, layout, out, halo, by),
        _ => (),
    }
    let mut tile = [[0; SIDE]; SIDE];
    let side = channels.min(SIDE);
    for first in runs(layout) {
        let pixels = Pixels::new(layout, first);
        for block in blocks(channels, side) {
            for (i, lane) in tile[..side].iter_mut().enumerate() {
                convert(by, &input[(block + i) * size + first..][..pixels.count], lane);
            }
            let turned = transpose(&tile);
            for (pixel, offset) in turned.iter().zip(&pixels.offsets[..pixels.count]) {
                // Whole lanes where there is room: what is written beyond the channels of this
                // pixel is halo or belongs to a later pixel.
                match out[offset + block..].first_chunk_mut() {
                    Some(lane) => *lane = *pixel,
                    None => out[offset + block..][..side].copy_from_slice(&pixel[..side]),
                }
            }
        }
    }
    ImageLayout { images: 1, ..*layout }.fill_halo(out, halo);
}

/// The same for pixels of `C` channels, so few that most of a tile would be empty.
#[inline(always)]
fn few_planes_to_image<const C: usize, T: Copy>(
    input: &[T],
    layout: &ImageLayout,
    out: &mut [u8],
    halo: u8,
    by: &impl Convert<T, u8>,
) {
    const RUN: usize = 4 * SIDE;
    let (width, size) = (layout.width, layout.height * layout.width);
    for y in 0..layout.height {
        let out_row = &mut out[layout.offset(0, y, 0)..][..width * C];
        let (pixels, _) = out_row.as_chunks_mut::<C>();
        for x in (0..width).step_by(RUN) {
            let count = RUN.min(width - x);
            let mut bytes = [[0; RUN]; C];
            for (channel, bytes) in bytes.iter_mut().enumerate() {
                let plane = &input[channel * size + y * width + x..][..count];
                for (byte, &element) in bytes.iter_mut().zip(plane) {
                    *byte = by.convert(element);
                }
            }
            for (i, pixel) in pixels[x..x + count].iter_mut().enumerate() {
                for channel in 0..C {
                    pixel[channel] = bytes[channel][i];
                }
            }
        }
    }
    ImageLayout { images: 1, ..*layout }.fill_halo(out, halo);
}

#[inline(always)]
fn image_to_planes<From: Copy + Default, To>(
    input: &[From],
    layout: &ImageLayout,
    out: &mut [To],
    by: &impl Convert<From, To>,
) {
    let (channels, size) = (layout.channels, layout.height * layout.width);
    assert_eq!((out.len(), input.len()), (channels * size, layout.image_pitch()));
    let mut tile = [[From::default(); SIDE]; SIDE];
    let side = channels.min(SIDE);
    for first in runs(layout) {
        let pixels = Pixels::new(layout, first);
        for block in blocks(channels, side) {
            for (pixel, offset) in tile.iter_mut().zip(&pixels.offsets[..pixels.count]) {
                match input[offset + block..].first_chunk() {
                    Some(lane) => *pixel = *lane,
                    None => pixel[..side].copy_from_slice(&input[offset + block..][..side]),
                }
            }
            for (i, lane) in transpose(&tile)[..side].iter().enumerate() {
                convert(by, lane, &mut out[(block + i) * size + first..][..pixels.count]);
            }
        }
    }
}

/// Where runs of [`SIDE`] pixels begin, or the only one of fewer.
#[inline(always)]
fn runs(layout: &ImageLayout) -> impl Iterator<Item = usize> {
    let size = if layout.channels == 0 { 0 } else { layout.height * layout.width };
    blocks(size, size.clamp(1, SIDE))
}

/// Where the pixels of a run lie in the image.
struct Pixels {
    offsets: [usize; SIDE],
    count: usize,
}

impl Pixels {
    #[inline(always)]
    fn new(layout: &ImageLayout, first: usize) -> Pixels {
        let count = SIDE.min(layout.height * layout.width);
        let (y, x) = (first / layout.width, first % layout.width);
        let (mut offset, mut left) = (layout.offset(0, y, x), layout.width - x);
        let halo = (layout.halo.left + layout.halo.right) * layout.channels;
        let mut offsets = [0; SIDE];
        for place in &mut offsets[..count] {
            *place = offset;
            (offset, left) = (offset + layout.channels, left - 1);
            if left == 0 {
                (offset, left) = (offset + halo, layout.width);
            }
        }
        Pixels { offsets, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{dequantize, quantize};
    use crate::{Cpu, Halo};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn layouts_change_and_change_back(
            channels in prop_oneof![1usize..5, 14usize..19, Just(33)],
            (height, width) in (1usize..7, prop_oneof![1usize..9, 60usize..70]),
            (top, left, bottom, right) in (0usize..2, 0usize..3, 0usize..2, 0usize..2),
        ) {
            let halo = Halo { top, left, bottom, right };
            let layout = ImageLayout { images: 3, height, width, channels, halo };
            let floats: Vec<f32> = (0..channels * height * width)
                .map(|i| (i * 7919 % 1013) as f32 * 0.5 - 200.0)
                .collect();
            let to = QuantizeTo { scale: 1.3, zero_point: 99, low: 3, high: 250 };
            let mut bytes = vec![0; floats.len()];
            quantize(Cpu::SCALAR, &floats, to, &mut bytes);
            let mut image = vec![99; layout.image_pitch()];
            for (i, &byte) in bytes.iter().enumerate() {
                let (pixel, channel) = (i % (height * width), i / (height * width));
                image[layout.offset(0, pixel / width, pixel % width) + channel] = byte;
            }
            let mut reals = vec![0.0; bytes.len()];
            dequantize(Cpu::SCALAR, &bytes, 0.7, 42, &mut reals);
            for cpu in Cpu::available() {
                let mut out = vec![1; image.len()];
                image_from_bytes(cpu, &bytes, &layout, 99, &mut out);
                prop_assert_eq!(&out, &image);
                out.fill(2);
                quantize_image(cpu, &floats, &layout, to, &mut out);
                prop_assert_eq!(&out, &image);
                let mut planes = vec![0; bytes.len()];
                image_to_bytes(cpu, &image, &layout, &mut planes);
                prop_assert_eq!(&planes, &bytes);
                let mut floats = vec![0.0; bytes.len()];
                dequantize_image(cpu, &image, &layout, 0.7, 42, &mut floats);
                prop_assert_eq!(&floats, &reals);
                let image: Vec<f32> = image.iter().map(|&q| real(q, 0.7, 42)).collect();
                floats.fill(0.0);
                image_to_floats(cpu, &image, &layout, &mut floats);
                prop_assert_eq!(&floats, &reals);
            }
        }
    }
}
