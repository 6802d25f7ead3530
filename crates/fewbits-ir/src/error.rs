use fewbits_onnx::OnnxError;
use fewbits_onnx::proto::DataType;

/// The result of running a model.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// What can go wrong when a model is loaded or run. Every message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A tensor whose element count is not the product of its shape.
    #[error("{elements} elements do not fill the shape {shape:?}")]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The elements given.
        elements: usize,
    },
    /// Tensors that do not stack along an axis.
    #[error("tensors of shapes {first:?} and {other:?} cannot be joined along axis {axis}")]
    Concat {
        /// The shape so far.
        first: Vec<usize>,
        /// The shape that does not fit.
        other: Vec<usize>,
        /// The axis.
        axis: usize,
    },
    /// A conversion between element types that fewbits does not make.
    #[error("{from:?} data cannot be used where {to:?} is needed; convert the data first")]
    Cast {
        /// The type given.
        from: DataType,
        /// The type needed.
        to: DataType,
    },
    /// The model cannot be loaded by the executor.
    #[error("the model cannot be run here: {reason}")]
    Load {
        /// The executor's own words, or the operators that are missing.
        reason: String,
    },
    /// A run failed.
    #[error("the model failed to run: {reason}")]
    Run {
        /// The executor's own words.
        reason: String,
    },
    /// A missing, surplus or ill-shaped input, or an unknown value.
    #[error("input '{input}': {reason}")]
    Input {
        /// The model's input or value.
        input: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The model itself is at fault.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
}
