//! Integers of 1 to 16 bits, packed to the bit.
//!
//! Eight-bit integers are bytes. Every other width is bit-sliced: eight consecutive elements take
//! `width` bytes, of which byte `j` holds bit `j` of each, element `s` at bit `s`. So `n` elements
//! take `ceil(n / 8) * width` bytes, and one small chain of standard ONNX operators (shift, mod,
//! product with the powers of two) unpacks every width alike.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::FloatFormat;

/// What the bits of an element mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// `0 ..= 2^width - 1`.
    Unsigned,
    /// `-2^(width-1) ..= 2^(width-1) - 1`.
    TwosComplement,
    /// One bit: 0 is -1, 1 is +1.
    Sign,
    /// A small float; integers here are its bits.
    Float(FloatFormat),
    /// A power of two, `2^(code - 127)` (`FLOAT8E8M0`): a scale.
    Exponent,
}

/// A sequence of integers, packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedInts {
    width: u8,
    encoding: Encoding,
    len: usize,
    bytes: Vec<u8>,
}

impl PackedInts {
    /// The widest element.
    pub const MAX_WIDTH: u8 = 16;

    /// Packs `codes`, each of which must fit `width` bits in `encoding`.
    ///
    /// # Panics
    /// If `width` is not 1 to 16, or a sign is not one bit wide.
    pub fn pack(codes: &[i16], width: u8, encoding: Encoding) -> PackedInts {
        let mut packed = PackedInts::with_capacity(codes.len(), width, encoding);
        packed.extend(codes);
        packed
    }

    /// No integers yet, room for `len`.
    ///
    /// # Panics
    /// If `width` is not 1 to 16, or a sign is not one bit wide.
    pub fn with_capacity(len: usize, width: u8, encoding: Encoding) -> PackedInts {
        assert!((1..=Self::MAX_WIDTH).contains(&width), "width {width} is not 1 to 16");
        assert!(encoding != Encoding::Sign || width == 1, "a sign is one bit");
        let bytes = Vec::with_capacity(Self::packed_bytes(len, width));
        PackedInts { width, encoding, len: 0, bytes }
    }

    /// Packed integers from their bytes, or `None` if the number of bytes is not the one that
    /// `len` elements take.
    pub fn from_bytes(
        bytes: Vec<u8>,
        len: usize,
        width: u8,
        encoding: Encoding,
    ) -> Option<PackedInts> {
        let legal =
            (1..=Self::MAX_WIDTH).contains(&width) && (encoding != Encoding::Sign || width == 1);
        (legal && bytes.len() == Self::packed_bytes(len, width)).then_some(PackedInts {
            width,
            encoding,
            len,
            bytes,
        })
    }

    /// Bytes that `len` elements take.
    pub fn packed_bytes(len: usize, width: u8) -> usize {
        if width == 8 { len } else { len.div_ceil(8) * usize::from(width) }
    }

    /// The same bits with another meaning; a sign stays one.
    pub fn with_encoding(self, encoding: Encoding) -> PackedInts {
        debug_assert_eq!(self.encoding == Encoding::Sign, encoding == Encoding::Sign);
        PackedInts { encoding, ..self }
    }

    /// Appends integers.
    pub fn extend(&mut self, codes: &[i16]) {
        debug_assert!(codes.iter().all(|&c| self.fits(c)), "a code does not fit its width");
        if self.width == 8 {
            self.bytes.extend(codes.iter().map(|&c| c as u8));
            self.len += codes.len();
            return;
        }
        let width = usize::from(self.width);
        let filled = self.len % 8;
        let (first, rest) =
            codes.split_at(if filled == 0 { 0 } else { codes.len().min(8 - filled) });
        let block = self.bytes.len().saturating_sub(width);
        for (i, &code) in first.iter().enumerate() {
            let bits = bits_of(self.encoding, code);
            for (j, byte) in self.bytes[block..].iter_mut().enumerate() {
                *byte |= ((bits >> j & 1) as u8) << (filled + i);
            }
        }
        for eight in rest.chunks(8) {
            let start = self.bytes.len();
            self.bytes.resize(start + width, 0);
            for (s, &code) in eight.iter().enumerate() {
                let bits = bits_of(self.encoding, code);
                for (j, byte) in self.bytes[start..].iter_mut().enumerate() {
                    *byte |= ((bits >> j & 1) as u8) << s;
                }
            }
        }
        self.len += codes.len();
    }

    /// The integers.
    pub fn unpack(&self) -> Vec<i16> {
        self.unpack_range(0..self.len)
    }

    /// Some of the integers.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn unpack_range(&self, range: Range<usize>) -> Vec<i16> {
        assert!(range.end <= self.len, "{range:?} of {} integers", self.len);
        let mut codes = Vec::with_capacity(range.len());
        if self.width == 8 {
            let signed = self.encoding == Encoding::TwosComplement;
            let bytes = self.bytes[range].iter();
            codes.extend(bytes.map(|&b| if signed { i16::from(b as i8) } else { i16::from(b) }));
            return codes;
        }
        let blocks = self.bytes.chunks_exact(usize::from(self.width)).enumerate();
        for (i, block) in blocks.skip(range.start / 8).take(range.end.div_ceil(8) - range.start / 8)
        {
            for s in range.start.max(8 * i) - 8 * i..range.end.min(8 * i + 8) - 8 * i {
                let bits = block
                    .iter()
                    .enumerate()
                    .fold(0u16, |bits, (j, byte)| bits | u16::from(byte >> s & 1) << j);
                codes.push(self.decode(bits));
            }
        }
        codes
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packed bytes, taken out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The narrowest width that holds every element.
    pub fn bits_needed(&self) -> u8 {
        let needed = |code: i16| match self.encoding {
            Encoding::Sign => 1,
            Encoding::Unsigned => 16 - code.leading_zeros(),
            Encoding::Float(_) | Encoding::Exponent => u32::from(self.width),
            // A negative integer n needs as many digits as -(n + 1) = !n, and the sign.
            Encoding::TwosComplement => 17 - code.max(!code).leading_zeros(),
        };
        self.unpack().into_iter().map(needed).max().unwrap_or(0) as u8
    }

    /// Bits of one element.
    pub fn width(&self) -> u8 {
        self.width
    }

    /// What the bits mean.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn fits(&self, code: i16) -> bool {
        let (code, width) = (i32::from(code), self.width);
        match self.encoding {
            Encoding::Unsigned | Encoding::Float(_) | Encoding::Exponent => {
                (0..1 << width).contains(&code)
            }
            Encoding::TwosComplement => (-(1 << (width - 1))..1 << (width - 1)).contains(&code),
            Encoding::Sign => code.abs() == 1,
        }
    }

    fn decode(&self, bits: u16) -> i16 {
        match self.encoding {
            Encoding::Unsigned | Encoding::Float(_) | Encoding::Exponent => bits as i16,
            Encoding::TwosComplement => {
                let unused = 16 - u32::from(self.width);
                (bits << unused) as i16 >> unused
            }
            Encoding::Sign => 2 * bits as i16 - 1,
        }
    }
}

fn bits_of(encoding: Encoding, code: i16) -> u16 {
    match encoding {
        Encoding::Sign => u16::from(code > 0),
        _ => code as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_bit_sliced() {
        // Three bits: elements 1 = 001, -1 = 111, then zeros.
        let packed = PackedInts::pack(&[1, -1, 0], 3, Encoding::TwosComplement);
        assert_eq!(packed.bytes(), [0b011, 0b010, 0b010]);
        let signs = PackedInts::pack(&[1, -1, 1], 1, Encoding::Sign);
        assert_eq!(signs.bytes(), [0b101]);
    }

    #[test]
    fn the_bits_needed_count_the_sign() {
        let needed = |codes: &[i16], encoding| PackedInts::pack(codes, 11, encoding).bits_needed();
        assert_eq!(needed(&[410, -194], Encoding::TwosComplement), 10);
        assert_eq!(needed(&[0, -1], Encoding::TwosComplement), 1);
        assert_eq!(needed(&[7], Encoding::Unsigned), 3);
    }

    #[test]
    fn wrong_byte_counts_are_refused() {
        assert!(PackedInts::from_bytes(vec![0; 3], 8, 3, Encoding::Unsigned).is_some());
        assert!(PackedInts::from_bytes(vec![0; 3], 9, 3, Encoding::Unsigned).is_none());
        assert!(PackedInts::from_bytes(vec![0; 3], 8, 0, Encoding::Unsigned).is_none());
    }

    proptest! {
        #[test]
        fn every_width_and_encoding_round_trips(
            raw in prop::collection::vec(any::<u16>(), 0..70), width in 1u8..=16, signed in any::<bool>(), cut in 0usize..70,
        ) {
            let encoding = if signed { Encoding::TwosComplement } else { Encoding::Unsigned };
            prop_assume!(signed || width < 16);
            let unused = 16 - u32::from(width);
            let codes: Vec<i16> = raw.iter().map(|&r| if signed {
                (r << unused) as i16 >> unused
            } else {
                (r << unused >> unused) as i16
            }).collect();
            let packed = PackedInts::pack(&codes, width, encoding);
            prop_assert_eq!(packed.bytes().len(), PackedInts::packed_bytes(codes.len(), width));
            prop_assert_eq!(packed.unpack(), codes.clone());
            let (start, end) = (cut.min(codes.len()), (cut + 9).min(codes.len()));
            prop_assert_eq!(packed.unpack_range(start..end), codes[start..end].to_vec());
            // In two pieces it is the same.
            let cut = cut.min(codes.len());
            let mut pieces = PackedInts::with_capacity(codes.len(), width, encoding);
            pieces.extend(&codes[..cut]);
            pieces.extend(&codes[cut..]);
            prop_assert_eq!(pieces, packed);
        }

        #[test]
        fn signs_round_trip(raw in prop::collection::vec(any::<bool>(), 0..40)) {
            let codes: Vec<i16> = raw.iter().map(|&b| if b { 1 } else { -1 }).collect();
            prop_assert_eq!(PackedInts::pack(&codes, 1, Encoding::Sign).unpack(), codes);
        }
    }
}
