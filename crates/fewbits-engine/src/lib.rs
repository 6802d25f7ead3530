//! Runs models.
//!
//! [`Runner`] is what every executor offers. [`Engine`] runs the [`Program`](fewbits_ir::Program) that a
//! model becomes, on our own kernels: it packs the weights for a CPU and plans the memory. [`FloatRunner`]
//! computes in f32 with rten: a whole model, or what of a program no kernel of ours computes. rten is the
//! feature `rten`, on by default: without it such a program is refused, with the nodes and the reasons.

mod engine;
mod expose;
#[cfg(feature = "rten")]
mod float;
#[cfg(feature = "rten")]
mod fold;
mod parts;
#[cfg(feature = "rten")]
mod reach;
mod runner;
mod state;
mod steps;
#[cfg(feature = "rten")]
mod string_epilogue;

pub use engine::{Engine, Fusion, StepTime};
pub use fewbits_ir::{
    Backend, Result, RowsKnown, RuntimeError, Tensor, ValueSpec, Values, input_specs, rows_known,
};
#[cfg(feature = "rten")]
pub use float::FloatRunner;
#[cfg(feature = "rten")]
pub use fold::fold_constants;
#[cfg(feature = "rten")]
pub use reach::{Lacking, OutOfReach, Reach};
pub use runner::{RunOptions, Runner};
