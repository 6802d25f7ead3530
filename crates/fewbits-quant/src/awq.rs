//! AWQ: weights of strong inputs are made larger before they are rounded, and the inputs smaller.
//!
//! Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration"
//! (arXiv:2306.00978), section 3.2: `Q(W diag(s)) diag(s)⁻¹ x` has the least error for the input
//! (eq. 4) among `s = s_X^α` (eq. 5), where `s_X` is the magnitude of each input channel and one α
//! from 0 to 1 is searched for the whole layer.
//!
//! What differs here: the magnitude is the root of the mean square instead of the mean of `|x|`,
//! since that is what a Hessian knows, and α goes in steps of a 16th instead of a 20th, since roots of
//! 16 are square roots, which every CPU rounds alike.

use crate::{Hessian, Importance, Inputs, Matrix, Result, Scheme, WeightRange, quantize_by};

/// Steps of α from 0 to 1.
const ALPHAS: i32 = 16;

/// Factors of the channels that weights read.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelFactors {
    /// What each column of the matrix is multiplied by before it is quantized, and its input divided
    /// by; the same for all taps of a channel of a convolution. The columns of one group of a
    /// convolution lie behind those of another. All 1 where nothing is better.
    pub factors: Vec<f32>,
    /// The squared error of the outputs over the rows seen, rounded to nearest without factors.
    pub error_before: f64,
    /// The same with them.
    pub error_after: f64,
}

/// A weight that reads the inputs.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Its values, row-major.
    pub values: &'a [f32],
    /// Its shape.
    pub shape: &'a [usize],
    /// What it becomes.
    pub scheme: Scheme,
    /// How its ranges are found.
    pub range: WeightRange,
    /// How it is read.
    pub matrix: Matrix,
}

impl Reader<'_> {
    /// The squared error of the outputs with factors of the inputs, whose mean squares these are.
    fn error(&self, factors: &[f32], squares: &[f32], hessians: &[Hessian]) -> Result<f64> {
        let Reader { values, shape, scheme, range, matrix } = *self;
        let columns = matrix.columns();
        let rows_of_group = matrix.rows() / hessians.len();
        let rows = (0..matrix.rows())
            .flat_map(|row| &factors[row / rows_of_group * columns..][..columns])
            .copied();
        let factor_of = matrix.from_rows(rows.collect());
        let scaled: Vec<f32> = values.iter().zip(&factor_of).map(|(w, s)| w * s).collect();
        // What is left of the inputs.
        let left: Vec<f32> = squares.iter().zip(factors).map(|(x, s)| x / s / s).collect();
        let importance = Importance::OfColumns { matrix, mean_squares: &left };
        let quantized = quantize_by(&scaled, shape, scheme, range, importance)?.dequantize();
        let differences = values.iter().zip(quantized).zip(&factor_of).map(|((w, q), s)| w - q / s);
        let rows = matrix.to_rows(&differences.collect::<Vec<f32>>());
        let groups = rows.chunks((rows_of_group * columns).max(1)).zip(hessians);
        groups.map(|(rows, hessian)| hessian.error(rows)).sum()
    }
}

/// Looks for the factors with which rounding the weights that read the same inputs to nearest makes the
/// least error in their outputs ([`Hessian::error`](crate::Hessian::error)). Whoever takes them
/// multiplies the weights, and lets what comes before them divide the inputs. `taps` are the elements of
/// a weight for each channel: more than one in convolutions.
///
/// # Errors
/// Those of [`quantize_by`]; if the inputs are those of other weights.
pub fn search(readers: &[Reader], taps: usize, hessians: &[Hessian]) -> Result<ChannelFactors> {
    for reader in readers {
        Inputs { matrix: reader.matrix, hessians }.check(reader.values.len())?;
    }
    let squares: Vec<f32> = hessians.iter().flat_map(|h| h.mean_squares()).collect();
    let error = |factors: &[f32]| -> Result<f64> {
        let read = readers.iter().filter(|reader| !reader.values.is_empty());
        read.map(|reader| reader.error(factors, &squares, hessians)).sum()
    };
    let ones = vec![1f32; squares.len()];
    let error_before = error(&ones)?;
    let mut best = ChannelFactors { factors: ones, error_before, error_after: error_before };
    let roots = sixteenth_roots(&squares, taps.max(1));
    for alpha in 1..=ALPHAS {
        let factors = normalized(roots.iter().map(|&root| power(root, alpha)).collect());
        // Where factors take a weight out of what its scheme can hold they are none.
        if let Ok(error) = error(&factors)
            && error < best.error_after
        {
            (best.factors, best.error_after) = (factors, error);
        }
    }
    Ok(best)
}

/// The 16th root of each input's magnitude, one for all taps of a channel; 0 for dead ones.
fn sixteenth_roots(squares: &[f32], taps: usize) -> Vec<f32> {
    let root = |squares: &[f32]| {
        let mean = squares.iter().sum::<f32>() / squares.len() as f32;
        (0..5).fold(mean, |x, _| x.sqrt())
    };
    squares.chunks(taps).flat_map(|channel| channel.iter().map(move |_| root(channel))).collect()
}

fn power(x: f32, n: i32) -> f32 {
    (0..n).fold(1.0, |power, _| power * x)
}

/// Divides by the geometric mean of the least and the greatest, as the paper's code does; 1 for dead
/// inputs.
fn normalized(mut factors: Vec<f32>) -> Vec<f32> {
    let live = factors.iter().filter(|&&s| s > 0.0);
    let (low, high) = live.fold((f32::MAX, 0f32), |(low, high), &s| (low.min(s), high.max(s)));
    let middle = low.sqrt() * high.sqrt();
    factors.iter_mut().for_each(|s| *s = if *s > 0.0 { *s / middle } else { 1.0 });
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounding::tests::{group, hessian, inputs, noise, scheme};
    use crate::{FractionBits, Granularity, QuantError};

    /// Of one weight.
    fn search_one(
        values: &[f32],
        shape: &[usize],
        scheme: Scheme,
        range: WeightRange,
        Inputs { matrix, hessians }: Inputs,
    ) -> Result<ChannelFactors> {
        let taps = shape.iter().skip(2).product();
        search(&[Reader { values, shape, scheme, range, matrix }], taps, hessians)
    }

    #[test]
    fn strong_inputs_are_made_weaker() {
        let (outputs, columns) = (24, 64);
        let mut rows = inputs(300, columns, 1);
        rows.iter_mut().step_by(16).for_each(|x| *x *= 30.0);
        let hessians = [hessian(&rows, columns)];
        let weight = noise(outputs * columns, 2);
        for (shape, axis) in [([outputs, columns], 0), ([columns, outputs], 1)] {
            let matrix = Matrix::new(&shape, axis).unwrap();
            let weight = matrix.from_rows(weight.clone());
            let scheme = scheme(3, true, group(1 - axis, 32));
            let inputs = Inputs { matrix, hessians: &hessians };
            let found = search_one(&weight, &shape, scheme, WeightRange::MinMax, inputs).unwrap();
            assert!(found.error_after < 0.5 * found.error_before, "{found:?}");
            assert!(found.factors[16] > 2.0 * found.factors[17]);
            // The error is what whoever takes the factors gets.
            let spread: Vec<f32> = found.factors.repeat(outputs);
            let factor_of = matrix.from_rows(spread);
            let scaled: Vec<f32> = weight.iter().zip(&factor_of).map(|(w, s)| w * s).collect();
            let q = crate::quantize(&scaled, &shape, scheme).unwrap().dequantize();
            let d = weight.iter().zip(q).zip(&factor_of).map(|((w, q), s)| w - q / s);
            let error = hessians[0].error(&matrix.to_rows(&d.collect::<Vec<f32>>())).unwrap();
            assert_eq!(error, found.error_after);
        }
    }

    #[test]
    fn taps_of_a_channel_share_a_factor_and_groups_have_their_own() {
        let shape = [4, 3, 2, 2];
        let mut rows = inputs(50, 12, 3);
        rows.iter_mut().skip(4).step_by(12).for_each(|x| *x *= 50.0);
        let hessians = [hessian(&rows, 12), hessian(&inputs(50, 12, 4), 12)];
        let matrix = Matrix::new(&shape, 0).unwrap();
        let inputs = Inputs { matrix, hessians: &hessians };
        let scheme = scheme(2, true, Granularity::Channel { axis: 0 });
        let found = search_one(&noise(48, 5), &shape, scheme, WeightRange::Mse, inputs).unwrap();
        assert_eq!(found.factors.len(), 24);
        assert!(found.error_after < found.error_before);
        assert!(found.factors.chunks(4).all(|channel| channel.iter().all(|&s| s == channel[0])));
        assert!(found.factors[4] > found.factors[16]);
    }

    #[test]
    fn dead_inputs_and_weights_that_cannot_be_scaled_are_left_alone() {
        let hessians = [hessian(&[0.0; 12], 6)];
        let matrix = Matrix::new(&[4, 6], 0).unwrap();
        let inputs = Inputs { matrix, hessians: &hessians };
        let range = WeightRange::MinMax;
        let affine = scheme(4, true, group(1, 4));
        let found = search_one(&noise(24, 6), &[4, 6], affine, range, inputs).unwrap();
        assert_eq!((found.factors, found.error_after), (vec![1.0; 6], 0.0));
        // Multiplied by anything these overflow.
        let hessians = [hessian(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 6)];
        let inputs = Inputs { matrix, hessians: &hessians };
        let fixed = Scheme::FixedPoint { fraction_bits: FractionBits::EIGHT };
        let found = search_one(&[127.99; 24], &[4, 6], fixed, range, inputs).unwrap();
        assert_eq!(found.factors, [1.0; 6]);
        let wrong =
            search_one(&noise(24, 6), &[6, 4], affine, range, Inputs { matrix, hessians: &[] });
        assert!(matches!(wrong, Err(QuantError::Inputs { .. })));
        let matrix = Matrix::new(&[0, 6], 0).unwrap();
        let empty = search_one(&[], &[0, 6], affine, range, Inputs { matrix, hessians: &hessians });
        assert_eq!(empty.unwrap().error_after, 0.0);
    }

    #[test]
    fn weights_that_read_the_same_inputs_share_factors() {
        let columns = 32;
        let mut rows = inputs(200, columns, 7);
        rows.iter_mut().step_by(columns).for_each(|x| *x *= 20.0);
        let hessians = [hessian(&rows, columns)];
        let scheme = scheme(3, true, group(1, 16));
        let (a, b) = (noise(8 * columns, 8), noise(24 * columns, 9));
        let reader = |values, shape| Reader {
            values,
            shape,
            scheme,
            range: WeightRange::MinMax,
            matrix: Matrix::new(shape, 0).unwrap(),
        };
        let both = [reader(&a, &[8, 32]), reader(&b, &[24, 32])];
        let found = search(&both, 1, &hessians).unwrap();
        let joined = [a.clone(), b.clone()].concat();
        let one = search(&[reader(&joined, &[32, 32])], 1, &hessians).unwrap();
        assert_eq!(found.factors, one.factors);
        assert!((found.error_after / one.error_after - 1.0).abs() < 1e-6);
    }
}
