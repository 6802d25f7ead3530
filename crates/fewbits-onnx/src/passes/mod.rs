//! What edits a graph, one pass a file.

pub mod cleanup;
pub mod constants;
pub mod lower_ml;
pub mod qdq;
