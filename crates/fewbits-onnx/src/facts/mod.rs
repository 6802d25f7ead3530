//! What is known of the values of a graph: their element types.
//!
//! [`operators`] is the one table of what ONNX's operators give and take; [`types`] follows it through
//! a graph; [`check`] finds what contradicts it.

mod check;
mod operators;
mod types;

pub use check::{Mismatch, mismatches};
pub use types::{ElementTypes, element_types};
