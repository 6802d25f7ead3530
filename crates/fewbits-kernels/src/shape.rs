//! Shapes that meet as in numpy.

/// The size of an axis, or what is known of it.
pub trait Size: Copy {
    /// That of an axis which repeats.
    const ONE: Self;

    /// The size of the axis that two make which meet; none if they do not go together.
    fn meet(self, other: Self) -> Option<Self>;
}

impl Size for usize {
    const ONE: usize = 1;

    fn meet(self, other: usize) -> Option<usize> {
        match (self, other) {
            (1, size) | (size, 1) => Some(size),
            (size, other) => (size == other).then_some(size),
        }
    }
}

/// A size that may not be known.
impl Size for Option<usize> {
    const ONE: Option<usize> = Some(1);

    fn meet(self, other: Option<usize>) -> Option<Option<usize>> {
        match (self, other) {
            (Some(1), size) | (size, Some(1)) => Some(size),
            (Some(size), Some(other)) => size.meet(other).map(Some),
            // Of an unknown size and another it is the other, which is not 1.
            (size, other) => Some(size.or(other)),
        }
    }
}

/// Gives the size of every axis that shapes `a` and `b` broadcast to, none where they do not go together.
pub fn broadcast_sizes<'a, S: Size>(
    a: &'a [S],
    b: &'a [S],
) -> impl ExactSizeIterator<Item = Option<S>> + 'a {
    let rank = a.len().max(b.len());
    (0..rank).map(move |axis| size_of(a, rank, axis).meet(size_of(b, rank, axis)))
}

/// The size of an axis of `rank`, before which `shape` is filled up with ones.
pub(crate) fn size_of<S: Size>(shape: &[S], rank: usize, axis: usize) -> S {
    (axis + shape.len()).checked_sub(rank).map_or(S::ONE, |own| shape[own])
}

/// The shape that `a` and `b` broadcast to, if they do.
pub fn broadcast_shape<S: Size>(a: &[S], b: &[S]) -> Option<Vec<S>> {
    broadcast_sizes(a, b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_meet_or_do_not() {
        assert_eq!(broadcast_shape(&[2, 3], &[2]), None);
        assert_eq!(broadcast_shape(&[2, 1], &[3]), Some(vec![2, 3]));
        assert_eq!(broadcast_shape::<usize>(&[], &[]), Some(vec![]));
        assert_eq!(broadcast_shape(&[1], &[0]), Some(vec![0]));
        assert_eq!(broadcast_shape(&[4], &[0]), None);
    }

    #[test]
    fn unknown_sizes_are_what_they_meet() {
        let shape = |a: &[Option<usize>], b: &[Option<usize>]| broadcast_shape(a, b);
        assert_eq!(shape(&[None], &[Some(3)]), Some(vec![Some(3)]));
        assert_eq!(shape(&[None], &[Some(1)]), Some(vec![None]));
        assert_eq!(shape(&[Some(1), None], &[None]), Some(vec![Some(1), None]));
        assert_eq!(shape(&[Some(2)], &[Some(3)]), None);
    }
}
