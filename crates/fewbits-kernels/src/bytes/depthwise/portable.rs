//! Depthwise convolution in plain Rust, compiled for every level.

use super::row::Row;
use crate::bytes::quantize::{Requantize, Rounding};
use crate::bytes::window::blocks;
use crate::cpu::per_cpu;

per_cpu! {
    /// One row of the output.
    pub(super) fn convolve(row: &Row<'_>, out: &mut [u8]) {
        match row.weights.channels() {
            16.. => by_blocks::<16>(row, out),
            8.. => by_blocks::<8>(row, out),
            _ => by_blocks::<1>(row, out),
        }
    }
}

/// Takes `N` channels at a time along the whole row, so that their weights stay in registers.
#[inline(always)]
fn by_blocks<const N: usize>(row: &Row<'_>, out: &mut [u8]) {
    let channels = row.weights.channels();
    for first in blocks(channels, N) {
        let finish = Finish::<N>::new(&row.requantize, first);
        if row.weights.kernel() == [3, 3] {
            let taps: [[i16; N]; 9] = std::array::from_fn(|tap| *row.weights.tap(tap, first));
            for (x, out) in out.chunks_exact_mut(channels).enumerate() {
                let sums = pixel_of_3x3(row, &taps, x * row.pixel_step + first);
                finish.store(&sums, &mut out[first..]);
            }
        } else {
            for (x, out) in out.chunks_exact_mut(channels).enumerate() {
                let sums = pixel::<N>(row, x * row.pixel_step, first);
                finish.store(&sums, &mut out[first..]);
            }
        }
    }
}

/// The sums of a pixel whose first tap is at `at`.
#[inline(always)]
fn pixel<const N: usize>(row: &Row<'_>, at: usize, first: usize) -> [i32; N] {
    let [rows, columns] = row.weights.kernel();
    let mut sums = [0; N];
    for y in 0..rows {
        for x in 0..columns {
            let bytes = block(row.input, at + y * row.steps[0] + x * row.steps[1] + first);
            accumulate(&mut sums, bytes, row.weights.tap(y * columns + x, first));
        }
    }
    sums
}

/// The same for the commonest kernel, whose loops unroll.
#[inline(always)]
fn pixel_of_3x3<const N: usize>(row: &Row<'_>, taps: &[[i16; N]; 9], at: usize) -> [i32; N] {
    let mut sums = [0; N];
    for y in 0..3 {
        let input = &row.input[at + y * row.steps[0]..][..2 * row.steps[1] + N];
        for x in 0..3 {
            accumulate(&mut sums, block(input, x * row.steps[1]), &taps[3 * y + x]);
        }
    }
    sums
}

/// Adds products. Both factors fit 16 bits, of which vectors multiply pairs at once: more cheaply
/// than 32 bits, and as cheaply as floats, which would not be exact for large kernels.
#[inline(always)]
fn accumulate<const N: usize>(sums: &mut [i32; N], bytes: &[u8; N], weights: &[i16; N]) {
    for i in 0..N {
        sums[i] = sums[i].wrapping_add(i32::from(bytes[i]) * i32::from(weights[i]));
    }
}

#[inline(always)]
fn block<T, const N: usize>(slice: &[T], at: usize) -> &[T; N] {
    slice[at..].first_chunk().expect("a whole block")
}

/// [`Requantize`] for a block of channels.
struct Finish<const N: usize> {
    bias: [i32; N],
    scale: [f32; N],
    rounding: Rounding,
}

impl<const N: usize> Finish<N> {
    #[inline(always)]
    fn new(by: &Requantize<'_>, first: usize) -> Finish<N> {
        let rounding = by.to.rounding();
        Finish { bias: *block(by.bias, first), scale: *block(by.scale, first), rounding }
    }

    #[inline(always)]
    fn store(&self, sums: &[i32; N], out: &mut [u8]) {
        for (i, out) in out[..N].iter_mut().enumerate() {
            let sum = sums[i].wrapping_add(self.bias[i]);
            *out = self.rounding.byte(sum as f32 * self.scale[i]);
        }
    }
}
