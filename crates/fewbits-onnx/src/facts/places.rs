//! Places on axes, and of axes, as attributes and lists give them: negative ones count from the end.

use super::extents::{Extent, MOST_AXES};

/// What a slice takes along an axis.
pub(super) struct Cut {
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

impl Cut {
    /// How many elements it takes of an axis.
    pub fn extent(&self, of: Extent) -> Extent {
        match of {
            Extent::Is(size) => length(size, self.start, self.end, self.step).into(),
            // All, however many there are.
            of if (self.start, self.end, self.step) == (0, i64::MAX, 1) => of,
            _ => Extent::Unknown,
        }
    }

    /// The elements that it takes.
    pub fn of<T: Copy>(&self, elements: &[T]) -> Option<Vec<T>> {
        let size = elements.len();
        let count = length(size, self.start, self.end, self.step)?;
        let first = match self.step > 0 {
            true => clamped(self.start, size),
            false => behind(self.start, size).saturating_sub(1),
        };
        // Of one element the step may be of any size.
        let step = if count > 1 { isize::try_from(self.step).ok()? } else { 0 };
        let place = |i: usize| first.checked_add_signed(step.checked_mul(i.cast_signed())?);
        (0..count).map(|i| elements.get(place(i)?).copied()).collect()
    }
}

/// The place of an axis among `rank`, where negative ones count from the end.
pub fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + i64::try_from(rank).ok()? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The places of several axes.
pub(super) fn places(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    (axes.len() <= MOST_AXES).then_some(())?;
    axes.iter().map(|&axis| place(axis, rank)).collect()
}

/// A position among `size`, where negative ones count from the end and those beyond it are the end.
pub(super) fn clamped(position: i64, size: usize) -> usize {
    let size = size as i64;
    let position = if position < 0 { position.saturating_add(size) } else { position };
    position.clamp(0, size) as usize
}

/// How many elements of `size` there are from `start` on in steps, before `end`.
fn length(size: usize, start: i64, end: i64, step: i64) -> Option<usize> {
    let each = usize::try_from(step.unsigned_abs()).ok().filter(|&each| each > 0)?;
    let (low, high) = match step > 0 {
        true => (clamped(start, size), clamped(end, size)),
        // Before the first element implementations differ.
        false if start < -(size as i64) => return None,
        // Going back, both are one behind the place that is meant.
        false => (behind(end, size), behind(start, size)),
    };
    Some(high.saturating_sub(low).div_ceil(each))
}

/// The number of elements up to a position and that one, where negative ones count from the end.
fn behind(position: i64, size: usize) -> usize {
    let size = size as i64;
    let position = if position < 0 { position.saturating_add(size) } else { position };
    position.clamp(-1, size - 1).saturating_add(1) as usize
}
