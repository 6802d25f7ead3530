//! AVX-512 VNNI: `vpdpbusd` adds 4 products of bytes to each of 16 sums, exactly.
//!
//! A step of 4 activations of a row is broadcast; the panels' vectors are used for 6 rows. 6 rows
//! of 4 panels are 24 sums in registers, 4 vectors of weights and one of activations.

use std::arch::x86_64::*;

use crate::arch::tile::{BYTE_PANEL, STEP, TILE_COLUMNS, Tile, TileArgs};

/// Rows whose sums are in registers together.
pub(crate) const ROWS: usize = 6;

/// Rows whose weights of 4 bits become bytes in registers: sums, bytes and activations of more would
/// not fit.
pub(crate) const NIBBLE_ROWS: usize = 4;

/// Fills the rows and `panels` panels of `sums`.
///
/// # Safety
/// The CPU must have the features, and `args` must have been checked for `panels`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn sum(args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
    macro_rules! sizes {
        ($rows:ident, $sums:ident: $($count:literal)*) => {
            match ($rows.len(), panels) {
                $(
                    // SAFETY: this function's contract.
                    ($count, 1) => unsafe { sum_of::<$count, 1>(args, $rows, $sums) },
                    // SAFETY: as above.
                    ($count, 2) => unsafe { sum_of::<$count, 2>(args, $rows, $sums) },
                    // SAFETY: as above.
                    ($count, 3) => unsafe { sum_of::<$count, 3>(args, $rows, $sums) },
                    // SAFETY: as above.
                    ($count, _) => unsafe { sum_of::<$count, 4>(args, $rows, $sums) },
                )*
                _ => unreachable!("chunks have at most {ROWS} rows"),
            }
        };
    }
    for (rows, sums) in args.rows.chunks(ROWS).zip(sums.0.chunks_mut(ROWS * TILE_COLUMNS)) {
        sizes!(rows, sums: 1 2 3 4 5 6);
    }
}

/// [`sum`] of up to [`NIBBLE_ROWS`] rows and weights of 4 bits.
///
/// # Safety
/// As of [`sum`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn sum_nibbles(args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
    macro_rules! sizes {
        ($($count:literal)*) => {
            match (args.rows.len(), panels) {
                $(
                    // SAFETY: this function's contract.
                    ($count, 1) => unsafe { sum_of_nibbles::<$count, 1>(args, sums) },
                    // SAFETY: as above.
                    ($count, 2) => unsafe { sum_of_nibbles::<$count, 2>(args, sums) },
                    // SAFETY: as above.
                    ($count, 3) => unsafe { sum_of_nibbles::<$count, 3>(args, sums) },
                    // SAFETY: as above.
                    ($count, _) => unsafe { sum_of_nibbles::<$count, 4>(args, sums) },
                )*
                _ => unreachable!("at most {NIBBLE_ROWS} rows"),
            }
        };
    }
    sizes!(1 2 3 4);
}

/// [`sum_nibbles`] of as many rows and panels.
///
/// # Safety
/// As of [`sum_nibbles`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sum_of_nibbles<const ROWS: usize, const PANELS: usize>(
    args: &TileArgs,
    sums: &mut Tile<i32>,
) {
    let input = args.input.as_ptr();
    let mut weights = args.panels.as_ptr();
    let starts: &[usize; ROWS] = args.rows.first_chunk().expect("as many rows");
    let mut acc = [[_mm512_setzero_si512(); PANELS]; ROWS];
    // The byte of each of the 16 codes, in all four parts of a vector.
    let bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1,
    ));
    let mask = _mm512_set1_epi8(15);
    for &run in args.runs {
        // SAFETY: `TileArgs::check` saw that every run of every row lies in the input.
        let rows: [*const u8; ROWS] =
            std::array::from_fn(|r| unsafe { input.add(starts[r] + run) });
        for pair in 0..args.run_bytes / (2 * STEP) {
            // SAFETY: a panel has this many pairs of steps of 64 bytes, and there are PANELS panels.
            let both: [__m512i; PANELS] = std::array::from_fn(|p| unsafe {
                _mm512_loadu_si512(weights.add(p * args.panel_len / 2).cast())
            });
            let lower = both.map(|w| _mm512_shuffle_epi8(bytes, _mm512_and_si512(w, mask)));
            let upper = both.map(|w| {
                _mm512_shuffle_epi8(bytes, _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask))
            });
            for (half, w) in [lower, upper].iter().enumerate() {
                for r in 0..ROWS {
                    // SAFETY: inside the run, as above.
                    let x = unsafe {
                        rows[r].add((2 * pair + half) * STEP).cast::<i32>().read_unaligned()
                    };
                    let x = _mm512_set1_epi32(x);
                    for p in 0..PANELS {
                        acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], x, w[p]);
                    }
                }
            }
            // SAFETY: at most the end of the first panel.
            weights = unsafe { weights.add(BYTE_PANEL * STEP) };
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (p, &acc) in acc.iter().enumerate() {
            let to = sums.0[r * TILE_COLUMNS + p * BYTE_PANEL..][..BYTE_PANEL].as_mut_ptr();
            // SAFETY: the slice is one vector long.
            unsafe { _mm512_storeu_si512(to.cast(), acc) };
        }
    }
}

/// [`sum`] of as many rows, which are some of those of `args`, and panels.
///
/// # Safety
/// As of [`sum`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sum_of<const ROWS: usize, const PANELS: usize>(
    args: &TileArgs,
    rows: &[usize],
    sums: &mut [i32],
) {
    let steps = args.run_bytes / STEP;
    let input = args.input.as_ptr();
    let mut weights = args.panels.as_ptr();
    let starts: &[usize; ROWS] = rows.first_chunk().expect("as many rows");
    let mut acc = [[_mm512_setzero_si512(); PANELS]; ROWS];
    for &run in args.runs {
        // SAFETY: `TileArgs::check` saw that every run of every row lies in the input.
        let rows: [*const u8; ROWS] =
            std::array::from_fn(|r| unsafe { input.add(starts[r] + run) });
        for step in 0..steps {
            // SAFETY: a panel has this many steps of 64 bytes, and there are PANELS panels.
            let w: [__m512i; PANELS] = std::array::from_fn(|p| unsafe {
                _mm512_loadu_si512(weights.add(p * args.panel_len).cast())
            });
            for r in 0..ROWS {
                // SAFETY: inside the run, as above.
                let x = unsafe { rows[r].add(step * STEP).cast::<i32>().read_unaligned() };
                let x = _mm512_set1_epi32(x);
                for p in 0..PANELS {
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], x, w[p]);
                }
            }
            // SAFETY: at most the end of the first panel.
            weights = unsafe { weights.add(BYTE_PANEL * STEP) };
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (p, &acc) in acc.iter().enumerate() {
            let to = sums[r * TILE_COLUMNS + p * BYTE_PANEL..][..BYTE_PANEL].as_mut_ptr();
            // SAFETY: the slice is one vector long.
            unsafe { _mm512_storeu_si512(to.cast(), acc) };
        }
    }
}
