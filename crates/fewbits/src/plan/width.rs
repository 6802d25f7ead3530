//! A width before a scheme is known.

use std::fmt;
use std::str::FromStr;

use fewbits_quant::{Bits, FractionBits};
use serde::Serialize;

use crate::hint::Setting;

/// What `--bits` asks for: the bits of an element, 1 to 8; for fixed-point numbers the digits after the
/// binary point, 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Width(u8);

impl Width {
    /// `None` unless `width` is 1 to 15.
    pub fn new(width: u8) -> Option<Width> {
        FractionBits::new(width).map(Width::from)
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Every width, from 1 to 15.
    pub fn all() -> impl Iterator<Item = Width> {
        FractionBits::all().map(Width::from)
    }

    /// The bits of an element.
    ///
    /// # Errors
    /// If they are more than 8, which only fixed-point numbers take.
    pub fn bits(self) -> Result<Bits, String> {
        Bits::new(self.0).ok_or_else(|| {
            let scheme = Setting::Scheme.to("fixed-point");
            format!("{self} bits: widths are 1 to 8; only {scheme} takes up to 15")
        })
    }

    /// The digits after the binary point.
    pub fn fraction_bits(self) -> FractionBits {
        FractionBits::new(self.0).expect("a width is 1 to 15")
    }
}

impl From<Bits> for Width {
    fn from(bits: Bits) -> Width {
        Width(bits.get())
    }
}

impl From<FractionBits> for Width {
    fn from(digits: FractionBits) -> Width {
        Width(digits.get())
    }
}

impl FromStr for Width {
    type Err = String;

    fn from_str(text: &str) -> Result<Width, String> {
        text.parse().ok().and_then(Width::new).ok_or_else(|| {
            let scheme = Setting::Scheme.to("fixed-point");
            format!("'{text}' is no width; widths are 1 to 8, or 1 to 15 for {scheme}")
        })
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fixed_point_takes_more_than_eight() {
        let nine: Width = "9".parse().unwrap();
        assert!(nine.bits().unwrap_err().contains("fixed-point"));
        assert_eq!(nine.fraction_bits().get(), 9);
        for width in Bits::all().map(Width::from) {
            assert_eq!(width.bits().map(Width::from), Ok(width));
        }
        for text in ["0", "16", "-1", "a", "", "1.5"] {
            assert!(text.parse::<Width>().unwrap_err().contains("1 to 15"), "{text}");
        }
    }
}
