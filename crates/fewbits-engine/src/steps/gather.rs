//! Rows of a constant table: embeddings.

use fewbits_ir::op::{Matrix, row_of};
use fewbits_ir::{Shape, ValueId, Values};

use crate::Result;
use crate::state::State;
use crate::steps::Kernel;

/// A row of the table for each integer of the input.
pub(crate) struct Rows {
    pub input: ValueId,
    pub output: ValueId,
    pub table: Matrix,
}

impl Kernel for Rows {
    fn run(&self, state: &mut State) -> Result<()> {
        let [rows, width] = self.table.shape();
        let mut dims = state.shape(self.input).dims().to_vec();
        dims.push(width);
        let to = Shape::new(&dims)?;
        let mut out = state.take(self.output, to, to.len() * 4);
        let indices = state.ints(self.input)?;
        for (&index, out) in indices.iter().zip(out.f32s_mut().chunks_exact_mut(width.max(1))) {
            let row = row_of(index, rows)?;
            match &self.table {
                Matrix::Codes(weight) => weight.dequantize_row(row, out),
                Matrix::Floats(tensor) => {
                    if let Values::F32(values) = tensor.values() {
                        out.copy_from_slice(&values[row * width..][..width]);
                    }
                }
            }
        }
        state.give(self.output, out);
        Ok(())
    }
}
