//! Operations of two arrays that broadcast as in numpy.

use super::binary::{Binary, max, min, repetitions};
use crate::Cpu;
use crate::cpu::per_cpu;
use crate::shape::{broadcast_shape, size_of};

/// Computes `out` = `operation` of `a` and `b`, row-major arrays that broadcast as in numpy; `out` has the
/// shape [`broadcast_shape`].
///
/// # Panics
/// If they do not, or a slice has another length than its shape.
pub fn broadcast(
    cpu: Cpu,
    operation: Binary,
    a: &[f32],
    a_shape: &[usize],
    b: &[f32],
    b_shape: &[usize],
    out: &mut [f32],
) {
    let shape = broadcast_shape(a_shape, b_shape)
        .unwrap_or_else(|| panic!("{a_shape:?} and {b_shape:?} do not broadcast"));
    assert_eq!(a.len(), a_shape.iter().product::<usize>(), "values and shape disagree");
    assert_eq!(b.len(), b_shape.iter().product::<usize>(), "values and shape disagree");
    assert_eq!(out.len(), shape.iter().product::<usize>(), "an output of another size");
    over_axes(cpu, operation, a, b, &joined_axes(a_shape, b_shape, &shape), out);
}

/// Computes `out` = `operation` of `a` and `b`, where the length of `b` divides that of `a`: it repeats, as
/// if `a` had more axes in front. `out` is as long as `a`.
///
/// # Panics
/// If the lengths are others.
pub fn binary(cpu: Cpu, operation: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), a.len(), "an output of another size");
    let rows = repetitions(a, b);
    let axes = if b.len() == 1 {
        [Axis::ONE, Axis { len: a.len(), a: 1, b: 0 }]
    } else {
        [Axis { len: rows, a: b.len(), b: 0 }, Axis { len: b.len(), a: 1, b: 1 }]
    };
    over_axes(cpu, operation, a, b, &axes, out);
}

/// An axis of the output: its length, and by how much a step along it moves in `a` and in `b`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    len: usize,
    a: usize,
    b: usize,
}

impl Axis {
    /// An axis that changes nothing.
    const ONE: Axis = Axis { len: 1, a: 0, b: 0 };
}

/// The axes from the outermost on, at least one, those joined that lie one behind the other in
/// both arrays.
fn joined_axes(a_shape: &[usize], b_shape: &[usize], shape: &[usize]) -> Vec<Axis> {
    let rank = shape.len();
    // From the innermost on, and turned at the end.
    let mut axes: Vec<Axis> = Vec::new();
    let (mut a_step, mut b_step) = (1, 1);
    for (axis, &len) in shape.iter().enumerate().rev() {
        let (a_len, b_len) = (size_of(a_shape, rank, axis), size_of(b_shape, rank, axis));
        let next = Axis {
            len,
            a: if a_len == 1 { 0 } else { a_step },
            b: if b_len == 1 { 0 } else { b_step },
        };
        a_step *= a_len;
        b_step *= b_len;
        match axes.last_mut() {
            _ if len == 1 => {}
            Some(last) if next.a == last.a * last.len && next.b == last.b * last.len => {
                last.len *= len;
            }
            _ => axes.push(next),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { len: 1, a: 1, b: 1 });
    }
    axes.reverse();
    axes
}

per_cpu! {
    /// `out` = `operation` over the axes of it, the outermost first.
    fn over_axes(operation: Binary, a: &[f32], b: &[f32], axes: &[Axis], out: &mut [f32]) {
        match operation {
            Binary::Add => rows(a, b, axes, out, |a, b| a + b),
            Binary::Sub => rows(a, b, axes, out, |a, b| a - b),
            Binary::Mul => rows(a, b, axes, out, |a, b| a * b),
            Binary::Div => rows(a, b, axes, out, |a, b| a / b),
            Binary::Max => rows(a, b, axes, out, max),
            Binary::Min => rows(a, b, axes, out, min),
        }
    }
}

/// Walks through the rows along the innermost axis.
#[inline(always)]
fn rows(a: &[f32], b: &[f32], axes: &[Axis], out: &mut [f32], operation: impl Fn(f32, f32) -> f32) {
    let Some((inner, outer)) = axes.split_last() else { return };
    if out.is_empty() {
        return;
    }
    let mut index = vec![0; outer.len()];
    let (mut a_start, mut b_start) = (0, 0);
    for out in out.chunks_exact_mut(inner.len) {
        let (a, b) = (&a[a_start..], &b[b_start..]);
        match (inner.a, inner.b) {
            (_, 0) => {
                let b = b[0];
                out.iter_mut().zip(a).for_each(|(out, &a)| *out = operation(a, b));
            }
            (0, _) => {
                let a = a[0];
                out.iter_mut().zip(b).for_each(|(out, &b)| *out = operation(a, b));
            }
            _ => {
                let values = a.iter().zip(b);
                out.iter_mut().zip(values).for_each(|(out, (&a, &b))| *out = operation(a, b));
            }
        }
        for (place, axis) in index.iter_mut().zip(outer).rev() {
            *place += 1;
            a_start += axis.a;
            b_start += axis.b;
            if *place < axis.len {
                break;
            }
            *place = 0;
            a_start -= axis.a * axis.len;
            b_start -= axis.b * axis.len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{at_every_level, noise};
    use proptest::prelude::*;

    #[test]
    fn neighbouring_axes_join() {
        let axes = joined_axes(&[2, 3, 4, 5], &[4, 5], &[2, 3, 4, 5]);
        assert_eq!(axes, [Axis { len: 6, a: 20, b: 0 }, Axis { len: 20, a: 1, b: 1 }]);
        let axes = joined_axes(&[2, 1, 1, 5], &[2, 1, 4, 1], &[2, 1, 4, 5]);
        assert_eq!(axes.len(), 3);
        assert_eq!(joined_axes(&[2, 3], &[2, 3], &[2, 3]), [Axis { len: 6, a: 1, b: 1 }]);
    }

    proptest! {
        #[test]
        fn any_broadcast_is_right(
            axes in prop::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 0..5),
            (a_drop, b_drop) in (0usize..3, 0usize..3),
        ) {
            let cut = |pick: fn(&(usize, bool, bool)) -> usize, drop: usize| {
                axes.iter().skip(drop).map(pick).collect::<Vec<usize>>()
            };
            let a_shape = cut(|&(len, one, _)| if one { 1 } else { len }, a_drop);
            let b_shape = cut(|&(len, _, one)| if one { 1 } else { len }, b_drop);
            let shape = broadcast_shape(&a_shape, &b_shape).unwrap();
            let a = noise(a_shape.iter().product(), 1);
            let b = noise(b_shape.iter().product(), 2);
            let count = shape.iter().product();
            let got = at_every_level(|cpu| {
                let mut out = vec![0.0; count];
                broadcast(cpu, Binary::Sub, &a, &a_shape, &b, &b_shape, &mut out);
                out
            });
            // The place in an array of the element that output element `i` takes from it.
            let place = |own: &[usize], mut i: usize| {
                let (mut at, mut step) = (0, 1);
                for axis in (0..shape.len()).rev() {
                    let len = size_of(own, shape.len(), axis);
                    if len != 1 {
                        at += i % shape[axis] * step;
                    }
                    i /= shape[axis];
                    step *= len;
                }
                at
            };
            for (i, got) in got.into_iter().enumerate() {
                prop_assert_eq!(got, a[place(&a_shape, i)] - b[place(&b_shape, i)]);
            }
        }
    }
}
