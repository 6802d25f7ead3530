//! AMX: `tdpbusd` multiplies 16 rows of 64 activations by 64 rows of 16 weights.
//!
//! The packed weights are tiles already: 1024 bytes, one behind the other in a panel. Activations
//! are loaded straight from the input where 16 rows lie evenly apart, and otherwise (at the end of
//! a line of pixels) from a copy, made once for all columns. Sums stay in tiles over all of a dot
//! product, however long.
//!
//! `tdpbusd` starts every 16 cycles and takes about 52, so four independent sums are wanted to hide
//! its latency: 2 groups of rows by 2 panels, or 1 by 4. The first loads one tile for each product,
//! at 8 cycles in the first cache, 16 where rows cross cache lines: half of what the products take.
//! Prefetching is left to the CPU, since weights and rows are read in ascending order.

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod emulator;

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::offset_of;

use crate::Buffer;
use crate::arch::tile::{BYTE_PANEL, STEP, TILE_COLUMNS, TILE_ROWS, Tile, TileArgs};
use crate::cpu::amx::{ROW_BYTES, ROWS};

/// Scratch memory that a thread keeps for the next product.
const KEPT_BYTES: usize = 1 << 20;

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All 8 tiles at their full size.
static CONFIG: Config = {
    let mut config =
        Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut tile = 0;
    while tile < 8 {
        config.row_bytes[tile] = ROW_BYTES as u16;
        config.rows[tile] = ROWS as u8;
        tile += 1;
    }
    config
};

/// The tiles of this thread, configured for one product and released at its end.
///
/// Between products others may configure the tiles for themselves, and tiles that are not released
/// make every switch of threads dearer. The input must not change meanwhile, since copies of rows
/// are kept.
pub(crate) struct Tiles {
    gathered: [Gathered; 2],
    /// The configuration is the thread's.
    thread: PhantomData<*mut ()>,
}

thread_local! {
    static SCRATCH: Cell<[Buffer; 2]> = Cell::default();
}

impl Tiles {
    /// Configures the tiles of this thread.
    ///
    /// # Safety
    /// [`permitted`](crate::cpu::amx::permitted) must have said yes, and the thread must hold no other
    /// [`Tiles`].
    pub(crate) unsafe fn configure() -> Tiles {
        // SAFETY: by the contract there are tiles; the operand is 64 bytes long.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) };
        Tiles {
            gathered: SCRATCH.take().map(|bytes| Gathered { bytes, runs: Vec::new(), rows: None }),
            thread: PhantomData,
        }
    }

    /// Fills the rows and `panels` panels of `sums`.
    ///
    /// # Safety
    /// `args` must have been checked for `panels`.
    pub(crate) unsafe fn sum(&mut self, args: &TileArgs, panels: usize, sums: &mut Tile<i32>) {
        let rows = args.rows.len();
        assert!((1..=TILE_ROWS).contains(&rows) && args.run_bytes.is_multiple_of(ROW_BYTES));
        if args.panel_len == 0 {
            sums.0.fill(0);
            return;
        }
        // Of 17 to 31 rows the second group overlaps the first instead of repeating its last row:
        // then it is even wherever the rows are.
        let starts = [0, rows.saturating_sub(ROWS)];
        let counts = [rows.min(ROWS), if rows > ROWS { ROWS } else { 0 }];
        let [first, second] = &mut self.gathered;
        let groups = [
            Group::of(args, &args.rows[..counts[0]], first),
            Group::of(args, &args.rows[starts[1]..][..counts[1]], second),
        ];
        let to = sums.0.as_mut_ptr();
        let mut product = Product {
            start: groups.each_ref().map(|g| g.start),
            pitch: groups.each_ref().map(|g| g.pitch),
            runs: groups.each_ref().map(|g| g.runs),
            sums: starts.map(|row| to.wrapping_add(row * TILE_COLUMNS)),
            run_count: args.runs.len(),
            run_tiles: args.run_bytes / ROW_BYTES,
            panels: args.panels.as_ptr(),
            panel_bytes: args.panel_len,
        };
        // SAFETY: `Group::of` saw that 16 rows can be read, and the contract that the panels can;
        // 16 rows behind the start of each group and the panels' columns lie in the sums.
        unsafe {
            if rows <= ROWS {
                match panels {
                    1 => product.one_group::<1>(),
                    2 => product.one_group::<2>(),
                    3 => product.one_group::<3>(),
                    _ => product.one_group::<4>(),
                }
                return;
            }
            for panel in (0..panels).step_by(2) {
                match panels - panel {
                    1 => product.two_groups::<1>(),
                    _ => product.two_groups::<2>(),
                }
                product.panels = product.panels.wrapping_add(2 * product.panel_bytes);
                product.sums = product.sums.map(|sums| sums.wrapping_add(2 * BYTE_PANEL));
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles, since this value was made, and nobody else uses those of this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
        let scratch = self.gathered.each_mut().map(|gathered| std::mem::take(&mut gathered.bytes));
        if scratch.iter().all(|bytes| bytes.len_bytes() <= KEPT_BYTES) {
            // A thread that ends keeps nothing.
            let _ = SCRATCH.try_with(|kept| kept.set(scratch));
        }
    }
}

/// A copy of 16 rows that do not lie evenly apart.
struct Gathered {
    bytes: Buffer,
    /// Where the runs lie in a row of the copy.
    runs: Vec<usize>,
    /// What was copied.
    rows: Option<CopiedRows>,
}

/// The rows of a copy.
#[derive(Clone, Copy, PartialEq)]
struct CopiedRows {
    input: *const [u8],
    runs: *const [usize],
    run_bytes: usize,
    count: usize,
    rows: [usize; ROWS],
}

/// 16 rows, of which runs can be read.
struct Group {
    start: *const u8,
    pitch: isize,
    runs: *const usize,
}

impl Group {
    /// The rows that start at `rows`, at most 16; those behind the last are any that can be read.
    fn of(args: &TileArgs, rows: &[usize], gathered: &mut Gathered) -> Group {
        match Group::even(args, rows) {
            Some(group) => group,
            None => Group::gather(args, rows, gathered),
        }
    }

    /// Rows in the input, if they lie evenly apart.
    fn even(args: &TileArgs, rows: &[usize]) -> Option<Group> {
        let start = *rows.first().unwrap_or(&args.rows[0]);
        let pitch = match rows {
            [first, second, ..] => second.wrapping_sub(*first) as isize,
            _ => 0,
        };
        let even = rows.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) as isize == pitch);
        // Rows behind the last that counts must be readable too.
        let last = start.checked_add_signed(pitch.checked_mul(ROWS as isize - 1)?)?;
        let run = args.runs.iter().max().copied().unwrap_or(0);
        let end = last.checked_add(run + args.run_bytes)?;
        (even && end <= args.input.len()).then(|| Group {
            start: args.input.as_ptr().wrapping_add(start),
            pitch,
            runs: args.runs.as_ptr(),
        })
    }

    /// Copies rows, unless they are those of the last copy.
    fn gather(args: &TileArgs, rows: &[usize], gathered: &mut Gathered) -> Group {
        let depth = args.runs.len() * args.run_bytes;
        // An odd number of cache lines, or the rows would compete for the same few of the cache.
        let pitch = ((depth / ROW_BYTES) | 1) * ROW_BYTES;
        let mut wanted = CopiedRows {
            input: args.input,
            runs: args.runs,
            run_bytes: args.run_bytes,
            count: rows.len(),
            rows: [0; ROWS],
        };
        wanted.rows[..rows.len()].copy_from_slice(rows);
        if gathered.rows != Some(wanted) {
            gathered.rows = Some(wanted);
            gathered.bytes.resize(ROWS * pitch);
            gathered.runs.clear();
            gathered.runs.extend((0..args.runs.len()).map(|run| run * args.run_bytes));
            let copies = gathered.bytes.u8s_mut().chunks_exact_mut(pitch);
            for (&row, copy) in rows.iter().zip(copies) {
                for (&run, copy) in args.runs.iter().zip(copy.chunks_exact_mut(args.run_bytes)) {
                    copy.copy_from_slice(&args.input[row + run..][..args.run_bytes]);
                }
            }
        }
        Group {
            start: gathered.bytes.u8s().as_ptr(),
            pitch: pitch as isize,
            runs: gathered.runs.as_ptr(),
        }
    }
}

/// What the assembly reads: up to two groups of 16 rows, and panels.
#[repr(C)]
struct Product {
    start: [*const u8; 2],
    pitch: [isize; 2],
    runs: [*const usize; 2],
    sums: [*mut i32; 2],
    run_count: usize,
    run_tiles: usize,
    panels: *const u8,
    panel_bytes: usize,
}

/// Bytes of a tile of weights.
const WEIGHT_BYTES: usize = ROW_BYTES * ROWS;
const _: () = assert!(WEIGHT_BYTES == ROW_BYTES / STEP * BYTE_PANEL * STEP);
/// Bytes from a row of sums to the next.
const SUMS_PITCH: usize = TILE_COLUMNS * size_of::<i32>();
/// Bytes of the columns of a panel in a row of sums.
const PANEL_SUMS: usize = BYTE_PANEL * size_of::<i32>();

impl Product {
    /// Multiplies one group of rows by up to 4 panels.
    ///
    /// # Safety
    /// The tiles must be configured, the runs, of at least one tile, of 16 rows and the panels be
    /// readable, and 16 rows of sums be writable.
    unsafe fn one_group<const PANELS: usize>(&self) {
        // SAFETY: this function's contract.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                // For each run:
                "2:",
                "mov {a}, [{runs}]",
                "add {a}, [{product} + {start}]",
                "mov {left}, [{product} + {run_tiles}]",
                // For each tile of it:
                "3:",
                "tileloadd tmm4, [{a} + {pitch}]",
                "tileloadd tmm5, [{b0} + {row_bytes}]",
                "tdpbusd tmm0, tmm4, tmm5",
                ".if {panels} > 1",
                "tileloadd tmm6, [{b1} + {row_bytes}]",
                "tdpbusd tmm1, tmm4, tmm6",
                ".endif",
                ".if {panels} > 2",
                "tileloadd tmm7, [{b2} + {row_bytes}]",
                "tdpbusd tmm2, tmm4, tmm7",
                ".endif",
                ".if {panels} > 3",
                "tileloadd tmm5, [{b3} + {row_bytes}]",
                "tdpbusd tmm3, tmm4, tmm5",
                ".endif",
                "add {a}, {step}",
                "add {b0}, {weight_bytes}",
                "add {b1}, {weight_bytes}",
                "add {b2}, {weight_bytes}",
                "add {b3}, {weight_bytes}",
                "dec {left}",
                "jnz 3b",
                "add {runs}, 8",
                "dec {run_count}",
                "jnz 2b",
                "mov {a}, [{product} + {sums}]",
                "mov {left}, {sums_pitch}",
                "tilestored [{a} + {left}], tmm0",
                ".if {panels} > 1",
                "tilestored [{a} + {left} + {panel_sums}], tmm1",
                ".endif",
                ".if {panels} > 2",
                "tilestored [{a} + {left} + 2 * {panel_sums}], tmm2",
                ".endif",
                ".if {panels} > 3",
                "tilestored [{a} + {left} + 3 * {panel_sums}], tmm3",
                ".endif",
                product = in(reg) self,
                runs = inout(reg) self.runs[0] => _,
                run_count = inout(reg) self.run_count => _,
                pitch = in(reg) self.pitch[0],
                row_bytes = in(reg) ROW_BYTES,
                b0 = inout(reg) self.panels => _,
                b1 = inout(reg) self.panels.wrapping_add(self.panel_bytes) => _,
                b2 = inout(reg) self.panels.wrapping_add(2 * self.panel_bytes) => _,
                b3 = inout(reg) self.panels.wrapping_add(3 * self.panel_bytes) => _,
                a = out(reg) _,
                left = out(reg) _,
                panels = const PANELS,
                start = const offset_of!(Product, start),
                run_tiles = const offset_of!(Product, run_tiles),
                sums = const offset_of!(Product, sums),
                step = const ROW_BYTES,
                weight_bytes = const WEIGHT_BYTES,
                sums_pitch = const SUMS_PITCH,
                panel_sums = const PANEL_SUMS,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// Multiplies two groups of rows by up to 2 panels.
    ///
    /// # Safety
    /// As for [`Product::one_group`], of both groups.
    unsafe fn two_groups<const PANELS: usize>(&self) {
        // SAFETY: this function's contract.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                // For each run:
                "2:",
                "mov {a0}, [{runs0}]",
                "mov {a1}, [{runs1}]",
                "add {a0}, [{product} + {start}]",
                "add {a1}, [{product} + {start} + 8]",
                "mov {left}, [{product} + {run_tiles}]",
                // For each tile of it:
                "3:",
                "tileloadd tmm6, [{b0} + {row_bytes}]",
                "tileloadd tmm4, [{a0} + {pitch0}]",
                "tdpbusd tmm0, tmm4, tmm6",
                ".if {panels} > 1",
                "tileloadd tmm7, [{b1} + {row_bytes}]",
                "tdpbusd tmm1, tmm4, tmm7",
                ".endif",
                "tileloadd tmm5, [{a1} + {pitch1}]",
                "tdpbusd tmm2, tmm5, tmm6",
                ".if {panels} > 1",
                "tdpbusd tmm3, tmm5, tmm7",
                ".endif",
                "add {a0}, {step}",
                "add {a1}, {step}",
                "add {b0}, {weight_bytes}",
                "add {b1}, {weight_bytes}",
                "dec {left}",
                "jnz 3b",
                "add {runs0}, 8",
                "add {runs1}, 8",
                "dec {run_count}",
                "jnz 2b",
                "mov {a0}, [{product} + {sums}]",
                "mov {a1}, [{product} + {sums} + 8]",
                "mov {left}, {sums_pitch}",
                "tilestored [{a0} + {left}], tmm0",
                "tilestored [{a1} + {left}], tmm2",
                ".if {panels} > 1",
                "tilestored [{a0} + {left} + {panel_sums}], tmm1",
                "tilestored [{a1} + {left} + {panel_sums}], tmm3",
                ".endif",
                product = in(reg) self,
                runs0 = inout(reg) self.runs[0] => _,
                runs1 = inout(reg) self.runs[1] => _,
                run_count = inout(reg) self.run_count => _,
                pitch0 = in(reg) self.pitch[0],
                pitch1 = in(reg) self.pitch[1],
                row_bytes = in(reg) ROW_BYTES,
                b0 = inout(reg) self.panels => _,
                b1 = inout(reg) self.panels.wrapping_add(self.panel_bytes) => _,
                a0 = out(reg) _,
                a1 = out(reg) _,
                left = out(reg) _,
                panels = const PANELS,
                start = const offset_of!(Product, start),
                run_tiles = const offset_of!(Product, run_tiles),
                sums = const offset_of!(Product, sums),
                step = const ROW_BYTES,
                weight_bytes = const WEIGHT_BYTES,
                sums_pitch = const SUMS_PITCH,
                panel_sums = const PANEL_SUMS,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
