//! AVX2: bytes widened to 16 bits, then `vpmaddwd`, which adds pairs of products exactly.
//!
//! `vpmaddubsw` would take half the instructions, but saturates at 16 bits when both factors are
//! large: wrong answers in silence.

use std::arch::x86_64::*;

use crate::arch::tile::{BYTE_PANEL, STEP, TILE_COLUMNS, Tile, TileArgs};

/// Vectors that hold the sums of a panel: 4 columns each, in two halves.
const VECTORS: usize = 4;

/// Rows whose sums are in registers together.
pub(crate) const ROWS: usize = 3;

/// Fills the rows and `panels` panels of `sums`.
///
/// # Safety
/// The CPU must have the features, and `args` must have been checked for `panels`.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn sum(args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
    for (rows, sums) in args.rows.chunks(ROWS).zip(sums.0.chunks_mut(ROWS * TILE_COLUMNS)) {
        for panel in 0..panels {
            match rows.len() {
                // SAFETY: this function's contract.
                1 => unsafe { sum_of::<1>(args, rows, panel, sums) },
                // SAFETY: as above.
                2 => unsafe { sum_of::<2>(args, rows, panel, sums) },
                // SAFETY: as above.
                3 => unsafe { sum_of::<3>(args, rows, panel, sums) },
                _ => unreachable!("chunks have at most {ROWS} rows"),
            }
        }
    }
}

/// [`sum`] of as many rows, which are some of those of `args`, and the panel numbered `panel`.
///
/// # Safety
/// As of [`sum`].
#[target_feature(enable = "avx2")]
unsafe fn sum_of<const ROWS: usize>(
    args: &TileArgs,
    rows: &[usize],
    panel: usize,
    sums: &mut [i32],
) {
    let steps = args.run_bytes / STEP;
    let mut weights = args.panels[panel * args.panel_len..].as_ptr();
    let starts: &[usize; ROWS] = rows.first_chunk().expect("as many rows");
    let mut acc = [[_mm256_setzero_si256(); VECTORS]; ROWS];
    for &run in args.runs {
        for step in 0..steps {
            // The four activations of the step as 16 bits, four times.
            let x: [__m256i; ROWS] = std::array::from_fn(|r| {
                let at = starts[r] + run + step * STEP;
                // SAFETY: `TileArgs::check` saw that every run of every row lies in the input.
                let x = unsafe { args.input.as_ptr().add(at).cast::<i32>().read_unaligned() };
                _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(x)))
            });
            for v in 0..VECTORS {
                // SAFETY: a step of a panel is 64 bytes, four times 16.
                let w = unsafe { _mm_loadu_si128(weights.add(v * 16).cast()) };
                let w = _mm256_cvtepi8_epi16(w);
                for (acc, &x) in acc.iter_mut().zip(&x) {
                    acc[v] = _mm256_add_epi32(acc[v], _mm256_madd_epi16(x, w));
                }
            }
            // SAFETY: at most the end of the panel.
            weights = unsafe { weights.add(BYTE_PANEL * STEP) };
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        let to = &mut sums[r * TILE_COLUMNS + panel * BYTE_PANEL..][..BYTE_PANEL];
        for (&acc, to) in acc.iter().zip(to.chunks_exact_mut(4)) {
            // Of each column the two halves lie side by side.
            let mut halves = [0i32; 8];
            // SAFETY: the array is one vector long.
            unsafe { _mm256_storeu_si256(halves.as_mut_ptr().cast(), acc) };
            for (to, pair) in to.iter_mut().zip(halves.chunks_exact(2)) {
                *to = pair[0].wrapping_add(pair[1]);
            }
        }
    }
}
