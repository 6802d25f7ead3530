//! The ONNX messages, after the public specification (`onnx.proto`, IR version 14).
//!
//! The schema is complete: a protobuf decoder drops the fields it does not know, and a model
//! that went through fewbits must not lose any. Every scalar keeps its presence (`Option`), as
//! the specification is proto2. Bytes are [`bytes::Bytes`], so that a message decoded from a
//! memory map borrows its weights from the map.

// The specification leaves some fields undocumented; their names are its own.
#![allow(missing_docs)]

mod devices;
mod graph;
mod tensor;
mod types;

pub use devices::*;
pub use graph::*;
pub use tensor::*;
pub use types::*;
