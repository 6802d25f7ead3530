//! Pooling over windows of an image.

use serde::{Deserialize, Serialize};

use super::pool_rules::{Average, Max, Pool};
use super::quantize::QuantizeTo;
use super::window::{Span, Window, blocks};
use crate::ImageLayout;
use crate::cpu::per_cpu;

/// What the sum over a window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// The number of pixels in the image (`count_include_pad = 0`).
    PixelsInside,
    /// The number of taps; those outside count as zeros (`count_include_pad = 1`).
    AllTaps,
}

per_cpu! {
    /// The greatest byte of each window and channel: `[height, width, channels]` to the same.
    ///
    /// `input` and `out` are one image each; the halo of `out` is filled with `halo`. Windows are
    /// clipped to the image, so padding never wins; one that has no pixel gives 0.
    ///
    /// # Panics
    /// If a slice is shorter than its image, or the channels differ.
    pub fn max_pool_image(
        input: &[u8],
        in_layout: &ImageLayout,
        window: Window,
        halo: u8,
        out: &mut [u8],
        out_layout: &ImageLayout,
    ) {
        match in_layout.channels {
            32.. => pool::<32, Max>(input, in_layout, window, &Max, out, out_layout),
            16.. => pool::<16, Max>(input, in_layout, window, &Max, out, out_layout),
            8.. => pool::<8, Max>(input, in_layout, window, &Max, out, out_layout),
            _ => pool::<1, Max>(input, in_layout, window, &Max, out, out_layout),
        }
        one(out_layout).fill_halo(out, halo);
    }
}

per_cpu! {
    /// The average of each window and channel: `[height, width, channels]` to the same.
    ///
    /// The sum of `q - from_zero_point` over the pixels of the window that lie in the image is
    /// exact; it is multiplied by `from_scale / count / to.scale`, rounded half to even, and
    /// `to.zero_point` is added. `input` and `out` are one image each; the halo of `out` is filled
    /// with `to.zero_point`.
    ///
    /// # Panics
    /// If a slice is shorter than its image, or the channels differ.
    pub fn average_pool_image(
        input: &[u8],
        in_layout: &ImageLayout,
        window: Window,
        divisor: Divisor,
        from_scale: f32,
        from_zero_point: u8,
        to: QuantizeTo,
        out: &mut [u8],
        out_layout: &ImageLayout,
    ) {
        let taps = match divisor {
            Divisor::PixelsInside => None,
            Divisor::AllTaps => Some(window.kernel[0] * window.kernel[1]),
        };
        let average = Average::new(from_scale, from_zero_point, to, taps);
        match in_layout.channels {
            32.. => pool::<32, _>(input, in_layout, window, &average, out, out_layout),
            16.. => pool::<16, _>(input, in_layout, window, &average, out, out_layout),
            8.. => pool::<8, _>(input, in_layout, window, &average, out, out_layout),
            _ => pool::<1, _>(input, in_layout, window, &average, out, out_layout),
        }
        one(out_layout).fill_halo(out, to.zero_point);
    }
}

/// The average of each channel of one image, `[height, width, channels]` to `[channels]`: the
/// rule of [`average_pool_image`] with a window that is the image.
///
/// # Panics
/// If `input` is shorter than its image, or `out` is not one byte a channel.
pub fn global_average_pool_image(
    cpu: crate::Cpu,
    input: &[u8],
    in_layout: &ImageLayout,
    from_scale: f32,
    from_zero_point: u8,
    to: QuantizeTo,
    out: &mut [u8],
) {
    let window = Window {
        kernel: [in_layout.height, in_layout.width],
        stride: [1; 2],
        pads_begin: [0; 2],
        dilation: [1; 2],
    };
    assert_eq!(out.len(), in_layout.channels);
    let out_layout =
        ImageLayout { images: 1, height: 1, width: 1, channels: out.len(), ..Default::default() };
    let inside = Divisor::PixelsInside;
    average_pool_image(
        cpu,
        input,
        in_layout,
        window,
        inside,
        from_scale,
        from_zero_point,
        to,
        out,
        &out_layout,
    );
}

fn one(layout: &ImageLayout) -> ImageLayout {
    ImageLayout { images: 1, ..*layout }
}

/// Blocks of `N` channels stay in registers while the taps of a window go by.
#[inline(always)]
fn pool<const N: usize, P: Pool>(
    input: &[u8],
    in_layout: &ImageLayout,
    window: Window,
    pool: &P,
    out: &mut [u8],
    out_layout: &ImageLayout,
) {
    let channels = in_layout.channels;
    assert_eq!(channels, out_layout.channels);
    let (row_pitch, dilation) = (in_layout.row_pitch(), window.dilation);
    let spans: Vec<Span> =
        (0..out_layout.width).map(|x| window.span(1, x, in_layout.width)).collect();
    for y in 0..out_layout.height {
        let rows = window.span(0, y, in_layout.height);
        let start = in_layout.start() + rows.first * row_pitch;
        let out_row = &mut out[out_layout.offset(0, y, 0)..][..out_layout.width * channels];
        for (columns, out_pixel) in spans.iter().zip(out_row.chunks_exact_mut(channels)) {
            let pixels = rows.count * columns.count;
            let multiplier = pool.multiplier(pixels);
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
                    *out = pool.finish(sum, pixels, multiplier);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Halo};
    use proptest::prelude::*;

    const WINDOWS: [Window; 5] = [
        Window { kernel: [2, 2], stride: [2, 2], pads_begin: [0, 0], dilation: [1, 1] },
        Window { kernel: [3, 3], stride: [2, 1], pads_begin: [1, 1], dilation: [1, 1] },
        Window { kernel: [3, 2], stride: [1, 2], pads_begin: [2, 1], dilation: [1, 2] },
        Window { kernel: [1, 5], stride: [1, 1], pads_begin: [0, 2], dilation: [1, 1] },
        Window { kernel: [2, 2], stride: [3, 3], pads_begin: [3, 3], dilation: [2, 2] },
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
            for cpu in Cpu::available() {
                let mut out = vec![77; out_layout.image_pitch()];
                max_pool_image(cpu, &input, &layout, window, 5, &mut out, &out_layout);
                prop_assert_eq!(&out, &greatest);
                average_pool_image(
                    cpu, &input, &layout, window, divisor, 0.21, zero_point, to, &mut out, &out_layout,
                );
                prop_assert_eq!(&out, &averages);
                let mut out = vec![77; channels];
                global_average_pool_image(cpu, &input, &layout, 0.21, zero_point, to, &mut out);
                prop_assert_eq!(&out, &global);
            }
        }
    }
}
