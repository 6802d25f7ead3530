//! What needs `unsafe`, behind safe functions: no other crate of fewbits may use it.
//!
//! - [`Cpu`]: which kernels this CPU can run, asked once.
//! - [`Buffer`] and [`ImageLayout`]: the memory that kernels work on.
//! - [`gemm`]: products of bytes, and convolutions.
//! - [`bytes`]: all other kernels on activations of one byte.
//! - [`float`]: f32 kernels, the same bits on every CPU.
//! - [`Threads`]: sharing work among the threads of a pool.
//! - [`exact_f32`]: how the numbers of an operation are written to files.
//! - [`MappedFile`]: the memory map from which models are read without a copy.
//! - [`broadcast_shape`]: the shape that two make which meet, since every other crate can reach it here.
//! - [`keep_freed_blocks`]: a setting of the allocator.
//!
//! # A product of bytes
//!
//! Weights are packed once for the CPU that was found, and then multiplied by any activations. A matrix
//! has one *run* of consecutive activations a row; a convolution has one for each row of its window.
//!
//! ```
//! use fewbits_kernels::bytes::{QuantizeTo, Requantize};
//! use fewbits_kernels::gemm::{Grid, Input, Output, PackedWeights, RowStrides, multiply};
//! use fewbits_kernels::{Buffer, Cpu, Threads};
//!
//! let cpu = Cpu::chosen()?;
//! // Two columns, column by column, of three weights.
//! let weights = PackedWeights::new(cpu, &[1, 0, -1, 2, 2, 2], 2, 1, 3);
//! // Two rows of three activations. A buffer has room behind its end, which kernels may read.
//! let mut input = Buffer::new(6);
//! input.u8s_mut().copy_from_slice(&[10, 20, 30, 255, 0, 1]);
//! let rows = Input { bytes: input.with_slack(), rows: RowStrides::of_matrix(3), runs: &[0] };
//!
//! // The sums as they are: the same at every level of every CPU.
//! let mut sums = [0; 4];
//! let to_sums = Output::Sums { sums: &mut sums, rows: RowStrides::of_matrix(2) };
//! multiply(&weights, Grid::of_matrix(2), &rows, to_sums, Threads::ONE);
//! assert_eq!(sums, [-20, 120, 254, 512]);
//!
//! // As bytes that stand for steps of 4 from -128 on, while the sums are in the cache.
//! let mut bytes = [0; 4];
//! let to_bytes = Output::Bytes {
//!     bytes: &mut bytes,
//!     rows: RowStrides::of_matrix(2),
//!     requantize: Requantize {
//!         bias: &[0, 8],
//!         scale: &[0.25; 2],
//!         to: QuantizeTo::all_bytes(1.0, 128),
//!     },
//!     add: None,
//! };
//! multiply(&weights, Grid::of_matrix(2), &rows, to_bytes, Threads::ONE);
//! assert_eq!(bytes, [123, 160, 192, 255]);
//! # Ok::<(), fewbits_kernels::UnknownCpu>(())
//! ```

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
