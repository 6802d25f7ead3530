//! What all kernels fill and read: tiles of sums, panels of weights.

/// Columns (output channels) of a panel of weights of one byte, or less.
pub(crate) const BYTE_PANEL: usize = 16;

/// Products added in one step of a dot product.
pub(crate) const STEP: usize = 4;

/// Columns of a tile of sums.
pub(crate) const TILE_COLUMNS: usize = 64;

/// Most rows of a tile of sums.
pub(crate) const TILE_ROWS: usize = 32;

/// A tile of sums, `[TILE_ROWS, TILE_COLUMNS]`.
#[repr(align(64))]
pub(crate) struct Tile<T>(pub [T; TILE_ROWS * TILE_COLUMNS]);

/// What a kernel multiplies.
pub(crate) struct TileArgs<'a> {
    /// The activations.
    pub input: &'a [u8],
    /// Where each row starts in `input`, at most [`TILE_ROWS`] of them.
    pub rows: &'a [usize],
    /// Where the runs start, from the start of a row.
    pub runs: &'a [usize],
    /// Bytes of a run, filled up.
    pub run_bytes: usize,
    /// The panels, from the first that is wanted on.
    pub panels: &'a [u8],
    /// What a weight takes in them.
    pub width: Width,
    /// Weights of a panel.
    pub panel_len: usize,
    /// The weights of each column of the panels, added up.
    pub column_sums: &'a [i32],
}

/// What a weight takes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Byte,
    /// Half a byte: the vectors of two steps, an even one and the next, are one.
    Nibble,
}

impl Width {
    /// Bytes of so many weights, which are whole vectors.
    pub(crate) fn bytes(self, len: usize) -> usize {
        match self {
            Width::Byte => len,
            Width::Nibble => len / 2,
        }
    }
}

impl TileArgs<'_> {
    /// Panics unless the rows and `panels` panels, at least one, can be read.
    pub(crate) fn check(&self, panels: usize) {
        assert!(self.rows.len() <= TILE_ROWS);
        assert!((1..=TILE_COLUMNS / BYTE_PANEL).contains(&panels));
        assert_eq!(self.panel_len, self.runs.len() * self.run_bytes * BYTE_PANEL);
        let steps = match self.width {
            Width::Byte => STEP,
            Width::Nibble => 2 * STEP,
        };
        assert!(self.run_bytes.is_multiple_of(steps), "runs that are no whole steps");
        assert!(self.width.bytes(panels * self.panel_len) <= self.panels.len(), "panels too short");
        assert!(panels * BYTE_PANEL <= self.column_sums.len());
        let row = self.rows.iter().max().copied().unwrap_or(0);
        let run = self.runs.iter().max().copied().unwrap_or(0);
        let end = row.checked_add(run).and_then(|at| at.checked_add(self.run_bytes));
        assert!(end.is_some_and(|end| end <= self.input.len()), "a row beyond the input");
    }
}
