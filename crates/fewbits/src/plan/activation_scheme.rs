//! The integers that activations become.

use fewbits_quant::{Bits, Granularity, Levels, Scheme, affine_max, symmetric_max};

/// How activations are to be represented: by 8 bits in the file, all of whose values are used or,
/// with fewer bits, some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationScheme {
    /// The kind of integers.
    pub kind: ActivationKind,
    /// How many of their bits are used.
    pub bits: Bits,
}

/// The kind of integers that activations become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationKind {
    /// Unsigned with a zero point: what fits one-sided activations best.
    Unsigned,
    /// Signed and symmetric: what some targets ask for.
    Signed,
}

impl ActivationScheme {
    /// Unsigned integers of 8 bits, what `DynamicQuantizeLinear` gives.
    pub const UNSIGNED: ActivationScheme =
        ActivationScheme { kind: ActivationKind::Unsigned, bits: Bits::EIGHT };

    pub(super) fn scheme(self) -> Scheme {
        let (bits, granularity) = (self.bits, Granularity::Tensor);
        match self.kind {
            ActivationKind::Unsigned => Scheme::Affine { bits, granularity },
            ActivationKind::Signed => Scheme::Symmetric { bits, granularity },
        }
    }

    pub(crate) fn levels(self) -> Levels {
        match self.kind {
            ActivationKind::Unsigned => Levels::Affine(affine_max(self.bits) as u16),
            ActivationKind::Signed => Levels::Symmetric(symmetric_max(self.bits) as u16),
        }
    }
}
