//! Between planes, `[channels, height, width]`, and an image of channels-last bytes with a halo.

use super::quantize::{QuantizeTo, real};
use super::window::blocks;
use crate::ImageLayout;
use crate::cpu::per_cpu;

/// Pixels and channels of a tile, the unit of transposition.
const SIDE: usize = 16;
type Lane = [u8; SIDE];

per_cpu! {
    /// Lays planes of bytes out as the image `out`, and fills its halo with `halo`.
    ///
    /// # Panics
    /// If `input` is not one image, or `out` is not [`ImageLayout::image_pitch`] bytes.
    pub fn image_from_bytes(input: &[u8], layout: &ImageLayout, halo: u8, out: &mut [u8]) {
        planes_to_image(input, layout, out, halo, |lane: &mut Lane, plane| {
            if let Some(bytes) = plane.first_chunk() {
                *lane = *bytes;
            } else {
                lane[..plane.len()].copy_from_slice(plane);
            }
        });
    }
}

per_cpu! {
    /// Quantizes planes of floats, as [`quantize`](super::quantize()) does, and lays them out as the
    /// image `out`, whose halo becomes the zero point.
    ///
    /// # Panics
    /// If `input` is not one image, or `out` is not [`ImageLayout::image_pitch`] bytes.
    pub fn quantize_image(input: &[f32], layout: &ImageLayout, to: QuantizeTo, out: &mut [u8]) {
        let rounding = to.rounding();
        planes_to_image(input, layout, out, to.zero_point, |lane: &mut Lane, plane| {
            if let Some(floats) = plane.first_chunk::<SIDE>() {
                for i in 0..SIDE {
                    lane[i] = rounding.byte(floats[i] / to.scale);
                }
            } else {
                for (byte, &x) in lane.iter_mut().zip(plane) {
                    *byte = rounding.byte(x / to.scale);
                }
            }
        });
    }
}

per_cpu! {
    /// Lays an image out as planes of bytes, without its halo.
    ///
    /// # Panics
    /// If `input` is not [`ImageLayout::image_pitch`] bytes, or `out` is not one image.
    pub fn image_to_bytes(input: &[u8], layout: &ImageLayout, out: &mut [u8]) {
        image_to_planes(input, layout, out, |plane: &mut [u8], lane| {
            if let Some(bytes) = plane.first_chunk_mut() {
                *bytes = *lane;
            } else {
                plane.copy_from_slice(&lane[..plane.len()]);
            }
        });
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
        image_to_planes(input, layout, out, |plane: &mut [f32], lane| {
            if let Some(floats) = plane.first_chunk_mut::<SIDE>() {
                for i in 0..SIDE {
                    floats[i] = real(lane[i], scale, zero_point);
                }
            } else {
                for (x, &q) in plane.iter_mut().zip(lane) {
                    *x = real(q, scale, zero_point);
                }
            }
        });
    }
}

/// Takes tiles from planes, of at most [`SIDE`] pixels that `load` makes bytes of, to the image.
#[inline(always)]
fn planes_to_image<T>(
    input: &[T],
    layout: &ImageLayout,
    out: &mut [u8],
    halo: u8,
    load: impl Fn(&mut Lane, &[T]),
) {
    let (channels, size) = (layout.channels, layout.height * layout.width);
    assert_eq!((input.len(), out.len()), (channels * size, layout.image_pitch()));
    let mut tile = [[0; SIDE]; SIDE];
    let side = channels.min(SIDE);
    for_each_tile(layout, |pixels, offsets| {
        for block in blocks(channels, side) {
            for (i, lane) in tile[..side].iter_mut().enumerate() {
                load(lane, &input[(block + i) * size + pixels.start..][..pixels.len()]);
            }
            for (pixel, offset) in transpose(&tile).iter().zip(offsets) {
                // Whole lanes where there is room: what is written beyond the channels of this
                // pixel is halo or belongs to a later pixel.
                match out[offset + block..].first_chunk_mut() {
                    Some(lane) => *lane = *pixel,
                    None => out[offset + block..][..side].copy_from_slice(&pixel[..side]),
                }
            }
        }
    });
    ImageLayout { images: 1, ..*layout }.fill_halo(out, halo);
}

/// Takes tiles from the image to planes; `store` writes the part of a plane in a tile.
#[inline(always)]
fn image_to_planes<T>(
    input: &[u8],
    layout: &ImageLayout,
    out: &mut [T],
    store: impl Fn(&mut [T], &Lane),
) {
    let (channels, size) = (layout.channels, layout.height * layout.width);
    assert_eq!((out.len(), input.len()), (channels * size, layout.image_pitch()));
    let mut tile = [[0; SIDE]; SIDE];
    let side = channels.min(SIDE);
    for_each_tile(layout, |pixels, offsets| {
        for block in blocks(channels, side) {
            for (pixel, offset) in tile.iter_mut().zip(offsets) {
                match input[offset + block..].first_chunk() {
                    Some(lane) => *pixel = *lane,
                    None => pixel[..side].copy_from_slice(&input[offset + block..][..side]),
                }
            }
            for (i, lane) in transpose(&tile)[..side].iter().enumerate() {
                store(&mut out[(block + i) * size + pixels.start..][..pixels.len()], lane);
            }
        }
    });
}

/// Calls `work` on each run of at most [`SIDE`] pixels, in their order, and where each of them
/// lies in the image. The last run may overlap the one before.
#[inline(always)]
fn for_each_tile(layout: &ImageLayout, mut work: impl FnMut(std::ops::Range<usize>, &[usize])) {
    let size = layout.height * layout.width;
    if size * layout.channels == 0 {
        return;
    }
    let run = size.min(SIDE);
    for first in blocks(size, run) {
        let (mut y, mut x) = (first / layout.width, first % layout.width);
        let mut offsets = [0; SIDE];
        for offset in &mut offsets[..run] {
            *offset = layout.offset(0, y, x);
            x += 1;
            if x == layout.width {
                (y, x) = (y + 1, 0);
            }
        }
        work(first..first + run, &offsets[..run]);
    }
}

/// Row `i` becomes column `i`.
///
/// The number of a byte has four bits of row and four of column. Interleaving the halves of the
/// tile turns these bits round by one, and vectors can do that; four times swaps row and column.
#[inline(always)]
fn transpose(tile: &[Lane; SIDE]) -> [Lane; SIDE] {
    let mut from = *tile;
    for _ in 0..4 {
        let mut to = [[0; SIDE]; SIDE];
        {
            let to = to.as_flattened_mut();
            let (low, high) = from.as_flattened().split_at(SIDE * SIDE / 2);
            for i in 0..SIDE * SIDE / 2 {
                to[2 * i] = low[i];
                to[2 * i + 1] = high[i];
            }
        }
        from = to;
    }
    from
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
            (height, width) in (1usize..7, 1usize..9),
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
            }
        }
    }
}
