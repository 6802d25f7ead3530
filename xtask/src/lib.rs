//! What the checks of the source code read it with.

pub mod source;
pub mod tokens;
