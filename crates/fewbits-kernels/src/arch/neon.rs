//! NEON with dot products: `sdot` adds 4 products of bytes to each of 4 sums, exactly.
//!
//! It takes both factors for signed. So the top bit of every activation is flipped, which takes 128
//! from its value, and the sums start with what is missing then: 128 times the weights of a column
//! added up, which is known since they were packed.
//!
//! 4 rows of a panel are 16 sums in registers, 4 vectors of weights and 4 of activations. A vector
//! of activations lasts for 4 steps: `sdot` takes any 4 bytes of it as a factor of all columns.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::arch::tile::{BYTE_PANEL, STEP, TILE_COLUMNS, Tile, TileArgs};

/// Vectors of a step of weights, and of the sums of a row: 4 columns each.
const VECTORS: usize = 4;

/// Rows whose sums are in registers together.
pub(crate) const ROWS: usize = 4;

/// Steps whose activations are loaded together.
const STEPS: usize = 4;

/// Fills the rows and `panels` panels of `sums`.
///
/// # Safety
/// The CPU must have the features, and `args` must have been checked for `panels`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn sum(args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
    // All rows pass over one panel before the next, since it fits into the first cache.
    for panel in 0..panels {
        for (rows, sums) in args.rows.chunks(ROWS).zip(sums.0.chunks_mut(ROWS * TILE_COLUMNS)) {
            match rows.len() {
                // SAFETY: this function's contract.
                1 => unsafe { sum_of::<1>(args, rows, panel, sums) },
                // SAFETY: as above.
                2 => unsafe { sum_of::<2>(args, rows, panel, sums) },
                // SAFETY: as above.
                3 => unsafe { sum_of::<3>(args, rows, panel, sums) },
                // SAFETY: as above.
                4 => unsafe { sum_of::<4>(args, rows, panel, sums) },
                _ => unreachable!("chunks have at most {ROWS} rows"),
            }
        }
    }
}

/// [`sum`] of as many rows, which are some of those of `args`, and the panel numbered `panel`.
///
/// # Safety
/// As of [`sum`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn sum_of<const ROWS: usize>(
    args: &TileArgs,
    rows: &[usize],
    panel: usize,
    sums: &mut [i32],
) {
    let steps = args.run_bytes / STEP;
    let (whole, rest) = (steps / STEPS, steps % STEPS);
    let mut weights = args.panels[panel * args.panel_len..].as_ptr();
    let starts: &[usize; ROWS] = rows.first_chunk().expect("as many rows");
    let mut acc = [missing(&args.column_sums[panel * BYTE_PANEL..]); ROWS];
    for &run in args.runs {
        // SAFETY: `TileArgs::check` saw that every run of every row lies in the input.
        let mut rows: [*const u8; ROWS] =
            std::array::from_fn(|r| unsafe { args.input.as_ptr().add(starts[r] + run) });
        for _ in 0..whole {
            // SAFETY: four steps of a run are 16 bytes.
            let x: [int8x16_t; ROWS] =
                std::array::from_fn(|r| signed(unsafe { vld1q_u8(rows[r]) }));
            // SAFETY: a panel has 64 bytes for every step; at most its end is reached.
            unsafe {
                add_step::<0, ROWS>(&mut acc, weights, &x);
                add_step::<1, ROWS>(&mut acc, weights.add(BYTE_PANEL * STEP), &x);
                add_step::<2, ROWS>(&mut acc, weights.add(2 * BYTE_PANEL * STEP), &x);
                add_step::<3, ROWS>(&mut acc, weights.add(3 * BYTE_PANEL * STEP), &x);
                weights = weights.add(STEPS * BYTE_PANEL * STEP);
            }
            // SAFETY: at most the end of the run.
            rows = rows.map(|row| unsafe { row.add(STEPS * STEP) });
        }
        for _ in 0..rest {
            let x: [int8x16_t; ROWS] = std::array::from_fn(|r| {
                // SAFETY: a step of a run is 4 bytes.
                let x = unsafe { rows[r].cast::<u32>().read_unaligned() };
                signed(vreinterpretq_u8_u32(vdupq_n_u32(x)))
            });
            // SAFETY: as above.
            unsafe {
                add_step::<0, ROWS>(&mut acc, weights, &x);
                weights = weights.add(BYTE_PANEL * STEP);
            }
            // SAFETY: as above.
            rows = rows.map(|row| unsafe { row.add(STEP) });
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        let to = &mut sums[r * TILE_COLUMNS + panel * BYTE_PANEL..][..BYTE_PANEL];
        for (&acc, to) in acc.iter().zip(to.chunks_exact_mut(4)) {
            // SAFETY: the slice is one vector long.
            unsafe { vst1q_s32(to.as_mut_ptr(), acc) };
        }
    }
}

/// What flipped activations take from the sums of a panel.
#[inline]
#[target_feature(enable = "neon")]
fn missing(column_sums: &[i32]) -> [int32x4_t; VECTORS] {
    let column_sums: &[i32; BYTE_PANEL] = column_sums.first_chunk().expect("a whole panel");
    // SAFETY: a panel is as long as all the vectors.
    std::array::from_fn(|v| unsafe { vshlq_n_s32::<7>(vld1q_s32(column_sums[4 * v..].as_ptr())) })
}

/// 128 less.
#[inline]
#[target_feature(enable = "neon")]
fn signed(x: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80)))
}

/// Adds the products of one step of weights and the step of `x` that is numbered `STEP_OF_X`.
///
/// # Safety
/// There must be a step of 64 bytes at `weights`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add_step<const STEP_OF_X: usize, const ROWS: usize>(
    acc: &mut [[int32x4_t; VECTORS]; ROWS],
    weights: *const u8,
    x: &[int8x16_t; ROWS],
) {
    for v in 0..VECTORS {
        // SAFETY: this function's contract.
        let w = unsafe { vld1q_s8(weights.add(v * 16).cast()) };
        for (acc, &x) in acc.iter_mut().zip(x) {
            acc[v] = dot::<STEP_OF_X>(acc[v], w, x);
        }
    }
}

/// Adds to each sum the products of its 4 bytes of `w` and the 4 of `x` from `4 * QUAD` on.
///
/// `vdotq_laneq_s32`, which Rust does not offer yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const QUAD: usize>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: nothing but the register of sums changes; the CPU has the instruction.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{quad}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            quad = const QUAD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
