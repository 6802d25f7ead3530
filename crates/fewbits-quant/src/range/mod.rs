//! From floats to the range that the integers shall cover, one method a file.

pub mod minmax;
