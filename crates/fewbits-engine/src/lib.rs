//! Runs models.
//!
//! [`Runner`] is what every executor offers; [`FloatRunner`] computes in f32 with rten. A model
//! of classical machine-learning operators is lowered first, packed weights are unpacked first,
//! and string labels are looked up after, since rten knows none of these.

mod double;
mod error;
mod float;
mod fold;
mod integer;
mod prepare;
mod reach;
mod runner;
mod tensor;
mod text;
mod trust;

pub use error::{Result, RuntimeError};
pub use float::FloatRunner;
pub use fold::fold_constants;
pub use integer::{Engine, Fusion, Place, StepRole, StepTime, rows_known};
pub use reach::{Lacking, OutOfReach, Reach};
pub use runner::{RowsKnown, RunOptions, Runner, ValueSpec, input_specs};
pub use tensor::{Tensor, Values};
