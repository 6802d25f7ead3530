//! Operators on floats, at the plain level of their kernels. Sums, means and maxima go one element after the
//! other: the same bits everywhere.

use fewbits_kernels::Cpu;
use fewbits_kernels::float::{
    self, Binary, Dims, Function, Mask, Strided, StridedMut, layer_norm, rms_norm,
};

use super::movement::transpose;
use super::{Computed, f32s, i64s, input, shape};
use crate::op::{
    Attention, FloatConv, FloatMatMul, FloatPool, FloatPooling, Gather, Heads, MatMulConstant,
    Matrix, Norm, NormKind, Order, Permutation, Reduce, Reduction,
};
use crate::shape::{Broadcast, Shape};
use crate::{Result, RuntimeError, Tensor};

const PLAIN: Cpu = Cpu::SCALAR;

fn refused(reason: String) -> RuntimeError {
    RuntimeError::Run { reason }
}

fn like(tensor: &Tensor, values: Vec<f32>) -> Result<Tensor> {
    Tensor::new(tensor.shape().to_vec(), values)
}

pub(super) fn function(function: Function, tensor: &Tensor) -> Result<Tensor> {
    let mut values = f32s(tensor)?.to_vec();
    float::apply(PLAIN, function, &mut values);
    like(tensor, values)
}

pub(super) fn binary(operation: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let to = shape(a)?.broadcast(shape(b)?)?;
    let mut out = vec![0.0; to.len()];
    float::broadcast(PLAIN, operation, f32s(a)?, a.shape(), f32s(b)?, b.shape(), &mut out);
    Tensor::new(to.dims().to_vec(), out)
}

impl Norm {
    /// Checks that rows of `width` are those that are normalized.
    ///
    /// # Errors
    /// If they are not.
    pub fn check(&self, width: usize) -> Result<()> {
        let fits = match &self.kind {
            NormKind::Layer { bias } => bias.is_empty() || bias.len() == width,
            NormKind::RootMeanSquare => true,
        };
        if self.gain.len() == width && fits {
            return Ok(());
        }
        Err(refused(format!("rows of {} are normalized, {width} given", self.gain.len())))
    }
}

pub(super) fn norm(norm: &Norm, tensor: &Tensor) -> Result<Tensor> {
    let width = shape(tensor)?.last();
    norm.check(width)?;
    let (values, mut out) = (f32s(tensor)?, vec![0.0; tensor.len()]);
    match &norm.kind {
        NormKind::Layer { bias } => {
            layer_norm(PLAIN, values, width, &norm.gain, bias, norm.epsilon, &mut out);
        }
        NormKind::RootMeanSquare => {
            rms_norm(PLAIN, values, width, &norm.gain, norm.epsilon, &mut out);
        }
    }
    like(tensor, out)
}

pub(super) fn softmax(tensor: &Tensor) -> Result<Tensor> {
    let (width, mut values) = (shape(tensor)?.last(), f32s(tensor)?.to_vec());
    if width > 0 {
        float::softmax(PLAIN, &mut values, width);
    }
    like(tensor, values)
}

pub(super) fn conv(conv: &FloatConv, tensor: &Tensor) -> Result<Tensor> {
    let weights = conv.weights.shape();
    let &[filters, group_channels, ..] = weights else {
        return Err(refused(format!("weights of shape {weights:?} are no filters")));
    };
    let to = shape(tensor)?.windowed(filters, &conv.window)?;
    let channels = group_channels * conv.groups;
    if tensor.shape()[1] != channels {
        let given = tensor.shape()[1];
        return Err(refused(format!(
            "a convolution of {channels} channels was given images of {given}"
        )));
    }
    let shape: [usize; 4] = weights.try_into().map_err(|_| refused("no filters".into()))?;
    let packed =
        float::Weights::new(PLAIN, f32s(&conv.weights)?.to_vec(), shape, conv.groups, conv.window);
    let convolution = float::Convolution {
        bias: &conv.bias,
        filters,
        channels,
        groups: conv.groups,
        window: conv.window,
        size: super::bytes::image_size(tensor.shape()),
        out_size: super::bytes::image_size(to.dims()),
        function: conv.function,
    };
    let mut out = vec![0.0; to.len()];
    let planes = 0..to.dims()[0] * filters;
    if !out.is_empty() {
        let mut scratch = Vec::new();
        float::convolve(
            PLAIN,
            &convolution,
            &packed,
            f32s(tensor)?,
            planes,
            &mut out,
            &mut scratch,
        );
    }
    Tensor::new(to.dims().to_vec(), out)
}

pub(super) fn pool(pool: &FloatPool, tensor: &Tensor) -> Result<Tensor> {
    let from = shape(tensor)?;
    let channels = from.dims().get(1).copied().unwrap_or(1);
    let to = from.windowed(channels, &pool.window)?;
    let pooling = float::Pooling {
        window: pool.window,
        size: super::bytes::image_size(from.dims()),
        out_size: super::bytes::image_size(to.dims()),
    };
    let (mut out, mut scratch) = (vec![0.0; to.len()], Vec::new());
    match pool.pooling {
        FloatPooling::Max => {
            float::max_pool(PLAIN, &pooling, f32s(tensor)?, &mut out, &mut scratch);
        }
        FloatPooling::Average(divisor) => {
            float::average_pool(PLAIN, &pooling, divisor, f32s(tensor)?, &mut out, &mut scratch);
        }
    }
    Tensor::new(to.dims().to_vec(), out)
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
    float::matmul(PLAIN, dims, left, matrix, StridedMut::rows(&mut out, columns), &mut Vec::new());
    let product = Tensor::new(to.dims().to_vec(), out)?;
    match &op.bias {
        Some(bias) => binary(Binary::Add, &product, &Tensor::new(vec![columns], bias.clone())?),
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

pub(super) fn matmul(op: &FloatMatMul, a: &Tensor, b: &Tensor) -> Result<Tensor> {
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
        float::matmul(PLAIN, dims, left, right, StridedMut::rows(out, columns), &mut Vec::new());
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
        float::attend(PLAIN, &attention, StridedMut::rows(out, width), &mut Vec::new());
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

impl Reduce {
    /// The elements that become one, and the shape of what comes out.
    ///
    /// # Errors
    /// If the value has fewer axes.
    pub fn shapes(&self, from: Shape) -> Result<(usize, Shape)> {
        let dims = from.dims();
        let kept = dims.len().checked_sub(self.axes).ok_or_else(|| RuntimeError::Run {
            reason: format!("{} axes are reduced of a value of shape {from:?}", self.axes),
        })?;
        let width: usize = dims[kept..].iter().product();
        let mut left = dims[..kept].to_vec();
        if self.keep_axes {
            left.resize(dims.len(), 1);
        }
        Ok((width, Shape::new(&left)?))
    }

    /// Reduces rows of `width`.
    pub fn reduce(&self, values: &[f32], width: usize, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            let row = values[i * width..][..width].iter().copied();
            *out = match self.reduction {
                Reduction::Sum => row.sum(),
                Reduction::Mean => row.sum::<f32>() / width as f32,
                // NaN stays: nothing is larger.
                Reduction::Max => {
                    row.fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a })
                }
            };
        }
    }
}
