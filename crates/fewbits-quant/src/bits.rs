//! Widths of integers, and of what stands behind the point of fixed-point numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A width of 1 to 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Bits(u8);

impl Bits {
    /// Four bits.
    pub const FOUR: Bits = Bits(4);

    /// Eight bits.
    pub const EIGHT: Bits = Bits(8);

    /// `None` unless `bits` is 1 to 8.
    pub fn new(bits: u8) -> Option<Bits> {
        (1..=8).contains(&bits).then_some(Bits(bits))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Every width, from 1 to 8.
    pub fn all() -> impl Iterator<Item = Bits> {
        (1..=8).map(Bits)
    }
}

impl TryFrom<u8> for Bits {
    type Error = String;

    fn try_from(bits: u8) -> std::result::Result<Bits, String> {
        Bits::new(bits).ok_or_else(|| format!("{bits} bits: widths are 1 to 8"))
    }
}

impl From<Bits> for u8 {
    fn from(bits: Bits) -> u8 {
        bits.0
    }
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Bits, String> {
        let number: u8 =
            text.parse().map_err(|_| format!("'{text}' is not a width; widths are 1 to 8"))?;
        Bits::try_from(number)
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Binary digits after the point: 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct FractionBits(u8);

impl FractionBits {
    /// Eight digits, as the notebook has.
    pub const EIGHT: FractionBits = FractionBits(8);

    /// `None` unless `digits` is 1 to 15.
    pub fn new(digits: u8) -> Option<FractionBits> {
        (1..=15).contains(&digits).then_some(FractionBits(digits))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Every number of digits, from 1 to 15.
    pub fn all() -> impl Iterator<Item = FractionBits> {
        (1..=15).map(FractionBits)
    }
}

impl TryFrom<u8> for FractionBits {
    type Error = String;

    fn try_from(digits: u8) -> std::result::Result<FractionBits, String> {
        FractionBits::new(digits)
            .ok_or_else(|| format!("{digits} fractional bits: fixed-point numbers have 1 to 15"))
    }
}

impl From<FractionBits> for u8 {
    fn from(digits: FractionBits) -> u8 {
        digits.0
    }
}

impl fmt::Display for FractionBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_legal_widths_can_be_made() {
        assert_eq!(Bits::new(0), None);
        assert_eq!(Bits::new(9), None);
        assert_eq!(Bits::all().count(), 8);
        assert!("9".parse::<Bits>().is_err());
        assert!("eight".parse::<Bits>().is_err());
        assert_eq!([0, 16].map(FractionBits::new), [None, None]);
        assert_eq!(FractionBits::all().count(), 15);
    }
}
