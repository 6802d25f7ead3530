//! Rows of a constant table: embeddings.

use fewbits_quant::QTensor;

use crate::steps::Kernel;
use crate::state::{State, ValueId};
use crate::steps::shape;
use crate::{Result, RuntimeError};

/// A constant matrix whose rows are looked up.
pub(crate) enum Table {
    /// Rows of `width` floats.
    Floats { values: Vec<f32>, width: usize },
    /// Quantized weights of two axes, which stay integers.
    Weight(Box<QTensor>),
}

impl Table {
    fn width(&self) -> usize {
        match self {
            Table::Floats { width, .. } => *width,
            Table::Weight(weight) => weight.layout().shape()[1],
        }
    }

    fn rows(&self) -> usize {
        match self {
            Table::Floats { values, width } => values.len() / (*width).max(1),
            Table::Weight(weight) => weight.layout().shape()[0],
        }
    }

    fn copy_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Table::Floats { values, width } => {
                out.copy_from_slice(&values[row * width..][..*width])
            }
            Table::Weight(weight) => weight.dequantize_row(row, out),
        }
    }
}

/// The step: a row of the table for each integer of the input; negative ones count from the end.
pub(crate) struct Embedding {
    pub input: ValueId,
    pub output: ValueId,
    pub table: Table,
}

impl Kernel for Embedding {
    fn run(&self, state: &mut State) -> Result<()> {
        let (rows, width) = (self.table.rows(), self.table.width());
        let mut dims = state.shape(self.input).dims().to_vec();
        dims.push(width);
        let to = shape(&dims)?;
        let mut out = state.take(self.output, to, to.len() * 4);
        let places = state.ints(self.input)?;
        for (&place, out) in places.iter().zip(out.f32s_mut().chunks_exact_mut(width.max(1))) {
            let row = if place < 0 { place + rows as i64 } else { place };
            let row = usize::try_from(row).ok().filter(|&row| row < rows);
            let row = row.ok_or_else(|| RuntimeError::Run {
                reason: format!("row {place} of a table of {rows} is looked up"),
            })?;
            self.table.copy_row(row, out);
        }
        state.give(self.output, out);
        Ok(())
    }
}
