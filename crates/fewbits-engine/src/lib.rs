//! Runs models.
//!
//! [`Runner`] is what every executor offers. [`Engine`] runs the [`Program`](fewbits_ir::Program) that a
//! model becomes, on our own kernels: it packs the weights for a CPU and plans the memory. [`FloatRunner`]
//! computes in f32 with rten: a whole model, or what of a program no kernel of ours computes.

mod engine;
mod expose;
mod float;
mod fold;
mod parts;
mod reach;
mod runner;
mod state;
mod steps;
mod string_epilogue;

pub use engine::{Engine, Fusion, StepTime};
pub use fewbits_ir::{
    Backend, Result, RowsKnown, RuntimeError, Tensor, ValueSpec, Values, input_specs, rows_known,
};
pub use float::FloatRunner;
pub use fold::fold_constants;
pub use reach::{Lacking, OutOfReach, Reach};
pub use runner::{RunOptions, Runner};
