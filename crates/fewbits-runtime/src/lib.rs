//! Runs models.

mod error;
mod tensor;

pub use error::{Result, RuntimeError};
pub use tensor::{Tensor, Values};
