//! Products of floats with a constant matrix.

use std::ops::Range;

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{
    self, Binary, Dims, PANEL, PackedCodes, Strided, StridedMut, binary_in_place, matmul_codes,
    matmul_packed,
};

use crate::steps::Kernel;
use crate::state::{State, ValueId};
use crate::steps::with_scratch;
use crate::{Result, RuntimeError};

/// Rows that a thread must have at least, and products.
const LEAST_ROWS: usize = 8;
const LEAST_PRODUCTS: usize = 512 << 10;

/// The constant matrix, packed once.
pub(crate) enum Right {
    /// `depth` rows of `columns`.
    Floats { depth: usize, columns: usize, packed: Vec<f32> },
    /// Quantized weights, which stay integers.
    Codes(PackedCodes),
}

impl Right {
    /// The matrix `values`.
    pub(crate) fn of_floats(cpu: Cpu, depth: usize, columns: usize, values: Strided) -> Right {
        let mut packed = vec![0.0; float::packed_len(depth, columns)];
        float::pack(cpu, depth, columns, values, &mut packed);
        Right::Floats { depth, columns, packed }
    }

    fn depth(&self) -> usize {
        match self {
            Right::Floats { depth, .. } => *depth,
            Right::Codes(codes) => codes.rows(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Right::Floats { columns, .. } => *columns,
            Right::Codes(codes) => codes.columns(),
        }
    }

    /// Multiplies `rows` rows of `a` by some columns, of which the first is a multiple of a panel.
    fn times(&self, cpu: Cpu, rows: usize, a: &[f32], columns: Range<usize>, out: &mut [f32]) {
        let (a, pitch) = (Strided::rows(a, self.depth()), columns.len());
        let out = StridedMut::rows(out, pitch);
        with_scratch(|scratch| match self {
            Right::Floats { depth, packed, .. } => {
                let packed = &packed[columns.start * depth..];
                let packed = &packed[..float::packed_len(*depth, pitch)];
                let dims = Dims { m: rows, k: *depth, n: pitch };
                matmul_packed(cpu, dims, a, packed, out, scratch);
            }
            Right::Codes(codes) => matmul_codes(cpu, rows, columns, a, codes, out, scratch),
        });
    }
}

/// The step.
pub(crate) struct ConstantProduct {
    pub input: ValueId,
    pub output: ValueId,
    pub right: Right,
    /// Added to each row.
    pub bias: Option<Vec<f32>>,
}

impl Kernel for ConstantProduct {
    fn run(&self, state: &mut State) -> Result<()> {
        let (cpu, threads) = (state.cpu, state.threads);
        let shape = state.shape(self.input);
        let (depth, columns) = (self.right.depth(), self.right.columns());
        if shape.last() != depth {
            return Err(RuntimeError::Run {
                reason: format!("a product of rows of {depth} was given the shape {shape:?}"),
            });
        }
        let out_shape = shape.with_last(columns);
        let mut out = state.take(self.output, out_shape, out_shape.len() * 4);
        let input = state.floats(self.input);
        let part = |rows: usize, input: &[f32], columns: Range<usize>, out: &mut [f32]| {
            self.right.times(cpu, rows, input, columns.clone(), out);
            if let Some(bias) = &self.bias {
                binary_in_place(cpu, Binary::Add, out, &bias[columns]);
            }
        };
        if shape.rows() == 1 {
            let least = LEAST_PRODUCTS.div_ceil(depth.max(1) * PANEL);
            threads.rows(out.f32s_mut(), PANEL, least, |panel, out| {
                let first = panel * PANEL;
                part(1, input, first..first + out.len(), out);
            });
        } else {
            let products = depth.max(1) * columns.max(1);
            let least = LEAST_PRODUCTS.div_ceil(products).max(LEAST_ROWS);
            threads.rows(out.f32s_mut(), columns, least, |first, out| {
                let rows = out.len() / columns.max(1);
                part(rows, &input[first * depth..], 0..columns, out);
            });
        }
        state.give(self.output, out);
        Ok(())
    }
}
