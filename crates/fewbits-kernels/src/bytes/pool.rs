//! Pooling over windows of an image.

use serde::{Deserialize, Serialize};

use super::pool_rules::{Average, Averaging, Max, PoolRule};
use super::window::{Span, Window, blocks};
use crate::cpu::per_cpu;
use crate::{Cpu, ImageLayout};

/// Pooling of images of one size, from one layout to another; the number of images does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePooling {
    /// How it moves.
    pub window: Window,
    /// How images come in.
    pub from: ImageLayout,
    /// How they go out, with as many channels.
    pub to: ImageLayout,
}

per_cpu! {
    /// Finds the greatest byte of each window and channel: `[height, width, channels]` to the same.
    ///
    /// `input` and `out` are one image each; the halo of `out` is filled with `halo`. Windows are
    /// clipped to the image, so padding never wins; one that has no pixel gives 0.
    ///
    /// # Panics
    /// If a slice is shorter than its image, or the channels differ.
    pub fn max_pool_image(pooling: &ImagePooling, input: &[u8], halo: u8, out: &mut [u8]) {
        pool(pooling, &Max, input, out);
        one(&pooling.to).fill_halo(out, halo);
    }
}

per_cpu! {
    /// Computes the average of each window and channel: `[height, width, channels]` to the same.
    ///
    /// The sum of `q - from_zero_point` over the pixels of the window that lie in the image is
    /// exact; it is multiplied by `from_scale / count / to.scale`, rounded half to even, and
    /// `to.zero_point` is added. `input` and `out` are one image each; the halo of `out` is filled
    /// with `to.zero_point`.
    ///
    /// # Panics
    /// If a slice is shorter than its image, or the channels differ.
    pub fn average_pool_image(
        pooling: &ImagePooling, averaging: Averaging, input: &[u8], out: &mut [u8],
    ) {
        pool(pooling, &Average::new(averaging, pooling.window.kernel), input, out);
        one(&pooling.to).fill_halo(out, averaging.to.zero_point);
    }
}

/// Computes the average of each channel of one image, `[height, width, channels]` to `[channels]`: the
/// rule of [`average_pool_image`] with a window that is the image, so that both divisors are the same.
///
/// # Panics
/// If `input` is shorter than its image, or `out` is not one byte a channel.
pub fn global_average_pool_image(
    cpu: Cpu,
    layout: &ImageLayout,
    averaging: Averaging,
    input: &[u8],
    out: &mut [u8],
) {
    assert_eq!(out.len(), layout.channels);
    let to =
        ImageLayout { images: 1, height: 1, width: 1, channels: out.len(), ..Default::default() };
    let window = Window::of([layout.height, layout.width]);
    average_pool_image(cpu, &ImagePooling { window, from: *layout, to }, averaging, input, out);
}

fn one(layout: &ImageLayout) -> ImageLayout {
    ImageLayout { images: 1, ..*layout }
}

/// Pools with blocks of as many channels as there are.
#[inline(always)]
fn pool(pooling: &ImagePooling, rule: &impl PoolRule, input: &[u8], out: &mut [u8]) {
    match pooling.from.channels {
        32.. => pool_blocks::<32, _>(pooling, rule, input, out),
        16.. => pool_blocks::<16, _>(pooling, rule, input, out),
        8.. => pool_blocks::<8, _>(pooling, rule, input, out),
        _ => pool_blocks::<1, _>(pooling, rule, input, out),
    }
}

/// Pools blocks of `N` channels, which stay in registers while the taps of a window go by.
#[inline(always)]
fn pool_blocks<const N: usize, P: PoolRule>(
    pooling: &ImagePooling,
    rule: &P,
    input: &[u8],
    out: &mut [u8],
) {
    let ImagePooling { window, ref from, ref to } = *pooling;
    let channels = from.channels;
    assert_eq!(channels, to.channels);
    let (row_pitch, dilation) = (from.row_pitch(), window.dilation);
    let spans: Vec<Span> = (0..to.width).map(|x| window.span(1, x, from.width)).collect();
    for y in 0..to.height {
        let rows = window.span(0, y, from.height);
        let start = from.start() + rows.first * row_pitch;
        let out_row = &mut out[to.offset(0, y, 0)..][..to.width * channels];
        for (columns, out_pixel) in spans.iter().zip(out_row.chunks_exact_mut(channels)) {
            let pixels = rows.count * columns.count;
            let multiplier = rule.multiplier(pixels);
            for block in blocks(channels, N) {
                let mut sums = [P::Sum::default(); N];
                for row in 0..rows.count {
                    let mut at =
                        start + row * dilation[0] * row_pitch + columns.first * channels + block;
                    for _ in 0..columns.count {
                        let bytes: &[u8; N] = input[at..].first_chunk().expect("a whole image");
                        for i in 0..N {
                            P::take(&mut sums[i], bytes[i]);
                        }
                        at += dilation[1] * channels;
                    }
                }
                for (out, sum) in out_pixel[block..][..N].iter_mut().zip(sums) {
                    *out = rule.finish(sum, pixels, multiplier);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Halo;
    use crate::bytes::{Divisor, QuantizeTo};
    use proptest::prelude::*;

    const fn window(
        kernel: [usize; 2],
        stride: [usize; 2],
        pads_begin: [usize; 2],
        dilation: [usize; 2],
    ) -> Window {
        Window { stride, pads_begin, dilation, ..Window::of(kernel) }
    }

    const WINDOWS: [Window; 5] = [
        window([2, 2], [2, 2], [0, 0], [1, 1]),
        window([3, 3], [2, 1], [1, 1], [1, 1]),
        window([3, 2], [1, 2], [2, 1], [1, 2]),
        window([1, 5], [1, 1], [0, 2], [1, 1]),
        window([2, 2], [3, 3], [3, 3], [2, 2]),
    ];

    /// The bytes of each window that lie in the image, channel by channel.
    fn windows(input: &[u8], layout: &ImageLayout, w: Window, out: &ImageLayout) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for (y, x) in (0..out.height).flat_map(|y| (0..out.width).map(move |x| (y, x))) {
            for channel in 0..layout.channels {
                let inside = |out: usize, k: usize, axis: usize, size: usize| {
                    (out * w.stride[axis] + k * w.dilation[axis])
                        .checked_sub(w.pads_begin[axis])
                        .filter(|&at| at < size)
                };
                let rows = (0..w.kernel[0]).filter_map(|k| inside(y, k, 0, layout.height));
                let mut bytes = Vec::new();
                for row in rows {
                    for column in (0..w.kernel[1]).filter_map(|k| inside(x, k, 1, layout.width)) {
                        bytes.push(input[layout.offset(0, row, column) + channel]);
                    }
                }
                all.push(bytes);
            }
        }
        all
    }

    proptest! {
        #[test]
        fn pools_are_those_of_the_definition(
            seed in prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 97),
            channels in prop_oneof![1usize..9, 14usize..20, 30usize..36, Just(70)],
            (height, width, out_height, out_width) in (1usize..6, 1usize..6, 1usize..5, 1usize..5),
            window in prop::sample::select(&WINDOWS[..]),
            all_taps in any::<bool>(),
            (zero_point, to_zero_point, low) in any::<(u8, u8, u8)>(),
        ) {
            let halo = Halo { top: 1, left: 0, bottom: 2, right: 1 };
            let layout = ImageLayout { images: 1, height, width, channels, halo };
            let out_layout = ImageLayout {
                height: out_height, width: out_width, halo: Halo { top: 0, left: 2, ..halo }, ..layout
            };
            let input: Vec<u8> =
                seed.iter().copied().cycle().take(layout.image_pitch()).collect();
            let to = QuantizeTo { scale: 0.37, zero_point: to_zero_point, low, high: 255 };
            let divisor = if all_taps { Divisor::AllTaps } else { Divisor::PixelsInside };
            let average = |bytes: &[u8], taps: usize| {
                let sum: i32 = bytes.iter().map(|&q| i32::from(q) - i32::from(zero_point)).sum();
                let steps = sum as f32 * (0.21 / taps as f32 / to.scale);
                let byte = steps.round_ties_even() as i32 + i32::from(to_zero_point);
                byte.clamp(i32::from(low), 255) as u8
            };
            let image = |pixels: Vec<u8>, halo: u8| {
                let mut image = vec![halo; out_layout.image_pitch()];
                let row = out_width * channels;
                for y in 0..out_height {
                    image[out_layout.offset(0, y, 0)..][..row]
                        .copy_from_slice(&pixels[y * row..][..row]);
                }
                image
            };
            let windows = windows(&input, &layout, window, &out_layout);
            let greatest =
                windows.iter().map(|bytes| bytes.iter().copied().max().unwrap_or(0)).collect();
            let averages = windows.iter().map(|bytes| average(bytes, match divisor {
                Divisor::AllTaps => window.kernel[0] * window.kernel[1],
                Divisor::PixelsInside => bytes.len().max(1),
            })).collect();
            let (greatest, averages) = (image(greatest, 5), image(averages, to_zero_point));
            let global: Vec<u8> = (0..channels).map(|channel| {
                let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
                let bytes: Vec<u8> =
                    pixels.map(|(y, x)| input[layout.offset(0, y, x) + channel]).collect();
                average(&bytes, bytes.len())
            }).collect();
            let pooling = ImagePooling { window, from: layout, to: out_layout };
            let averaging = Averaging { divisor, from_scale: 0.21, from_zero_point: zero_point, to };
            for cpu in Cpu::available() {
                let mut out = vec![77; out_layout.image_pitch()];
                max_pool_image(cpu, &pooling, &input, 5, &mut out);
                prop_assert_eq!(&out, &greatest);
                average_pool_image(cpu, &pooling, averaging, &input, &mut out);
                prop_assert_eq!(&out, &averages);
                let mut out = vec![77; channels];
                global_average_pool_image(cpu, &layout, averaging, &input, &mut out);
                prop_assert_eq!(&out, &global);
            }
        }
    }
}
