//! Depthwise convolution: each channel has its own kernel.

mod portable;
mod row;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod weights;

use std::ops::Range;

use super::quantize::Requantize;
use super::window::Window;
#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::{Cpu, ImageLayout};
use row::Row;
pub use weights::DepthwiseWeights;

/// A depthwise convolution of images of one size, from one layout to another; the number of images does
/// not count.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a> {
    /// The weights of each channel.
    pub weights: &'a DepthwiseWeights,
    /// How they move.
    pub window: Window,
    /// How sums become bytes.
    pub requantize: Requantize<'a>,
    /// How images come in: with a halo, which holds the zero point and in which all windows lie.
    pub from: ImageLayout,
    /// How they go out.
    pub to: ImageLayout,
}

/// Computes the output rows `rows` of one image: `[height, width, channels]` to the same.
///
/// `input` is one image with its halo. `out` is these rows alone, each
/// [`row_pitch`](ImageLayout::row_pitch) bytes with the halo to its sides, so that threads can share an
/// image; the halo is left as it is.
///
/// # Panics
/// If a length or the kernel does not fit, or windows leave the halo.
pub fn depthwise_rows(
    cpu: Cpu,
    depthwise: &Depthwise<'_>,
    input: &[u8],
    rows: Range<usize>,
    out: &mut [u8],
) {
    let Depthwise { weights, window, requantize, from: ref in_layout, to: ref out_layout } =
        *depthwise;
    let channels = weights.channels();
    assert_eq!((in_layout.channels, out_layout.channels), (channels, channels));
    assert_eq!((requantize.bias.len(), requantize.scale.len()), (channels, channels));
    assert_eq!(window.kernel, weights.kernel());
    assert!(rows.end <= out_layout.height);
    assert_eq!(out.len(), rows.len() * out_layout.row_pitch());
    window.assert_within_halo(in_layout, out_layout);
    if out.is_empty() {
        return;
    }
    let pitch = in_layout.row_pitch();
    let first_tap =
        in_layout.start() - window.pads_begin[0] * pitch - window.pads_begin[1] * channels;
    let steps = [window.dilation[0] * pitch, window.dilation[1] * channels];
    let pixel_step = window.stride[1] * channels;
    #[cfg(target_arch = "x86_64")]
    let quads: Vec<[usize; 4]> = weights
        .quads()
        .map(|quad| quad.map(|tap| tap.map_or(0, |[y, x]| y * steps[0] + x * steps[1])))
        .collect();
    for (y, out) in rows.zip(out.chunks_exact_mut(out_layout.row_pitch())) {
        let input = &input[first_tap + y * window.stride[0] * pitch..];
        let row = Row { weights, input, steps, pixel_step, requantize };
        let out = &mut out[out_layout.halo.left * channels..][..out_layout.width * channels];
        match cpu.level() {
            // SAFETY: a Cpu of this level exists only where the CPU has these features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni | Level::Amx if channels >= vnni::BLOCK => unsafe {
                vnni::convolve(&row, &quads, out)
            },
            _ => portable::convolve(cpu, &row, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Halo;
    use crate::bytes::QuantizeTo;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_those_of_the_definition(
            seed in prop::collection::vec(prop_oneof![Just(0u8), Just(255), Just(128), any::<u8>()], 211),
            channels in prop_oneof![1usize..5, 7usize..10, 15usize..18, 31usize..41],
            (height, width) in (1usize..5, 1usize..6),
            kernel in prop::sample::select(&[[3, 3], [1, 1], [5, 5], [3, 2], [1, 7]][..]),
            (stride, dilation) in (1usize..3, 1usize..3),
            (zero_point, low, extreme) in any::<(u8, u8, bool)>(),
        ) {
            let reach = kernel.map(|k| (k - 1) * dilation);
            let pads_begin = reach.map(|r| r / 2);
            let halo = Halo {
                top: pads_begin[0] + 1,
                left: pads_begin[1],
                bottom: reach[0] - pads_begin[0],
                right: reach[1] - pads_begin[1] + 1,
            };
            let layout = ImageLayout { images: 2, height, width, channels, halo };
            let (out_height, out_width) = ((height - 1) / stride + 1, (width - 1) / stride + 1);
            let out_halo = Halo { left: 1, right: 2, top: 1, bottom: 0 };
            let out_layout = ImageLayout {
                height: out_height, width: out_width, halo: out_halo, ..layout
            };
            let input: Vec<u8> = seed.iter().copied().cycle().take(layout.image_pitch()).collect();
            let taps = kernel[0] * kernel[1];
            let weights: Vec<i8> = (0..channels * taps)
                .map(|i| if extreme { -128 } else { seed[(i * 7 + 3) % seed.len()] as i8 })
                .collect();
            let bias: Vec<i32> = (0..channels).map(|c| c as i32 * 5077 - 60_000).collect();
            let scale: Vec<f32> = (0..channels).map(|c| 0.0005 * (c + 1) as f32).collect();
            let window = Window {
                stride: [stride; 2], pads_begin, dilation: [dilation; 2], ..Window::of(kernel)
            };
            let to = QuantizeTo { scale: 1.0, zero_point, low, high: low.max(240) };
            let by = Requantize { bias: &bias, scale: &scale, to };

            let rows = usize::from(out_height > 1)..out_height;
            let pitch = out_layout.row_pitch();
            let mut wanted = vec![77; rows.len() * pitch];
            for (y, x) in rows.clone().flat_map(|y| (0..out_width).map(move |x| (y, x))) {
                for c in 0..channels {
                    let mut sum = 0;
                    for (ky, kx) in (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| (y, x))) {
                        let row = halo.top + y * stride + ky * dilation - pads_begin[0];
                        let column = halo.left + x * stride + kx * dilation - pads_begin[1];
                        let q = input[row * layout.row_pitch() + column * channels + c];
                        let weight = weights[c * taps + ky * kernel[1] + kx];
                        sum += i32::from(q) * i32::from(weight);
                    }
                    let steps = ((sum + bias[c]) as f32 * scale[c]).round_ties_even();
                    let byte = steps as i32 + i32::from(zero_point);
                    wanted[(y - rows.start) * pitch + (out_halo.left + x) * channels + c] =
                        byte.clamp(i32::from(by.to.low), i32::from(by.to.high)) as u8;
                }
            }
            let packed = DepthwiseWeights::new(&weights, channels, kernel);
            let depthwise = Depthwise {
                weights: &packed, window, requantize: by, from: layout, to: out_layout,
            };
            for cpu in Cpu::available() {
                let mut out = vec![77; wanted.len()];
                depthwise_rows(cpu, &depthwise, &input, rows.clone(), &mut out);
                prop_assert_eq!(&out, &wanted, "{:?}", cpu);
            }
        }
    }
}
