//! Shapes that meet as in numpy.

/// The size of an axis, or what is known of it.
pub trait Size: Copy {
    /// That of an axis which repeats.
    const ONE: Self;

    /// Returns the size of the axis that two make which meet; none if they do not go together.
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

/// Returns the shape that `a` and `b` broadcast to, if they do.
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
}
