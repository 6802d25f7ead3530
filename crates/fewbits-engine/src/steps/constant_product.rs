//! Products of floats with a constant matrix.

use std::ops::Range;

use fewbits_ir::op::{MatMulConstant, Matrix, Order};
use fewbits_ir::{RuntimeError, ValueId};
use fewbits_kernels::Cpu;
use fewbits_kernels::float::{
    self, Binary, Codes, Dims, PANEL, PackedCodes, Strided, StridedMut, binary_in_place,
    matmul_codes, matmul_packed,
};
use fewbits_quant::{Granularity, QTensor};

use crate::Result;
use crate::state::State;
use crate::steps::{Kernel, with_scratch};

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

impl ConstantProduct {
    /// Packs the matrix.
    ///
    /// # Errors
    /// If it holds no floats.
    pub(crate) fn new(
        cpu: Cpu,
        product: MatMulConstant,
        input: ValueId,
        output: ValueId,
    ) -> Result<ConstantProduct> {
        let MatMulConstant { weights, order, bias } = product;
        let codes = match &weights {
            Matrix::Codes(weight) => packed(weight, order),
            Matrix::Floats(_) => None,
        };
        let right = match codes {
            Some(codes) => Right::Codes(codes),
            None => of_floats(cpu, &weights, order)?,
        };
        Ok(ConstantProduct { input, output, right, bias })
    }
}

fn of_floats(cpu: Cpu, weights: &Matrix, order: Order) -> Result<Right> {
    let (depth, columns) = order.depth_and_columns(&weights.shape());
    let values = weights.floats()?;
    let matrix = Strided::rows(&values, weights.shape()[1]);
    let matrix = match order {
        Order::Rows => matrix,
        Order::Transposed => matrix.transposed(),
    };
    Ok(Right::of_floats(cpu, depth, columns, matrix))
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

/// Quantized weights of a granularity that has a kernel, in its order.
fn packed(weight: &QTensor, order: Order) -> Option<PackedCodes> {
    let (layout, params) = (weight.layout(), weight.params());
    let (depth, columns) = order.depth_and_columns(layout.shape());
    let group = match layout.granularity() {
        Granularity::Group { size, .. } => size.get().min(depth.max(1)),
        Granularity::Tensor | Granularity::Channel { .. } => depth.max(1),
    };
    let groups = depth.div_ceil(group);
    // Where the parameter of a group and a column is.
    let place = |group: usize, column: usize| match (layout.granularity(), order) {
        (Granularity::Tensor, _) => 0,
        (Granularity::Channel { .. }, _) => column,
        (Granularity::Group { .. }, Order::Rows) => group * columns + column,
        (Granularity::Group { .. }, Order::Transposed) => column * groups + group,
    };
    let places = || (0..groups).flat_map(|g| (0..columns).map(move |c| place(g, c)));
    let zero_point: Vec<i16> = match params.zero_point.is_empty() {
        true => Vec::new(),
        false => places().map(|p| params.zero_point_of(p)).collect(),
    };
    let (row_pitch, column_pitch) = match order {
        Order::Rows => (columns, 1),
        Order::Transposed => (1, depth),
    };
    let codes = Codes {
        values: &weight.codes().unpack(),
        row_pitch,
        column_pitch,
        group,
        scale: &places().map(|p| params.scale[p]).collect::<Vec<f32>>(),
        zero_point: &zero_point,
    };
    PackedCodes::new(depth, columns, &codes)
}
