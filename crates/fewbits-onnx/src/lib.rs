//! ONNX models as fewbits reads, edits and writes them.
//!
//! - [`proto`]: the messages, the whole schema.
//! - [`Model`]: a model file, mapped and checked; external data resolved; written whole or not
//!   at all.
//! - [`Graph`](proto::GraphProto) helpers in [`graph`]: who produces, who consumes, fresh names.
//! - [`facts`]: what is known of operators, and of the values of a graph.
//! - [`passes`]: what edits a graph, one a file.
//! - [`qweight`]: how a quantized weight is written with standard operators, and read back.

mod equal_initializers;
mod error;
pub mod facts;
pub mod graph;
mod model;
pub mod node;
pub mod passes;
pub mod proto;
pub mod qweight;
mod save;
mod stored;
mod temporary;
mod tensor;

pub use equal_initializers::{same_content, share_equal_initializers};
pub use error::{OnnxError, Result};
pub(crate) use model::MICROSOFT;
pub use model::{MODEL_DOMAIN_ML, Model, ir_version_of_opset};
pub use save::{EXTERNAL_DATA_THRESHOLD_BYTES, ExternalData, Replace, SaveOptions, Saved};
pub use stored::{Holder, Stored};
pub use temporary::{remove_left_over, write_whole};
pub use tensor::{bits_per_element, payload_bytes};
