//! Softmax of rows.

use super::elementary::exp;
use super::lanes::{each, largest, sum};
use crate::cpu::per_cpu;

per_cpu! {
    /// Replaces every row of `width` by its softmax: e^(x - largest), times the reciprocal of
    /// their sum.
    ///
    /// A row of nothing but -inf becomes NaN, as by the definition and in PyTorch. (A mask of the
    /// least finite number, which is what exported models hold, gives equal shares instead.) NaN
    /// or +inf anywhere makes the row NaN.
    ///
    /// # Panics
    /// If rows are not whole.
    pub fn softmax(values: &mut [f32], width: usize) {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows that are not whole");
        for row in values.chunks_exact_mut(width) {
            let most = largest(row);
            each(row, |x| exp(x - most));
            let share = 1.0 / sum(row, 0.0, |x| x);
            each(row, |x| x * share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::float::testing::{SIZES, at_every_level, noise};

    fn rows(values: &[f32], width: usize) -> Vec<f32> {
        at_every_level(|cpu| {
            let mut values = values.to_vec();
            softmax(cpu, &mut values, width);
            values
        })
    }

    #[test]
    fn softmax_is_near_the_truth_at_every_level() {
        for width in SIZES {
            let values: Vec<f32> = noise(3 * width, 1).iter().map(|x| x * 9.0).collect();
            let got = rows(&values, width);
            for (got, row) in got.chunks(width).zip(values.chunks(width)) {
                let most = f64::from(row.iter().cloned().fold(f32::NEG_INFINITY, f32::max));
                let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) - most).exp()).collect();
                let total: f64 = powers.iter().sum();
                for (&got, power) in got.iter().zip(powers) {
                    let wanted = power / total;
                    // The difference from the largest, up to 36, is rounded too.
                    assert!((f64::from(got) - wanted).abs() <= 3e-6 * wanted, "{got} {wanted}");
                }
            }
        }
    }

    #[test]
    fn masked_values_get_nothing() {
        let inf = f32::INFINITY;
        assert_eq!(rows(&[1.0, -inf, 1.0, -1e9], 4), [0.5, 0.0, 0.5, 0.0]);
        assert_eq!(rows(&[1e30, -1e30], 2), [1.0, 0.0]);
        assert_eq!(rows(&[f32::MIN; 4], 4), [0.25; 4]);
    }

    #[test]
    fn rows_without_an_answer_are_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for row in [[-inf, -inf], [inf, 0.0], [nan, 0.0]] {
            assert!(rows(&row, 2).iter().all(|x| x.is_nan()), "{row:?}");
        }
    }

    #[test]
    fn no_rows_are_fine() {
        softmax(Cpu::SCALAR, &mut [], 3);
    }
}
