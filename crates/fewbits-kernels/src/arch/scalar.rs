//! The specification: plain loops.

use crate::arch::tile::{BYTE_PANEL, STEP, TILE_COLUMNS, Tile, TileArgs};

/// Fills the rows and `panels` panels of `sums`.
pub(crate) fn sum(args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
    for (row, start) in args.rows.iter().enumerate() {
        let sums = &mut sums.0[row * TILE_COLUMNS..][..panels * BYTE_PANEL];
        sums.fill(0);
        for (panel, sums) in sums.chunks_exact_mut(BYTE_PANEL).enumerate() {
            let panel = &args.panels[panel * args.panel_len..][..args.panel_len];
            let mut steps = panel.chunks_exact(BYTE_PANEL * STEP);
            for run in args.runs {
                let run = &args.input[start + run..][..args.run_bytes];
                for (x, weights) in run.chunks_exact(STEP).zip(&mut steps) {
                    for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(STEP)) {
                        for (&x, &weight) in x.iter().zip(weights) {
                            *sum += i32::from(x) * i32::from(weight as i8);
                        }
                    }
                }
            }
        }
    }
}
