//! MatMulInteger.

use fewbits_ir::op::MatMulInteger;
use fewbits_ir::{Tensor, ValueId, places};
use fewbits_kernels::gemm::{self, Grid, Input, Output, PackedWeights, RowStrides};
use fewbits_kernels::{Buffer, Cpu, Threads, broadcast_shape};

use super::{Sum, refused, signed, stored, stored_if_given, sum_of, unsigned, zero_points};
use crate::Result;
use crate::state::State;
use crate::steps::{Io, Kernel};

/// The step.
pub(crate) struct MatrixProduct {
    left: ValueId,
    left_zero: Option<ValueId>,
    right: Right,
    right_zero: Option<ValueId>,
    output: ValueId,
}

impl MatrixProduct {
    /// Packs the second factor, if it is constant.
    ///
    /// # Errors
    /// If it is no matrix of bytes.
    pub(crate) fn new(cpu: Cpu, op: MatMulInteger, io: Io) -> Result<MatrixProduct> {
        let (left, output) = (io.input(), io.output());
        let (right, behind) = match op.right {
            Some(tensor) => (Right::Constant(Matrices::new(cpu, &tensor)?), &io.inputs[1..]),
            None => (Right::Computed(io.inputs[1]), &io.inputs[2..]),
        };
        let [left_zero, right_zero] = op.zero_points.split(behind);
        Ok(MatrixProduct { left, left_zero, right, right_zero, output })
    }
}

/// The factor that the kernels read in an order of their own.
pub(crate) enum Right {
    /// Packed before the first run.
    Constant(Matrices),
    /// Packed in every run.
    Computed(ValueId),
}

impl Kernel for MatrixProduct {
    fn run(&self, state: &mut State) -> Result<()> {
        let packed;
        let right = match &self.right {
            Right::Constant(matrices) => matrices,
            Right::Computed(id) => {
                packed = Matrices::new(state.cpu, stored(state, *id)?)?;
                &packed
            }
        };
        let left_zero = stored_if_given(state, self.left_zero)?;
        let right_zero = stored_if_given(state, self.right_zero)?;
        let sums =
            right.product(stored(state, self.left)?, left_zero, right_zero, state.threads)?;
        state.set_tensor(self.output, &sums)
    }
}

/// Matrices `[.., depth, columns]` in the order of the kernels.
pub(crate) struct Matrices {
    dims: Vec<usize>,
    /// Whether they are a vector, whose only column is no axis of a product.
    is_vector: bool,
    packed: Vec<PackedWeights>,
    /// What an element is more than what is packed.
    offset: i32,
}

impl Matrices {
    /// Packs the matrices of a tensor of bytes.
    ///
    /// # Errors
    /// If it is something else.
    pub(crate) fn new(cpu: Cpu, tensor: &Tensor) -> Result<Matrices> {
        let factor = signed(tensor)?;
        let is_vector = tensor.shape().len() == 1;
        let dims = match tensor.shape() {
            [depth] => vec![*depth, 1],
            dims => dims.to_vec(),
        };
        let [.., depth, columns] = dims[..] else {
            return Err(refused("a product of matrices was given a scalar"));
        };
        let packed = factor.bytes.chunks_exact((depth * columns).max(1)).map(|matrix| {
            let mut turned = vec![0; matrix.len()];
            for (k, row) in matrix.chunks_exact(columns).enumerate() {
                for (column, &byte) in row.iter().enumerate() {
                    turned[column * depth + k] = byte;
                }
            }
            PackedWeights::new(cpu, &turned, columns, 1, depth)
        });
        Ok(Matrices { packed: packed.collect(), is_vector, dims, offset: factor.offset })
    }

    /// The product of a tensor of bytes and these matrices, both less their zero points.
    fn product(
        &self,
        left: &Tensor,
        left_zero: Option<&Tensor>,
        right_zero: Option<&Tensor>,
        threads: Threads,
    ) -> Result<Tensor> {
        let factor = unsigned(left)?;
        let left_dims = match left.shape() {
            [depth] => vec![1, *depth],
            dims => dims.to_vec(),
        };
        let ([left_batch @ .., rows, depth], [right_batch @ .., right_depth, columns]) =
            (&left_dims[..], &self.dims[..])
        else {
            return Err(refused("a product of matrices was given a scalar"));
        };
        let (rows, depth, columns) = (*rows, *depth, *columns);
        let batch = broadcast_shape(left_batch, right_batch)
            .filter(|_| depth == *right_depth)
            .ok_or_else(|| {
                let (a, b) = (left.shape(), &self.dims);
                refused(format!("matrices of shapes {a:?} and {b:?} have no product"))
            })?;
        let dims = [&batch[..], &[rows, columns]].concat();
        let zeros = [
            Zeros::new(left_zero, [None, Some(1)], -factor.offset, &dims)?,
            Zeros::new(right_zero, [Some(1), None], -self.offset, &dims)?,
        ];
        let mut sums = vec![0; dims.iter().product()];
        if !sums.is_empty() && depth > 0 {
            let input = filled(&factor.bytes);
            let left_steps = steps(left_batch, &batch).expect("it was broadcast");
            let right_steps = steps(right_batch, &batch).expect("it was broadcast");
            // Rows of all matrices on the left at once where one is on the right.
            let together = self.packed.len() == 1 && left_batch == batch;
            let count = if together { left_batch.iter().product() } else { 1 };
            for (m, sums) in sums.chunks_exact_mut(count * rows * columns).enumerate() {
                let at = places(m, &batch);
                let of = |steps: &[usize]| steps.iter().zip(&at).map(|(s, p)| s * p).sum::<usize>();
                let start = if together { 0 } else { of(&left_steps) * rows * depth };
                gemm::multiply(
                    &self.packed[if together { 0 } else { of(&right_steps) }],
                    Grid::of_matrix(count * rows),
                    &Input {
                        bytes: input.with_slack(),
                        rows: RowStrides { start, ..RowStrides::of_matrix(depth) },
                        runs: &[0],
                    },
                    Output::Sums { sums, rows: RowStrides::of_matrix(columns) },
                    threads,
                );
            }
            for (m, sums) in sums.chunks_exact_mut(rows * columns).enumerate() {
                let at = places(m, &batch);
                let of = |steps: &[usize]| steps.iter().zip(&at).map(|(s, p)| s * p).sum::<usize>();
                let left = &factor.bytes[of(&left_steps) * rows * depth..][..rows * depth];
                let right = self.packed[of(&right_steps)].sums();
                let left = left.chunks_exact(depth);
                for (i, (left, sums)) in left.zip(sums.chunks_exact_mut(columns)).enumerate() {
                    let left = sum_of(left);
                    for (j, (sum, &right)) in sums.iter_mut().zip(right).enumerate() {
                        let [left_zero, right_zero] = zeros.each_ref().map(|z| z.at(&at, i, j));
                        let all = Sum { products: *sum, left, right, count: depth as i32 };
                        *sum = all.without(left_zero, right_zero);
                    }
                }
            }
        }
        let mut shape = batch;
        shape.extend((left.shape().len() > 1).then_some(rows));
        shape.extend((!self.is_vector).then_some(columns));
        Tensor::new(shape, sums)
    }
}

/// The zero points of a factor, for each element of a product.
struct Zeros {
    values: Vec<i32>,
    /// From an element of the product to the next, along each axis.
    steps: Vec<usize>,
}

impl Zeros {
    /// From a scalar, a vector, which gets the axis that `vector` adds before or behind, or what broadcasts to
    /// the product; `more` is added to all.
    fn new(
        tensor: Option<&Tensor>,
        [before, behind]: [Option<usize>; 2],
        more: i32,
        dims: &[usize],
    ) -> Result<Zeros> {
        let values: Vec<i32> = zero_points(tensor)?.into_iter().map(|z| z + more).collect();
        let shape = match tensor.map_or(&[][..], Tensor::shape) {
            _ if values.len() == 1 => Vec::new(),
            [size] => before.into_iter().chain([*size]).chain(behind).collect(),
            shape => shape.to_vec(),
        };
        let steps = steps(&shape, dims).ok_or_else(|| {
            refused(format!("zero points of shape {shape:?} do not fit a product of {dims:?}"))
        })?;
        Ok(Zeros { values, steps })
    }

    /// That of an element of a matrix of the batch.
    fn at(&self, batch: &[usize], row: usize, column: usize) -> i32 {
        let places = batch.iter().copied().chain([row, column]);
        self.values[places.zip(&self.steps).map(|(place, step)| place * step).sum::<usize>()]
    }
}

/// From an element of a tensor of shape `dims` to the one that meets the next of `to`, along each axis of `to`; `None`
/// if it does not broadcast to that.
fn steps(dims: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let new = to.len().checked_sub(dims.len())?;
    let mut steps = vec![0; to.len()];
    let mut step = 1;
    for (axis, &size) in dims.iter().enumerate().rev() {
        match size {
            1 => {}
            size if size == to[new + axis] => steps[new + axis] = step,
            _ => return None,
        }
        step *= size;
    }
    Some(steps)
}

/// Bytes that kernels may read.
pub(super) fn filled(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::new(bytes.len());
    buffer.u8s_mut().copy_from_slice(bytes);
    buffer
}
