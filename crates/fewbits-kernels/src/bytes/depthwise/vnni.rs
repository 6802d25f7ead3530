//! Depthwise convolution by dot products of four bytes (VNNI).

use std::arch::x86_64::*;
use std::hint::black_box;

use super::row::Row;
use crate::bytes::quantize::Requantize;
use crate::bytes::window::blocks;

/// Channels that one vector of sums holds.
pub(super) const BLOCK: usize = 16;

/// One row of the output, of at least [`BLOCK`] channels; `quads` says how far each tap is from the
/// first.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn convolve(row: &Row<'_>, quads: &[[usize; 4]], out: &mut [u8]) {
    let interleave = Interleave::new();
    let (kernel, column_step) = (row.weights.kernel(), row.steps[1]);
    for first in blocks(row.weights.channels(), BLOCK) {
        let finish = Finish::new(&row.requantize, first);
        if kernel != [3, 3] {
            any_kernel(row, quads, first, interleave, &finish, out);
        } else if row.pixel_step == column_step {
            three_by_three::<2>(row, first, interleave, &finish, out);
        } else if row.pixel_step == 2 * column_step {
            three_by_three::<1>(row, first, interleave, &finish, out);
        } else {
            three_by_three::<0>(row, first, interleave, &finish, out);
        }
    }
}

/// Three by three taps, a quad a column. Of the columns of a window the first `SHARED` are the last
/// of the window before.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn three_by_three<const SHARED: usize>(
    row: &Row<'_>,
    first: usize,
    interleave: Interleave,
    finish: &Finish,
    out: &mut [u8],
) {
    let channels = row.weights.channels();
    let weights: [__m512i; 3] = std::array::from_fn(|quad| load64(row.weights.quad(quad, first)));
    let inputs: [&[u8]; 3] = std::array::from_fn(|i| &row.input[i * row.steps[0] + first..]);
    let column = |at: usize| {
        let [a, b, c] = inputs.map(|input| load16(&input[at..]));
        // The weight of the fourth is zero.
        interleave.apply([a, b, c, c])
    };
    let step = row.steps[1];
    // Before the first window, what it will share.
    let mut columns = match SHARED {
        0 => [_mm512_setzero_si512(); 3],
        1 => [column(0); 3],
        _ => [column(0), column(0), column(step)],
    };
    for (x, at) in (0..out.len()).step_by(channels).enumerate() {
        let new = |i: usize| column(x * row.pixel_step + i * step);
        let [_, middle, right] = columns;
        columns = match SHARED {
            0 => [new(0), new(1), new(2)],
            1 => [right, new(1), new(2)],
            _ => [middle, right, new(2)],
        };
        let sums = _mm512_dpbusd_epi32(finish.bias, columns[0], weights[0]);
        let sums = _mm512_dpbusd_epi32(sums, columns[1], weights[1]);
        let sums = _mm512_dpbusd_epi32(sums, columns[2], weights[2]);
        store16(&mut out[at + first..], finish.bytes(sums));
    }
}

/// Any taps, four at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn any_kernel(
    row: &Row<'_>,
    quads: &[[usize; 4]],
    first: usize,
    interleave: Interleave,
    finish: &Finish,
    out: &mut [u8],
) {
    let channels = row.weights.channels();
    for (x, at) in (0..out.len()).step_by(channels).enumerate() {
        let input = &row.input[x * row.pixel_step + first..];
        let mut sums = finish.bias;
        for (i, quad) in quads.iter().enumerate() {
            let taps = interleave.apply(quad.map(|offset| load16(&input[offset..])));
            sums = _mm512_dpbusd_epi32(sums, taps, load64(row.weights.quad(i, first)));
        }
        store16(&mut out[at + first..], finish.bytes(sums));
    }
}

/// Four taps of sixteen channels become sixteen channels of four taps, by two shuffles.
#[derive(Clone, Copy)]
struct Interleave {
    /// Brings four channels of every tap into a lane of 128 bits.
    across: __m512i,
    /// Transposes each lane.
    within: __m512i,
}

impl Interleave {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Interleave {
        let across = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let within = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        // Hidden from the compiler, which makes eight other shuffles of two that it knows.
        black_box(Interleave { across, within: _mm512_broadcast_i32x4(within) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn apply(self, [a, b, c, d]: [__m128i; 4]) -> __m512i {
        let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
        let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
        let taps = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        _mm512_shuffle_epi8(_mm512_permutexvar_epi32(self.across, taps), self.within)
    }
}

/// [`Requantize`] for a block of channels, as `Rounding` does it.
struct Finish {
    bias: __m512i,
    scale: __m512,
    least: __m512,
    most: __m512,
    zero_point: __m128i,
}

impl Finish {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn new(by: &Requantize<'_>, first: usize) -> Finish {
        let steps = |byte: u8| _mm512_set1_ps(f32::from(byte) - f32::from(by.to.zero_point));
        Finish {
            bias: load64(&by.bias[first..]),
            scale: _mm512_castsi512_ps(load64(&by.scale[first..])),
            least: steps(by.to.low),
            most: steps(by.to.high),
            zero_point: _mm_set1_epi8(by.to.zero_point as i8),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn bytes(&self, sums: __m512i) -> __m128i {
        let steps = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), self.scale);
        // Of a NaN and a bound, the bound is taken: the second operand.
        let steps = _mm512_min_ps(_mm512_max_ps(steps, self.least), self.most);
        const HALF_TO_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let steps = _mm512_cvt_roundps_epi32::<HALF_TO_EVEN>(steps);
        _mm_add_epi8(_mm512_cvtepi32_epi8(steps), self.zero_point)
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load16(bytes: &[u8]) -> __m128i {
    let bytes: &[u8; 16] = bytes.first_chunk().expect("a whole block");
    // SAFETY: these are sixteen readable bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store16(out: &mut [u8], bytes: __m128i) {
    let out: &mut [u8; 16] = out.first_chunk_mut().expect("a whole block");
    // SAFETY: these are sixteen writable bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) }
}

/// Elements of four bytes that hold any bits.
trait Word: Copy {}
impl Word for i32 {}
impl Word for f32 {}
impl Word for [i8; 4] {}

#[inline]
#[target_feature(enable = "avx512f")]
fn load64<T: Word>(words: &[T]) -> __m512i {
    let words: &[T; 16] = words.first_chunk().expect("a whole block");
    // SAFETY: a Word has four bytes, so these are 64 readable ones; no alignment is needed.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}
