//! Products of floats, attention, and rows of matrices, at the plain level of their kernels.

use std::sync::Arc;

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{self, Binary, Dims, Mask, Strided, StridedMut};
use fewbits_quant::QTensor;
use serde::{Deserialize, Serialize};

use super::movement::transpose;
use super::{Computed, f32s, floats, i64s, input, refused, shape};
use crate::shape::{Broadcast, Shape};
use crate::{Result, Tensor};

/// A constant matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matrix {
    /// Floats of two axes.
    Floats(Tensor),
    /// Quantized weights of two axes, which stay integers: they stand for their floats, to the bit.
    Codes(#[serde(with = "crate::stored::qtensor")] Arc<QTensor>),
}

impl Matrix {
    /// The sizes of both axes.
    pub fn shape(&self) -> [usize; 2] {
        let shape = match self {
            Matrix::Floats(tensor) => tensor.shape(),
            Matrix::Codes(weight) => weight.layout().shape(),
        };
        [shape[0], shape[1]]
    }
}

/// How a matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// `[depth, columns]`.
    Rows,
    /// `[columns, depth]`.
    Transposed,
}

impl Order {
    /// The axis along which products are summed.
    pub fn depth_axis(self) -> usize {
        match self {
            Order::Rows => 0,
            Order::Transposed => 1,
        }
    }

    /// The depth and the columns of a matrix of shape `shape`.
    pub fn depth_and_columns(self, shape: &[usize]) -> (usize, usize) {
        (shape[self.depth_axis()], shape[1 - self.depth_axis()])
    }
}

/// Rows of floats times a constant matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatMulConstant {
    /// The matrix.
    pub weights: Matrix,
    /// How it lies.
    pub order: Order,
    /// Added to each row.
    #[serde(with = "crate::stored::per_column::optional")]
    pub bias: Option<Vec<f32>>,
}

/// The order in which the axes of a value are read; as they are if none is given.
pub type Permutation = Option<Vec<usize>>;

/// Where the products of each head go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// One behind the other: `[batch, heads, rows, columns]`.
    Apart,
    /// Side by side in each row: `[batch, rows, heads, columns]`.
    Together,
}

/// MatMul of two values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatMatMul {
    /// How the axes of both are read.
    pub permutations: [Permutation; 2],
    /// Where the products go.
    pub heads: Heads,
}

/// softmax(q kᵀ · scale + mask) v for each head; `k` is given with its rows and columns exchanged. The mask
/// is the fourth input, if there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// How the axes of q, k and v are read.
    pub permutations: [Permutation; 3],
    /// What the scores are multiplied by.
    #[serde(with = "fewbits_kernels::exact_f32")]
    pub scale: f32,
    /// Where the results of each head go.
    pub heads: Heads,
}

/// Rows of a constant table, one for each 64-bit integer; negative ones count from the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gather {
    /// The table.
    pub table: Matrix,
}

impl Matrix {
    /// The floats that it stands for.
    ///
    /// # Errors
    /// If its tensor holds no floats.
    pub fn floats(&self) -> Result<Vec<f32>> {
        match self {
            Matrix::Floats(tensor) => Ok(f32s(tensor)?.to_vec()),
            Matrix::Codes(weight) => Ok(weight.dequantize()),
        }
    }
}

pub(super) fn matmul_constant(op: &MatMulConstant, tensor: &Tensor) -> Result<Tensor> {
    let from = shape(tensor)?;
    let (depth, columns) = op.order.depth_and_columns(&op.weights.shape());
    if from.last() != depth {
        return Err(refused(format!("a product of rows of {depth} was given the shape {from:?}")));
    }
    let values = op.weights.floats()?;
    let matrix = Strided::rows(&values, op.weights.shape()[1]);
    let matrix = match op.order {
        Order::Rows => matrix,
        Order::Transposed => matrix.transposed(),
    };
    let to = from.with_last(columns);
    let mut out = vec![0.0; to.len()];
    let dims = Dims { m: from.rows(), k: depth, n: columns };
    let left = Strided::rows(f32s(tensor)?, depth);
    float::matmul(
        Cpu::SCALAR,
        dims,
        left,
        matrix,
        StridedMut::rows(&mut out, columns),
        &mut Vec::new(),
    );
    let product = Tensor::new(to.dims().to_vec(), out)?;
    match &op.bias {
        Some(bias) => {
            floats::binary(Binary::Add, &product, &Tensor::new(vec![columns], bias.clone())?)
        }
        None => Ok(product),
    }
}

fn permuted(tensor: &Tensor, permutation: &Permutation) -> Result<Tensor> {
    match permutation {
        Some(permutation) => transpose(tensor, permutation),
        None => Ok(tensor.clone()),
    }
}

/// A stack of matrices: the axes before them, rows, columns.
fn stack(tensor: &Tensor) -> Result<(&[usize], usize, usize)> {
    match tensor.shape() {
        [batch @ .., rows, columns] => Ok((batch, *rows, *columns)),
        other => Err(refused(format!("a value of shape {other:?} is no stack of matrices"))),
    }
}

/// Computes a matrix for each member of the batch; `compute` gets its index.
fn of_each_matrix(
    batch: Shape,
    rows: usize,
    columns: usize,
    heads: Heads,
    compute: impl Fn(usize, &mut [f32]),
) -> Result<Tensor> {
    let mut out = vec![0.0; batch.len() * rows * columns];
    for (i, out) in out.chunks_exact_mut((rows * columns).max(1)).enumerate() {
        compute(i, out);
    }
    let dims = [batch.dims(), &[rows, columns]].concat();
    let apart = Tensor::new(dims.clone(), out)?;
    if heads == Heads::Apart {
        return Ok(apart);
    }
    let rank = dims.len();
    if rank < 3 {
        return Err(refused("a product of matrices has no heads".to_string()));
    }
    let mut together: Vec<usize> = (0..rank).collect();
    together.swap(rank - 3, rank - 2);
    transpose(&apart, &together)
}

pub(super) fn float_matmul(op: &FloatMatMul, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (permuted(a, &op.permutations[0])?, permuted(b, &op.permutations[1])?);
    let ((a_batch, rows, depth), (b_batch, b_rows, columns)) = (stack(&a)?, stack(&b)?);
    if b_rows != depth {
        return Err(refused(format!(
            "{rows}x{depth} and {b_rows}x{columns} matrices cannot be multiplied"
        )));
    }
    let (a_batch, b_batch) = (Shape::new(a_batch)?, Shape::new(b_batch)?);
    let batch = a_batch.broadcast(b_batch)?;
    let (a_at, b_at) = (Broadcast::new(a_batch, batch), Broadcast::new(b_batch, batch));
    let (a, b) = (f32s(&a)?, f32s(&b)?);
    of_each_matrix(batch, rows, columns, op.heads, |i, out| {
        let left = Strided::rows(&a[a_at.at(i) * rows * depth..], depth);
        let right = Strided::rows(&b[b_at.at(i) * depth * columns..], columns);
        let dims = Dims { m: rows, k: depth, n: columns };
        float::matmul(
            Cpu::SCALAR,
            dims,
            left,
            right,
            StridedMut::rows(out, columns),
            &mut Vec::new(),
        );
    })
}

pub(super) fn attention(op: &Attention, inputs: &[&Computed]) -> Result<Tensor> {
    let [q, k, v] = [0, 1, 2].map(|i| permuted(input(inputs, i)?, &op.permutations[i]));
    let (q, k, v) = (q?, k?, v?);
    let (q_batch, queries, depth) = stack(&q)?;
    let (k_batch, k_rows, keys) = stack(&k)?;
    let (v_batch, v_rows, width) = stack(&v)?;
    if k_rows != depth || v_rows != keys || keys == 0 {
        return Err(refused(format!(
            "attention of {queries}x{depth} queries, {k_rows}x{keys} keys and {v_rows}x{width} \
             values"
        )));
    }
    let batches = [Shape::new(q_batch)?, Shape::new(k_batch)?, Shape::new(v_batch)?];
    let batch = batches[0].broadcast(batches[1])?.broadcast(batches[2])?;
    let at = batches.map(|of| Broadcast::new(of, batch));
    let scores = Shape::new(&[batch.dims(), &[queries, keys]].concat())?;
    // The mask for every score.
    let mask = match inputs.get(3) {
        None => None,
        Some(mask) => {
            let mask = &mask.tensor;
            let from = shape(mask)?;
            if from.broadcast(scores)? != scores {
                let reason = format!("a mask of shape {from:?} does not fit the scores");
                return Err(refused(reason));
            }
            let (values, at) = (f32s(mask)?, Broadcast::new(from, scores));
            Some((0..scores.len()).map(|i| values[at.at(i)]).collect::<Vec<f32>>())
        }
    };
    let (q, k, v) = (f32s(&q)?, f32s(&k)?, f32s(&v)?);
    of_each_matrix(batch, queries, width, op.heads, |i, out| {
        let attention = float::Attention {
            queries,
            keys,
            depth,
            value_depth: width,
            q: Strided::rows(&q[at[0].at(i) * queries * depth..], depth),
            k: Strided::rows(&k[at[1].at(i) * depth * keys..], keys).transposed(),
            v: Strided::rows(&v[at[2].at(i) * keys * width..], width),
            scale: op.scale,
            mask: match &mask {
                Some(mask) => Mask::Full(&mask[i * queries * keys..], keys),
                None => Mask::None,
            },
        };
        float::attend(Cpu::SCALAR, &attention, StridedMut::rows(out, width), &mut Vec::new());
    })
}

/// The row of a table of `rows` that `index` says; negative ones count from the end.
///
/// # Errors
/// If there is no such row.
pub fn row_of(index: i64, rows: usize) -> Result<usize> {
    let row = if index < 0 { index + rows as i64 } else { index };
    let row = usize::try_from(row).ok().filter(|&row| row < rows);
    row.ok_or_else(|| refused(format!("row {index} of a table of {rows} is looked up")))
}

pub(super) fn gather(op: &Gather, indices: &Tensor) -> Result<Tensor> {
    let [rows, width] = op.table.shape();
    let values = op.table.floats()?;
    let mut out = Vec::with_capacity(indices.len() * width);
    for &index in i64s(indices)? {
        out.extend_from_slice(&values[row_of(index, rows)? * width..][..width]);
    }
    Tensor::new([indices.shape(), &[width]].concat(), out)
}
