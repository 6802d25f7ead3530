//! What is known of ONNX's operators, and of the values of a graph by it.
//!
//! Of values: [`operators`] is the one table of what operators give and take; [`types`] follows it through
//! a graph; [`check`] finds what contradicts it. [`mod@sizes`] follows the sizes of axes.
//!
//! Of operators, as quantizing asks it: [`products`], [`constants`] (what a constant is to who reads it),
//! [`norms`], [`integers`] (what computes on integers between products), [`scaling`] (what gives factors of
//! channels on), [`missing`] (what takes NaN). An operator is named there, in passes, and where it is lowered,
//! and nowhere else: `cargo xtask operator-names`.

mod axes;
mod check;
mod constants;
mod integers;
mod missing;
mod names;
mod norms;
mod operators;
mod products;
mod quantized;
mod scaling;
mod sizes;
mod types;
mod windows;

pub use axes::{Along, Axes};
pub use check::{Mismatch, mismatches};
pub use constants::ReadAs;
pub use integers::IntegerForm;
pub use missing::takes_missing;
pub use names::operator_names;
pub use norms::{ScaleAndShift, layer_norm};
pub use products::{
    BiasPlace, OnIntegers, ProductForm, WeightLies, bias_behind, bias_of, convolves,
};
pub use quantized::{QuantizedValue, quantized_values};
pub use scaling::Scaling;
pub use sizes::{Dims, elements, sizes, sizes_beside};
pub use types::{ElementTypes, element_types};
pub use windows::Windows;
