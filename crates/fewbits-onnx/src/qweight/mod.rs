//! How a quantized weight is written, and read back: with standard operators, or with `MatMulNBits`
//! where that is allowed.
//!
//! The integers:
//! - 8 bits: an INT8 or UINT8 initializer;
//! - 4 bits from opset 21 and 2 bits from opset 25: ONNX's own packed types;
//! - tensors so small that unpacking would take more bytes than packing saves: INT8, UINT8, or
//!   INT16 above 8 bits;
//! - every other width: bit-sliced in a UINT8 initializer of shape `[blocks, 1, width]`
//!   ([`PackedInts`]), unpacked by `BitShift` (by 0 to 7), `Mod` (2) and `MatMulInteger` (with the
//!   value of each bit), which any runtime folds when it loads the model.
//!
//! The floats: `DequantizeLinear`, where the opset has it for the granularity (per tensor from 10,
//! per channel from 13, groups from 21) and the integers have at most 8 bits; otherwise plain
//! `Cast`, `Sub` and `Mul`.
//!
//! Small floats: `Cast` from ONNX's type of 8 bits, or a table of all numbers in which the codes look
//! theirs up; `Mul` by the scales.
//!
//! Scales: FLOAT, or FLOAT16 and a `Cast`; or quantized in turn, by the same `Cast` or table, and a
//! `Mul` where they have a scale of their own.
//!
//! The value that consumers read keeps the weight's name.

pub(crate) mod nbits;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ReadWeight, WeightReader};
pub use write::{QWeightWriter, ReadBy, WeightForm};

use fewbits_quant::{Encoding, PackedInts};

/// The value of each bit of an element, lowest first.
fn bit_values(encoding: Encoding, width: u8) -> Vec<i32> {
    let mut values: Vec<i32> = (0..width).map(|bit| 1 << bit).collect();
    match encoding {
        // The bits of a float are those of an index.
        Encoding::Unsigned | Encoding::Float(_) | Encoding::Exponent => {}
        Encoding::TwosComplement => values[usize::from(width) - 1] *= -1,
        // 2 * bit - 1: the subtraction is a node of its own.
        Encoding::Sign => values[0] = 2,
    }
    values
}

/// Low field first, as ONNX packs its sub-byte types.
fn fields(codes: &PackedInts, bits: usize) -> Vec<u8> {
    let mask = (1u8 << bits) - 1;
    let pack = |group: &[i16]| {
        group
            .iter()
            .enumerate()
            .fold(0u8, |byte, (i, &code)| byte | (code as u8 & mask) << (i * bits))
    };
    codes.unpack().chunks(8 / bits).map(pack).collect()
}
