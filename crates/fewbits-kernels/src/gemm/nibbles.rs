//! Weights of 4 bits: half a byte each in memory, and bytes in the first or second cache while they are
//! multiplied.

use std::cell::RefCell;

use crate::cpu::per_cpu;
use crate::{Buffer, Cpu};

/// Bytes of a vector of weights: those of two lie in one.
const VECTOR: usize = 64;

thread_local! {
    /// What a thread unpacks weights to.
    static UNPACKED: RefCell<Buffer> = RefCell::default();
}

/// Whether all weights have 4 bits.
pub(super) fn fit(weights: &[i8]) -> bool {
    weights.iter().all(|w| (-8..8).contains(w))
}

/// Pairs of vectors of such weights, each in one: the first in the lower halves of its bytes.
pub(crate) fn pack(bytes: &[u8]) -> Buffer {
    let mut nibbles = Buffer::new(bytes.len() / 2);
    nibbles.u8s_mut().fill(0);
    for (pair, to) in bytes.chunks_exact(2 * VECTOR).zip(nibbles.u8s_mut().chunks_exact_mut(VECTOR))
    {
        for (i, &byte) in pair.iter().enumerate() {
            to[i % VECTOR] |= (byte & 15) << (i / VECTOR * 4);
        }
    }
    nibbles
}

/// Calls `work` with the bytes of some whole vectors that were packed.
pub(super) fn with_bytes<R>(cpu: Cpu, nibbles: &[u8], work: impl FnOnce(&[u8]) -> R) -> R {
    UNPACKED.with_borrow_mut(|bytes| {
        bytes.resize(2 * nibbles.len());
        unpack(cpu, nibbles, bytes.u8s_mut());
        work(bytes.u8s())
    })
}

per_cpu! {
    /// The bytes of pairs.
    fn unpack(pairs: &[u8], bytes: &mut [u8]) {
        let (pairs, _) = pairs.as_chunks::<VECTOR>();
        let (bytes, _) = bytes.as_chunks_mut::<VECTOR>();
        for (pair, bytes) in pairs.iter().zip(bytes.chunks_exact_mut(2)) {
            let mut halves = [[0u8; VECTOR]; 2];
            for i in 0..VECTOR {
                // The sign is the highest bit of four.
                halves[0][i] = (pair[i] & 15 ^ 8).wrapping_sub(8);
                halves[1][i] = (pair[i] >> 4 ^ 8).wrapping_sub(8);
            }
            bytes.copy_from_slice(&halves);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            weights in prop::collection::vec(-8i8..8, 1..40), pairs in 0usize..5,
        ) {
            let byte = |i: usize| weights[i % weights.len()] as u8;
            let bytes: Vec<u8> = (0..pairs * 2 * VECTOR).map(byte).collect();
            let nibbles = pack(&bytes);
            prop_assert_eq!(nibbles.len_bytes(), bytes.len() / 2);
            for cpu in Cpu::available() {
                with_bytes(cpu, nibbles.u8s(), |got| assert_eq!(got, bytes));
            }
        }
    }

    #[test]
    fn five_bits_do_not_fit() {
        assert!(fit(&[-8, 7, 0]) && !fit(&[8]) && !fit(&[-9]));
    }
}
