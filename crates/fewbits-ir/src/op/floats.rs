//! Operators on floats.

use std::sync::Arc;

use fewbits_kernels::bytes::{Divisor, Window};
use fewbits_kernels::float::Function;
use fewbits_quant::QTensor;
use serde::{Deserialize, Serialize};

use crate::Tensor;

/// What a row is divided by, and what is done with its mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// The deviation, once the mean is taken off.
    Layer {
        /// What is added, one for each column; empty if there is nothing.
        #[serde(with = "crate::stored::per_column")]
        bias: Vec<f32>,
    },
    /// The root of the mean of the squares.
    RootMeanSquare,
}

/// LayerNormalization or RMSNormalization over the last axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// Which of them.
    pub kind: NormKind,
    /// What each column is multiplied by.
    #[serde(with = "crate::stored::per_column")]
    pub gain: Vec<f32>,
    /// What is added to the variance.
    #[serde(with = "fewbits_kernels::exact_f32")]
    pub epsilon: f32,
}

/// What becomes of the last axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The greatest of them.
    Max,
}

/// A number for each row, or for each of the matrices and so on that a value is a stack of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// What is computed.
    pub reduction: Reduction,
    /// How many axes, counted from the end.
    pub axes: usize,
    /// Whether the axes stay, of size 1.
    pub keep_axes: bool,
}

/// A convolution of floats `[images, channels, ..]` with weights `[filters, channels of a group, rows,
/// columns]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloatConv {
    /// Of four axes, floats.
    pub weights: Tensor,
    /// One for each filter, or none.
    #[serde(with = "crate::stored::per_column")]
    pub bias: Vec<f32>,
    /// Groups of channels.
    pub groups: usize,
    /// How windows move.
    pub window: Window,
    /// What follows.
    pub function: Option<Function>,
}

/// What is made of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatPooling {
    /// The greatest of it.
    Max,
    /// Its average.
    Average(Divisor),
}

/// MaxPool or AveragePool of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatPool {
    /// How windows move.
    pub window: Window,
    /// What is made of them.
    pub pooling: FloatPooling,
}

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
