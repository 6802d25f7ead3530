//! What needs `unsafe`, behind safe functions: no other crate of fewbits may use it.
//!
//! Today that is the memory map from which models are read without a copy ([`MappedFile`]).
//! The integer kernels live here too when they come.

mod mapping;

pub use mapping::MappedFile;
