//! f32 kernels, with the same bits at every CPU level.
//!
//! Three rules make the bits equal: a sum runs in an order that does not depend on the width of
//! vectors; a product that is added without rounding says so (`mul_add`, which on x86 the plain level
//! calls from a library, slow but exact); and functions are polynomials written here, since the
//! system's mathematical library may differ. Only the sign and payload of a NaN are unspecified.
//!
//! Every function runs on the caller's thread and panics if slices are too short for the shapes.

pub mod attention;
pub mod binary;
pub mod broadcast;
mod codes;
mod elementary;
pub mod function;
pub mod images;
mod lanes;
pub mod norm;
mod panel;
pub mod product;
pub mod softmax;
pub mod strided;

pub use attention::{Attention, Mask, attend};
pub use binary::{Binary, binary_in_place};
pub use broadcast::{binary, broadcast};
pub use codes::{Codes, PackedCodes, matmul_codes};
pub use function::{Function, apply};
pub use images::{Convolution, Pooling, Weights, average_pool, convolve, max_pool};
pub use norm::{layer_norm, rms_norm};
pub use panel::PANEL;
pub use product::{matmul, matmul_packed, pack, packed_len};
pub use softmax::softmax;
pub use strided::{Dims, Strided, StridedMut};

#[cfg(test)]
mod testing {
    use crate::Cpu;

    /// Lengths around those of vectors and blocks.
    pub const SIZES: [usize; 12] = [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 65, 130];

    /// `len` values in -2..2 that look random, the same on every run.
    pub fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 22) as f32 - 2.0
            })
            .collect()
    }

    /// Whether both hold the same bits, where any NaN equals any other.
    pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len()
            && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
    }

    /// What `run` gives at the plain level, having checked that all others give the same bits.
    pub fn at_every_level(run: impl Fn(Cpu) -> Vec<f32>) -> Vec<f32> {
        let wanted = run(Cpu::SCALAR);
        for cpu in Cpu::available() {
            let got = run(cpu);
            assert!(same_bits(&got, &wanted), "{cpu:?}: {got:?}, not {wanted:?}");
        }
        wanted
    }
}
