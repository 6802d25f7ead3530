//! The kernels of each CPU, and the one place that chooses among them.
//!
//! A kernel fills a tile of sums: some rows, each the start of its runs in the input, times some
//! panels of packed weights. `scalar` is the specification.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
pub(crate) mod testing;
mod tile;

pub(crate) use tile::{BYTE_PANEL, STEP, TILE_COLUMNS, TILE_ROWS, Tile, TileArgs, Width};

use crate::{Cpu, Level};

/// The kernels of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel(Cpu);

impl Kernel {
    /// The kernels that `cpu` runs fastest.
    pub(crate) fn of(cpu: Cpu) -> Kernel {
        Kernel(cpu)
    }

    /// The CPU.
    pub(crate) fn cpu(self) -> Cpu {
        self.0
    }

    /// What the bytes of a run must be a multiple of.
    pub(crate) fn run_multiple(self) -> usize {
        match self.0.level() {
            Level::Amx => 64,
            _ => STEP,
        }
    }

    /// The rows that are summed together when `left` rows are left.
    pub(crate) fn rows(self, left: usize) -> usize {
        match self.0.level() {
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::ROWS,
            // Tiles take as long for one row as for 16.
            Level::Amx if left > AMX_LEAST_ROWS => TILE_ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni | Level::Amx => avx512vnni::ROWS,
            // Scalar: no Cpu has a level of another architecture.
            _ => 4,
        }
    }

    /// The rows of a tile when `left` rows are left: as many as fit that are summed together. What
    /// comes before and behind the sums is done once for all of them.
    pub(crate) fn tile_rows(self, left: usize) -> usize {
        let together = self.rows(left);
        TILE_ROWS / together * together
    }

    /// Up to how many rows weights of 4 bits are unpacked in registers: more are faster if that is done
    /// once for all of them.
    pub(crate) fn nibble_rows(self) -> usize {
        match self.0.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni | Level::Amx => avx512vnni::NIBBLE_ROWS,
            _ => 0,
        }
    }

    /// Begins a product on this thread.
    pub(crate) fn session(self) -> Session {
        Session {
            kernel: self,
            #[cfg(target_arch = "x86_64")]
            tiles: None,
        }
    }
}

/// What a thread holds during one product, whose input does not change; one at a time.
pub(crate) struct Session {
    kernel: Kernel,
    /// From the first product that takes them on.
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::Tiles>,
}

impl Session {
    /// Fills as many rows as `args` has and `panels` panels of `sums`; the rest is unspecified.
    pub(crate) fn sum(&mut self, args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
        args.check(panels);
        if args.width == Width::Nibble {
            assert!(args.rows.len() <= self.kernel.nibble_rows(), "weights that were not unpacked");
        }
        match self.kernel.0.level() {
            // SAFETY: a Cpu of this level exists only where the CPU has its features, and the
            // bounds have been checked.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni | Level::Amx if args.width == Width::Nibble => unsafe {
                avx512vnni::sum_nibbles(args, panels, sums);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Neon => unsafe { neon::sum(args, panels, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::sum(args, panels, sums) },
            // SAFETY: as above, where it takes `permitted` to offer this level; and a thread has one
            // session at a time, which stays there.
            #[cfg(target_arch = "x86_64")]
            Level::Amx if args.rows.len() > AMX_LEAST_ROWS => unsafe {
                let tiles = self.tiles.get_or_insert_with(|| amx::Tiles::configure());
                tiles.sum(args, panels, sums);
            },
            // SAFETY: as of the first.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni | Level::Amx => unsafe { avx512vnni::sum(args, panels, sums) },
            // Scalar: no Cpu has a level of another architecture.
            _ => scalar::sum(args, panels, sums),
        }
    }
}

/// Rows up to which vectors are as fast as tiles: a step of 64 activations and 64 columns takes
/// them 32 cycles for each row, and tiles 64 for up to 16.
const AMX_LEAST_ROWS: usize = 4;

#[cfg(test)]
mod tests;
