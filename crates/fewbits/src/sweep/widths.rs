//! The widths of a sweep, as the command line spells them.

use std::str::FromStr;

use fewbits_quant::Bits;

use crate::plan::Width;

/// At least one width, in the order asked for, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widths(Vec<Width>);

impl Widths {
    /// Every width that all integers take, from 1 to 8 bits.
    pub fn all() -> Widths {
        Widths(Bits::all().map(Width::from).collect())
    }

    /// The widths in order.
    pub fn as_slice(&self) -> &[Width] {
        &self.0
    }
}

impl FromStr for Widths {
    type Err = String;

    /// `4`, `2,4,8`, `1..8` (both ends belong to it), or several of these with commas; up to 15.
    fn from_str(text: &str) -> Result<Widths, String> {
        let mut widths: Vec<Width> = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last): (Width, Width) = (first.trim().parse()?, last.trim().parse()?);
            if first > last {
                return Err(format!("{part} holds no width; write {last}..{first}"));
            }
            let range = Width::all().filter(|bits| (first..=last).contains(bits));
            let new: Vec<Width> = range.filter(|bits| !widths.contains(bits)).collect();
            widths.extend(new);
        }
        Ok(Widths(widths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists() {
        let read = |text: &str| -> Vec<u8> {
            text.parse::<Widths>().unwrap().as_slice().iter().map(|b| b.get()).collect()
        };
        assert_eq!(read("1..8"), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(read("4"), [4]);
        assert_eq!(read("8,4,2"), [8, 4, 2]);
        assert_eq!(read("2..4,8,3"), [2, 3, 4, 8]);
        assert_eq!(read("3..3"), [3]);
        assert_eq!(read("8..15"), [8, 9, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn what_is_no_width_is_refused() {
        for text in ["", "0", "16", "1..16", "0..8", "..", "4..", "a", "1,,2", "8..1", "1..2..3"] {
            assert!(text.parse::<Widths>().is_err(), "{text}");
        }
    }
}
