//! What is known of the values of a graph: their element types and the sizes of their axes.
//!
//! [`operators`] is the one table of what ONNX's operators give and take; [`types`] follows it through
//! a graph; [`check`] finds what contradicts it. [`mod@sizes`] follows the sizes of axes.

mod check;
mod operators;
mod sizes;
mod types;
mod windows;

pub use check::{Mismatch, mismatches};
pub use sizes::{Dims, elements, sizes, sizes_beside};
pub use types::{ElementTypes, element_types};
pub use windows::Windows;
