//! Products of bytes: activations (u8) times weights (i8), summed exactly in i32.
//!
//! One driver, [`multiply`], serves matrix products and convolutions: a row of the product is a
//! pixel, and its activations lie in runs of consecutive bytes. The kernels of `arch` fill tiles of
//! sums; the epilogue turns a tile into bytes or floats while it is in the first cache.

mod epilogue;
mod grid;
pub(crate) mod nibbles;
mod packed;
mod shared;

use std::ops::Range;

pub use epilogue::{AddBytes, AddFloats, Dequantize};
use epilogue::{FloatSink, Placement};
pub use grid::{Grid, RowStrides};
pub use packed::PackedWeights;

use crate::arch::{BYTE_PANEL, Session, TILE_COLUMNS, TILE_ROWS, Tile, TileArgs, Width};
use crate::bytes::{QuantizeTo, Requantize};
use crate::{SLACK_BYTES, Threads};
use shared::Shared;

/// Products of a thread below which another thread costs more than it gains.
const PRODUCTS_A_THREAD: usize = 200_000;

/// The activations of a product.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// All bytes, and [`SLACK_BYTES`] behind the last row.
    pub bytes: &'a [u8],
    /// Where the rows lie.
    pub rows: RowStrides,
    /// Where the runs of a row lie, from its start.
    pub runs: &'a [usize],
}

/// Where a product goes.
pub enum Output<'a> {
    /// To bytes.
    Bytes {
        /// What takes them.
        bytes: &'a mut [u8],
        /// Where the rows lie.
        rows: RowStrides,
        /// How sums become bytes.
        requantize: Requantize<'a>,
        /// Bytes to add, and what becomes of the sums.
        add: Option<AddBytes<'a>>,
    },
    /// As they are; they wrap beyond 32 bits.
    Sums {
        /// What takes them.
        sums: &'a mut [i32],
        /// Where the rows lie.
        rows: RowStrides,
    },
    /// To floats.
    Floats {
        /// What takes them.
        floats: &'a mut [f32],
        /// Where the rows lie.
        rows: RowStrides,
        /// How sums become floats.
        dequantize: Dequantize<'a>,
    },
    /// To floats, and these to bytes.
    Quantized {
        /// What takes them.
        bytes: &'a mut [u8],
        /// Where the rows lie.
        rows: RowStrides,
        /// How sums become floats.
        dequantize: Dequantize<'a>,
        /// How floats become bytes.
        to: QuantizeTo,
    },
}

/// Multiplies every row of `grid` by `weights`.
///
/// # Panics
/// If a row of the input or output lies outside its slice, rows of the output overlap, or the
/// epilogue has fewer columns than the weights.
pub fn multiply(
    weights: &PackedWeights,
    grid: Grid,
    input: &Input,
    output: Output,
    threads: Threads,
) {
    if grid.is_empty() || weights.columns() == 0 {
        return;
    }
    assert_eq!(input.runs.len(), weights.runs(), "runs of another number");
    // Sums of numbers that are too large must not pass for small ones.
    let last_run = input.runs.iter().max().copied().unwrap_or(0);
    let needed = (input.rows.furthest(&grid))
        .and_then(|at| at.checked_add(last_run))
        .and_then(|at| at.checked_add(weights.run_bytes()))
        .and_then(|at| at.checked_add(SLACK_BYTES));
    assert!(
        needed.is_some_and(|needed| needed <= input.bytes.len()),
        "the input has {} bytes, not {needed:?}",
        input.bytes.len()
    );
    let sink = Sink::new(output, &grid, weights.columns());
    let job = Job { weights, grid, input, sink: &sink };

    let products = grid.len() * weights.columns() * weights.runs() * weights.run_bytes();
    let wanted = Threads::new(threads.count().min(products / PRODUCTS_A_THREAD));
    let rows = weights.kernel.rows(grid.len());
    if grid.len().div_ceil(rows) >= 2 * wanted.count() {
        wanted.split(grid.len(), rows, |part| job.run(part, 0..weights.columns()));
    } else {
        wanted.split(weights.columns(), TILE_COLUMNS, |part| job.run(0..grid.len(), part));
    }
}

/// An [`Output`] that several threads may write.
enum Sink<'a> {
    Sums {
        out: Shared<'a, i32>,
        rows: RowStrides,
    },
    Bytes {
        out: Shared<'a, u8>,
        rows: RowStrides,
        requantize: Requantize<'a>,
        add: Option<AddBytes<'a>>,
    },
    Floats {
        out: FloatSink<'a>,
        rows: RowStrides,
        dequantize: Dequantize<'a>,
    },
}

impl<'a> Sink<'a> {
    fn new(output: Output<'a>, grid: &Grid, columns: usize) -> Sink<'a> {
        let check = |rows: &RowStrides, len: usize, bias: usize, scale: usize| {
            let end = rows.furthest(grid).and_then(|at| at.checked_add(columns));
            assert!(end.is_some_and(|end| end <= len), "the output is too short");
            assert!(rows.is_disjoint(grid, columns), "rows of the output overlap");
            assert!(bias == columns && scale == columns, "the epilogue has other columns");
        };
        match output {
            Output::Sums { sums, rows } => {
                check(&rows, sums.len(), columns, columns);
                Sink::Sums { out: Shared::new(sums), rows }
            }
            Output::Bytes { bytes, rows, requantize, add } => {
                check(&rows, bytes.len(), requantize.bias.len(), requantize.scale.len());
                Sink::Bytes { out: Shared::new(bytes), rows, requantize, add }
            }
            Output::Floats { floats, rows, dequantize } => {
                check(&rows, floats.len(), dequantize.bias.len(), dequantize.scale.len());
                Sink::Floats { out: FloatSink::Floats(Shared::new(floats)), rows, dequantize }
            }
            Output::Quantized { bytes, rows, dequantize, to } => {
                check(&rows, bytes.len(), dequantize.bias.len(), dequantize.scale.len());
                let out = FloatSink::Bytes(Shared::new(bytes), to);
                Sink::Floats { out, rows, dequantize }
            }
        }
    }
}

/// What a thread works in.
struct Room {
    session: Session,
    sums: Tile<i32>,
    floats: Tile<f32>,
    /// Where the rows of a tile start.
    inputs: [usize; TILE_ROWS],
    outputs: [usize; TILE_ROWS],
    others: [usize; TILE_ROWS],
}

/// Everything that the threads of one product share.
struct Job<'a> {
    weights: &'a PackedWeights,
    grid: Grid,
    input: &'a Input<'a>,
    sink: &'a Sink<'a>,
}

impl Job<'_> {
    /// Computes some rows of some columns.
    fn run(&self, rows: Range<usize>, columns: Range<usize>) {
        let chunk = self.weights.chunk_columns();
        let mut room = Room {
            session: self.weights.kernel.session(),
            sums: Tile([0; TILE_ROWS * TILE_COLUMNS]),
            floats: Tile([0.0; TILE_ROWS * TILE_COLUMNS]),
            inputs: [0; TILE_ROWS],
            outputs: [0; TILE_ROWS],
            others: [0; TILE_ROWS],
        };
        for start in columns.clone().step_by(chunk) {
            let columns = start..columns.end.min(start + chunk);
            self.weights.with_panels(columns.clone(), rows.len(), |panels, width| {
                let mut row = rows.start;
                while row < rows.end {
                    let left = rows.end - row;
                    let count = self.weights.kernel.tile_rows(left).min(left);
                    self.rows(row..row + count, columns.clone(), (panels, width), &mut room);
                    row += count;
                }
            });
        }
    }

    /// Computes the rows of one tile for a chunk of columns, whose panels are given.
    fn rows(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        (panels, width): (&[u8], Width),
        room: &mut Room,
    ) {
        let Input { bytes, rows: input_rows, runs } = *self.input;
        let Room { session, sums, floats, inputs, outputs, others } = room;
        let count = rows.len();
        let (output_rows, other_rows) = match self.sink {
            Sink::Sums { rows, .. } => (rows, None),
            Sink::Bytes { rows, add, .. } => (rows, add.map(|add| add.rows)),
            Sink::Floats { rows, dequantize, .. } => (rows, dequantize.add.map(|add| add.rows)),
        };
        let first = self.grid.position(rows.start);
        let (inputs, outputs) = (&mut inputs[..count], &mut outputs[..count]);
        input_rows.offsets(&self.grid, first, inputs);
        output_rows.offsets(&self.grid, first, outputs);
        let others = match other_rows {
            Some(rows) => {
                rows.offsets(&self.grid, first, &mut others[..count]);
                &others[..count]
            }
            None => &[],
        };
        let panel_len = self.weights.panel_len();
        for first in columns.clone().step_by(TILE_COLUMNS) {
            let count = TILE_COLUMNS.min(columns.end - first);
            let before = (first - columns.start) / BYTE_PANEL * panel_len;
            let args = TileArgs {
                input: bytes,
                rows: inputs,
                runs,
                run_bytes: self.weights.padded_bytes(),
                panels: &panels[width.bytes(before)..],
                width,
                panel_len,
                column_sums: self.weights.panel_sums(first),
            };
            // `multiply` checked the furthest row and run; a kernel reads less than the slack
            // behind them.
            session.sum(&args, count.div_ceil(BYTE_PANEL), sums);
            let cpu = self.weights.kernel.cpu();
            let placement = Placement { first, columns: count, offsets: outputs, others };
            match self.sink {
                Sink::Sums { out, .. } => epilogue::sums_of_tile(sums, placement, *out),
                Sink::Bytes { out, requantize, add, .. } => {
                    epilogue::requantize_tile(cpu, sums, placement, requantize, add.as_ref(), *out);
                }
                Sink::Floats { out, dequantize, .. } => {
                    epilogue::floats_of_tile(cpu, sums, placement, dequantize, floats, *out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
