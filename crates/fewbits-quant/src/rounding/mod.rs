//! From floats and parameters to integers, one method a file.

pub mod nearest;
pub mod sign;
