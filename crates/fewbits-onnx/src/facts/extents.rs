//! Sizes that are known, or known to be the same: of axes, and of what holds such sizes.

use fewbits_kernels::Size;

/// Axes of no value that is followed are more, and elements of none that holds a shape: files ask for any number.
pub(super) const MOST_AXES: usize = 64;

/// A size that is not known. Where two axes have one symbol, they are of the same size in every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Symbol(usize);

/// The size of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It is known, and at most [`LARGEST`].
    Is(usize),
    /// It is that of all axes with this symbol.
    Like(Symbol),
    /// It is like none that is known, until the value gets a symbol for it.
    Unknown,
}

/// An element of a value that holds a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// It is known.
    Is(i64),
    /// It is the size of all axes with this symbol.
    Like(Symbol),
    /// It may be anything, a negative number too.
    Unknown,
}

/// The size of every axis of a value.
pub type Extents = Vec<Extent>;

/// The largest size of an axis, so that positions along it are of 64 bits.
const LARGEST: usize = isize::MAX.cast_unsigned();

impl Extent {
    /// The size, if it is known.
    pub fn size(self) -> Option<usize> {
        match self {
            Extent::Is(size) => Some(size),
            Extent::Like(_) | Extent::Unknown => None,
        }
    }

    /// That of two axes behind each other.
    pub(super) fn plus(self, other: Extent) -> Extent {
        Element::from(self).plus(other.into()).extent()
    }

    /// That of two axes that become one.
    pub(super) fn times(self, other: Extent) -> Extent {
        Element::from(self).times(other.into()).extent()
    }
}

impl From<Option<usize>> for Extent {
    fn from(size: Option<usize>) -> Extent {
        size.filter(|&size| size <= LARGEST).map_or(Extent::Unknown, Extent::Is)
    }
}

impl Size for Extent {
    const ONE: Extent = Extent::Is(1);

    fn meet(self, other: Extent) -> Option<Extent> {
        match (self, other) {
            (Extent::Is(a), Extent::Is(b)) => a.meet(b).map(Extent::Is),
            (Extent::Is(1), extent) | (extent, Extent::Is(1)) => Some(extent),
            // The other one is the same or 1.
            (Extent::Is(size), _) | (_, Extent::Is(size)) => Some(Extent::Is(size)),
            (extent, other) if extent == other => Some(extent),
            _ => Some(Extent::Unknown),
        }
    }
}

impl Element {
    /// The size of an axis of so many elements.
    pub(super) fn extent(self) -> Extent {
        match self {
            Element::Is(size) => usize::try_from(size).ok().into(),
            Element::Like(symbol) => Extent::Like(symbol),
            Element::Unknown => Extent::Unknown,
        }
    }

    /// The sum of two.
    pub(super) fn plus(self, other: Element) -> Element {
        match (self, other) {
            (Element::Is(0), element) | (element, Element::Is(0)) => element,
            (Element::Is(a), Element::Is(b)) => a.checked_add(b).into(),
            _ => Element::Unknown,
        }
    }

    /// The product of two.
    pub(super) fn times(self, other: Element) -> Element {
        match (self, other) {
            (Element::Is(0), _) | (_, Element::Is(0)) => Element::Is(0),
            (Element::Is(1), element) | (element, Element::Is(1)) => element,
            (Element::Is(a), Element::Is(b)) => a.checked_mul(b).into(),
            _ => Element::Unknown,
        }
    }

    /// The integer, if it is known.
    pub(super) fn int(self) -> Option<i64> {
        match self {
            Element::Is(int) => Some(int),
            Element::Like(_) | Element::Unknown => None,
        }
    }
}

impl From<Option<i64>> for Element {
    fn from(int: Option<i64>) -> Element {
        int.map_or(Element::Unknown, Element::Is)
    }
}

impl From<Extent> for Element {
    fn from(extent: Extent) -> Element {
        match extent {
            Extent::Is(size) => i64::try_from(size).ok().into(),
            Extent::Like(symbol) => Element::Like(symbol),
            Extent::Unknown => Element::Unknown,
        }
    }
}

/// The symbols of a graph that are given out.
#[derive(Default)]
pub(super) struct Symbols(usize);

impl Symbols {
    /// Gives every axis of unknown size a symbol of its own.
    pub(super) fn name(&mut self, extents: &mut [Extent]) {
        for extent in extents.iter_mut().filter(|extent| **extent == Extent::Unknown) {
            *extent = Extent::Like(Symbol(self.0));
            self.0 += 1;
        }
    }
}

/// The size of an axis that all axes become.
pub(super) fn product(extents: &[Extent]) -> Extent {
    extents.iter().fold(Extent::ONE, |product, &extent| product.times(extent))
}

/// The size of the axis that is left where `all` become `others` and one more.
///
/// Axes of one symbol on both sides count for nothing: if they are empty, no size is left that would do.
pub(super) fn quotient(all: &[Extent], others: &[Extent]) -> Extent {
    let is_open = |extent: &&Extent| extent.size().is_none();
    let mut left: Extents = all.iter().filter(is_open).copied().collect();
    for other in others.iter().filter(is_open) {
        let same = left.iter().position(|own| own == other && *own != Extent::Unknown);
        let Some(same) = same else { return Extent::Unknown };
        left.swap_remove(same);
    }
    let known = |extents: &[Extent]| {
        let mut sizes = extents.iter().filter_map(|extent| extent.size());
        sizes.try_fold(1, usize::checked_mul)
    };
    let Some((all, others)) = known(all).zip(known(others)) else { return Extent::Unknown };
    match left[..] {
        [] if all.checked_rem(others) == Some(0) => all.checked_div(others).into(),
        [extent] if all == others && all > 0 => extent,
        _ => Extent::Unknown,
    }
}

/// What is known of the values that nodes read.
pub trait Known {
    /// The axes of a value, if their number is known.
    fn extents(&self, name: &str) -> Option<Extents>;

    /// The elements of a value of 32-bit or 64-bit integers that is constant, or holds sizes.
    fn elements(&self, name: &str) -> Option<Vec<Element>>;
}

#[cfg(test)]
mod tests {
    use fewbits_kernels::broadcast_shape;

    use super::Extent::{Is, Like, Unknown};
    use super::*;

    const A: Extent = Like(Symbol(0));
    const B: Extent = Like(Symbol(1));

    #[test]
    fn what_meets_a_symbol_is_the_symbol_or_known() {
        let shape = |a: &[Extent], b: &[Extent]| broadcast_shape(a, b);
        assert_eq!(shape(&[A], &[A]), Some(vec![A]));
        assert_eq!(shape(&[A], &[B]), Some(vec![Unknown]));
        assert_eq!(shape(&[Unknown], &[Unknown]), Some(vec![Unknown]));
        assert_eq!(shape(&[A], &[Is(1)]), Some(vec![A]));
        assert_eq!(shape(&[Is(3)], &[A]), Some(vec![Is(3)]));
        assert_eq!(shape(&[A], &[Is(0)]), Some(vec![Is(0)]));
        assert_eq!(shape(&[Is(2), A], &[B]), Some(vec![Is(2), Unknown]));
        assert_eq!(shape(&[Is(2)], &[Is(3)]), None);
    }

    #[test]
    fn sizes_too_large_are_not_known() {
        assert_eq!(Is(LARGEST).plus(Is(1)), Unknown);
        assert_eq!(Is(LARGEST).times(Is(2)), Unknown);
        assert_eq!(product(&[Is(LARGEST), Is(LARGEST), Is(0)]), Is(0));
        assert_eq!(Extent::from(Some(usize::MAX)), Unknown);
        assert_eq!(Element::Is(-1).extent(), Unknown);
        assert_eq!(Element::Is(i64::MIN).extent(), Unknown);
    }

    #[test]
    fn what_is_left_is_divided() {
        assert_eq!(product(&[Is(1), A, Is(1)]), A);
        assert_eq!(product(&[A, Is(2)]), Unknown);
        assert_eq!(quotient(&[A, Is(4), Is(6)], &[A]), Is(24));
        assert_eq!(quotient(&[A, Is(4), Is(6)], &[Is(24)]), A);
        assert_eq!(quotient(&[A, Is(4), Is(6)], &[Is(6)]), Unknown);
        assert_eq!(quotient(&[A, B, A], &[A, B]), A);
        assert_eq!(quotient(&[A, Is(4)], &[B]), Unknown);
        assert_eq!(quotient(&[A, B], &[]), Unknown);
        assert_eq!(quotient(&[Unknown], &[Unknown]), Unknown);
        assert_eq!(quotient(&[Is(5)], &[Is(2)]), Unknown);
        assert_eq!(quotient(&[Is(0)], &[Is(0)]), Unknown);
        assert_eq!(quotient(&[Is(LARGEST), Is(LARGEST)], &[]), Unknown);
        assert_eq!(quotient(&[A, Is(0)], &[Is(0)]), Unknown);
    }
}
