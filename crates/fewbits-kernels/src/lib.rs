//! What needs `unsafe`, behind safe functions: no other crate of fewbits may use it.
//!
//! - [`Cpu`]: which kernels this CPU can run, asked once.
//! - [`Buffer`] and [`ImageLayout`]: the memory that kernels work on.
//! - [`bytes`]: all other kernels on activations of one byte.
//! - [`gemm`]: products of bytes, and convolutions.
//! - [`Threads`]: sharing work among the threads of a pool.
//! - [`float`]: f32 kernels, the same bits on every CPU.
//! - [`exact_f32`]: how the numbers of an operation are written to files.
//! - [`MappedFile`]: the memory map from which models are read without a copy.
//! - [`broadcast_shape`]: the shape that two make which meet, since every other crate can reach it here.
//! - [`keep_freed_blocks`]: a setting of the allocator.

mod arch;
mod buffer;
pub mod bytes;
mod cpu;
pub mod exact_f32;
pub mod float;
pub mod gemm;
mod image;
mod mapping;
mod memory;
mod shape;
mod threads;
mod transpose;

pub use buffer::{Buffer, SLACK_BYTES};
pub use cpu::{Cpu, Level, UnknownCpu};
pub use image::{Halo, ImageLayout};
pub use mapping::MappedFile;
pub use memory::keep_freed_blocks;
pub use shape::{Size, broadcast_shape, broadcast_sizes};
pub use threads::{Pool, Threads};
