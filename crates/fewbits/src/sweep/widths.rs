//! The widths of a sweep, as the command line spells them.

use std::str::FromStr;

use fewbits_quant::Bits;

/// At least one width, in the order asked for, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widths(Vec<Bits>);

impl Widths {
    /// Every width, from 1 to 8 bits.
    pub fn all() -> Widths {
        Widths(Bits::all().collect())
    }

    /// The widths in order.
    pub fn as_slice(&self) -> &[Bits] {
        &self.0
    }
}

impl FromStr for Widths {
    type Err = String;

    /// `4`, `2,4,8`, `1..8` (both ends belong to it), or several of these with commas.
    fn from_str(text: &str) -> Result<Widths, String> {
        let mut widths: Vec<Bits> = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last): (Bits, Bits) = (first.trim().parse()?, last.trim().parse()?);
            if first > last {
                return Err(format!("{part} holds no width; write {last}..{first}"));
            }
            let range = Bits::all().filter(|bits| (first..=last).contains(bits));
            let new: Vec<Bits> = range.filter(|bits| !widths.contains(bits)).collect();
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
    }

    #[test]
    fn what_is_no_width_is_refused() {
        for text in ["", "0", "9", "1..9", "0..8", "..", "4..", "a", "1,,2", "8..1", "1..2..3"] {
            assert!(text.parse::<Widths>().is_err(), "{text}");
        }
    }
}
