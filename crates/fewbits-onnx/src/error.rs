use std::io;
use std::path::PathBuf;

/// The result of reading, editing or writing a model.
pub type Result<T> = std::result::Result<T, OnnxError>;

/// What can be wrong with a model file. Every message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot write: {source}; choose another output path", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not an ONNX model.
    #[error("{file}: not an ONNX model, or a truncated one ({reason}); export it again")]
    NotOnnx {
        /// The file's path, or a name for bytes in memory.
        file: String,
        /// What the decoder met.
        reason: String,
    },
    /// A tensor's payload contradicts its shape.
    #[error(
        "tensor '{tensor}' of shape {shape:?} and type {data_type} needs {expected_bytes} bytes \
         but holds {actual_bytes}; the file is damaged, export it again"
    )]
    TensorLength {
        /// The tensor.
        tensor: String,
        /// Its declared shape.
        shape: Vec<i64>,
        /// Its element type.
        data_type: String,
        /// Bytes that the shape asks for.
        expected_bytes: u64,
        /// Bytes that are there.
        actual_bytes: u64,
    },
    /// A dimension is negative or the element count overflows.
    #[error(
        "tensor '{tensor}' has the impossible shape {shape:?}; the file is damaged, export it again"
    )]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// Its declared shape.
        shape: Vec<i64>,
    },
    /// An element type that the ONNX specification does not have.
    #[error(
        "tensor '{tensor}' has the unknown data type {data_type}; export it with a type of the ONNX specification"
    )]
    UnknownDataType {
        /// The tensor.
        tensor: String,
        /// The number found.
        data_type: i32,
    },
    /// A tensor of another type than an operation can use.
    #[error("tensor '{tensor}' has type {data_type} where {expected} was expected")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// Its element type.
        data_type: String,
        /// What would be right.
        expected: &'static str,
    },
    /// External data outside the model's own folder.
    #[error(
        "tensor '{tensor}' keeps its data in '{location}', outside the model's folder; move that file beside the model"
    )]
    ExternalEscapes {
        /// The tensor.
        tensor: String,
        /// The offending path.
        location: String,
    },
    /// External data that is not there, or shorter than the tensor says.
    #[error(
        "tensor '{tensor}': external data '{location}': {reason}; put the model's data file beside it"
    )]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// The path in the model.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The output exists and may not be replaced.
    #[error("{}: exists already; save it with Replace::Existing to replace it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An operator set that a model cannot be brought to.
    #[error("the model of opset {from} cannot be upgraded to opset {to}: {reason}")]
    Opset {
        /// The version that the model imports, 0 if none.
        from: i64,
        /// The version asked for.
        to: i64,
        /// Why not, and what to do.
        reason: String,
    },
    /// A graph that cannot be handled.
    #[error("node '{node}' ({op}): {reason}")]
    Node {
        /// The node's name or first output.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong and what to do.
        reason: String,
    },
}
