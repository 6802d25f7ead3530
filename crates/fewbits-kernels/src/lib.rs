//! What needs `unsafe`, behind safe functions: no other crate of fewbits may use it.
//!
//! Today that is the memory map from which models are read without a copy ([`MappedFile`]), and a
//! setting of the allocator ([`keep_freed_blocks`]). The integer kernels live here too when they
//! come.

mod mapping;
mod memory;

pub use mapping::MappedFile;
pub use memory::keep_freed_blocks;
