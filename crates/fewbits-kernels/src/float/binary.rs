//! Operations of two numbers.

use serde::{Deserialize, Serialize};

use crate::cpu::per_cpu;

/// An operation of two f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binary {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
    /// The larger, or NaN if either is.
    Max,
    /// The smaller, or NaN if either is.
    Min,
}

impl Binary {
    /// The operation on two numbers, with the same bits as on arrays of them.
    pub fn at(self, a: f32, b: f32) -> f32 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Max => max(a, b),
            Binary::Min => min(a, b),
        }
    }
}

/// [`Binary::Max`].
#[inline(always)]
pub(super) fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// [`Binary::Min`].
#[inline(always)]
pub(super) fn min(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// How often `b` fits into `a`.
pub(super) fn repetitions(a: &[f32], b: &[f32]) -> usize {
    if a.is_empty() {
        return 0;
    }
    assert!(
        !b.is_empty() && a.len().is_multiple_of(b.len()),
        "{} values over {}",
        b.len(),
        a.len()
    );
    a.len() / b.len()
}

per_cpu! {
    /// Computes `a` = `operation` of `a` and `b`, where the length of `b` divides that of
    /// `a`: it repeats, as if `a` had more axes in front.
    ///
    /// # Panics
    /// If it does not divide it.
    pub fn binary_in_place(operation: Binary, a: &mut [f32], b: &[f32]) {
        match operation {
            Binary::Add => in_place(a, b, |a, b| a + b),
            Binary::Sub => in_place(a, b, |a, b| a - b),
            Binary::Mul => in_place(a, b, |a, b| a * b),
            Binary::Div => in_place(a, b, |a, b| a / b),
            Binary::Max => in_place(a, b, max),
            Binary::Min => in_place(a, b, min),
        }
    }
}

#[inline(always)]
fn in_place(a: &mut [f32], b: &[f32], operation: impl Fn(f32, f32) -> f32) {
    if repetitions(a, b) == 0 {
        return;
    }
    if let [b] = *b {
        a.iter_mut().for_each(|a| *a = operation(*a, b));
        return;
    }
    for a in a.chunks_exact_mut(b.len()) {
        a.iter_mut().zip(b).for_each(|(a, &b)| *a = operation(*a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::broadcast::binary;
    use crate::float::testing::{SIZES, at_every_level, noise, same_bits};

    const ALL: [Binary; 6] =
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min];

    fn reference(operation: Binary, a: f32, b: f32) -> f32 {
        match operation {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Max | Binary::Min if a.is_nan() || b.is_nan() => f32::NAN,
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
        }
    }

    #[test]
    fn repeating_operands_are_right_at_every_level() {
        for width in SIZES {
            for (b_len, operation) in
                [width, 3 * width, 1].into_iter().flat_map(|n| ALL.map(|o| (n, o)))
            {
                let (mut a, b) = (noise(3 * width, 1), noise(b_len, 2));
                a[width / 2] = f32::NAN;
                let wanted: Vec<f32> = a
                    .iter()
                    .zip(b.iter().cycle())
                    .map(|(&a, &b)| reference(operation, a, b))
                    .collect();
                let got = at_every_level(|cpu| {
                    let mut out = vec![0.0; a.len()];
                    binary(cpu, operation, &a, &b, &mut out);
                    out
                });
                assert!(same_bits(&got, &wanted));
                let got = at_every_level(|cpu| {
                    let mut out = a.clone();
                    binary_in_place(cpu, operation, &mut out, &b);
                    out
                });
                assert!(same_bits(&got, &wanted));
            }
        }
    }
}
