//! Weights in the order in which the kernels read them.

use std::ops::Range;

use super::nibbles;
use crate::arch::{BYTE_PANEL, Kernel, STEP, TILE_COLUMNS, Width};
use crate::{Buffer, Cpu};

/// Panels that stay in the second cache while all rows pass.
const CHUNK_BYTES: usize = 384 << 10;

/// Weights of a product, packed once for the kernels of one CPU.
///
/// The dot product of an output goes over `runs` runs of `run_bytes` consecutive activations: a
/// matrix product has one run, a convolution over channels-last images one for each row of its
/// window. In memory: panels of 16 columns; in a panel every step of 4 activations; in a step 16
/// columns of 4 weights, which is one 64-byte vector for VNNI and one row of an AMX tile. Runs are
/// filled up with zeros, so that what a kernel reads behind the end of a run does not count.
/// Weights that all have 4 bits take half a byte until they are multiplied, where a kernel unpacks them
/// in registers.
pub struct PackedWeights {
    pub(crate) kernel: Kernel,
    columns: usize,
    runs: usize,
    run_bytes: usize,
    padded_bytes: usize,
    panels: Buffer,
    width: Width,
    /// One a column, those of the last panel that are filled up included.
    sums: Vec<i32>,
}

impl PackedWeights {
    /// Packs `weights`, `[columns, runs, run_bytes]`.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn new(
        cpu: Cpu,
        weights: &[i8],
        columns: usize,
        runs: usize,
        run_bytes: usize,
    ) -> PackedWeights {
        assert_eq!(weights.len(), columns * runs * run_bytes, "weights of another shape");
        let kernel = Kernel::of(cpu);
        // Elsewhere one row would take longer by half than with bytes.
        let (width, steps) = if kernel.nibble_rows() > 0 && nibbles::fit(weights) {
            (Width::Nibble, 2)
        } else {
            (Width::Byte, 1)
        };
        let padded_bytes = run_bytes.next_multiple_of(kernel.run_multiple().max(steps * STEP));
        let panel_len = runs * padded_bytes * BYTE_PANEL;
        let mut panels = Buffer::new(columns.div_ceil(BYTE_PANEL) * panel_len);
        let packed = panels.i8s_mut();
        packed.fill(0);
        let mut sums = vec![0i32; columns.next_multiple_of(BYTE_PANEL)];
        for (column, sum) in sums.iter_mut().take(columns).enumerate() {
            let panel = &mut packed[column / BYTE_PANEL * panel_len..][..panel_len];
            for run in 0..runs {
                let from = &weights[(column * runs + run) * run_bytes..][..run_bytes];
                let steps =
                    panel[run * padded_bytes * BYTE_PANEL..].chunks_exact_mut(BYTE_PANEL * STEP);
                for (from, step) in from.chunks(STEP).zip(steps) {
                    step[column % BYTE_PANEL * STEP..][..from.len()].copy_from_slice(from);
                }
                *sum += from.iter().map(|&w| i32::from(w)).sum::<i32>();
            }
        }
        if width == Width::Nibble {
            panels = nibbles::pack(panels.u8s());
        }
        PackedWeights { kernel, columns, runs, run_bytes, padded_bytes, panels, width, sums }
    }

    /// Returns the number of columns of the product.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Returns the number of runs of a dot product.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Counts the activations of a run.
    pub fn run_bytes(&self) -> usize {
        self.run_bytes
    }

    /// Returns the sum of each column's weights: what a zero point of the activations is multiplied by.
    pub fn sums(&self) -> &[i32] {
        &self.sums[..self.columns]
    }

    /// The same for the columns of all panels from `column` on.
    pub(crate) fn panel_sums(&self, column: usize) -> &[i32] {
        &self.sums[column..]
    }

    /// Counts the bytes that the packed weights take.
    pub fn len_bytes(&self) -> usize {
        self.panels.len_bytes()
    }

    /// Bytes that a kernel reads of each run.
    pub(crate) fn padded_bytes(&self) -> usize {
        self.padded_bytes
    }

    /// Weights of a panel.
    pub(crate) fn panel_len(&self) -> usize {
        self.runs * self.padded_bytes * BYTE_PANEL
    }

    /// Columns that all rows pass before the next, whole tiles: as many as stay in the second cache, or
    /// as are unpacked at once.
    pub(crate) fn chunk_columns(&self) -> usize {
        match self.width {
            Width::Byte => {
                (CHUNK_BYTES / self.panel_len() * BYTE_PANEL / TILE_COLUMNS).max(1) * TILE_COLUMNS
            }
            Width::Nibble => TILE_COLUMNS,
        }
    }

    /// Calls `work` with the panels of a chunk of columns, in a width that the kernel reads for so many
    /// rows.
    pub(crate) fn with_panels<R>(
        &self,
        columns: Range<usize>,
        rows: usize,
        work: impl FnOnce(&[u8], Width) -> R,
    ) -> R {
        let start = self.width.bytes(columns.start / BYTE_PANEL * self.panel_len());
        let len = self.width.bytes(columns.len().div_ceil(BYTE_PANEL) * self.panel_len());
        let panels = &self.panels.u8s()[start..][..len];
        match self.width {
            Width::Nibble if rows > self.kernel.nibble_rows() => {
                let cpu = self.kernel.cpu();
                nibbles::with_bytes(cpu, panels, |bytes| work(bytes, Width::Byte))
            }
            width => work(panels, width),
        }
    }
}
