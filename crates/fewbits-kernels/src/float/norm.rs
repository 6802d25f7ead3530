//! Normalization of rows.

use super::lanes::sum;
use crate::cpu::per_cpu;

per_cpu! {
    /// Computes ONNX LayerNormalization over rows of `width`: (x - mean) / √(variance + `epsilon`) * `gain`
    /// + `bias`, with the variance of the centred values, and the division as a product with the
    /// reciprocal, as in the function body that ONNX gives.
    ///
    /// `gain` is one row long; so is `bias`, or empty. `output` is as long as `input`.
    ///
    /// # Panics
    /// If rows are not whole, or a slice has another length.
    pub fn layer_norm(
        input: &[f32],
        width: usize,
        gain: &[f32],
        bias: &[f32],
        epsilon: f32,
        output: &mut [f32],
    ) {
        check(input, width, gain, output);
        assert!(bias.is_empty() || bias.len() == width, "a bias of another width");
        for (x, y) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
            let mean = sum(x, 0.0, |x| x) / width as f32;
            let variance = sum(x, mean, |x| (x - mean) * (x - mean)) / width as f32;
            let factor = 1.0 / (variance + epsilon).sqrt();
            if bias.is_empty() {
                for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
                    *y = (x - mean) * factor * gain;
                }
            } else {
                for (((y, &x), &gain), &bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                    *y = (x - mean) * factor * gain + bias;
                }
            }
        }
    }
}

per_cpu! {
    /// Computes ONNX RMSNormalization over rows of `width`: x / √(mean of x² + `epsilon`) * `gain`, with the
    /// division as in [`layer_norm`].
    ///
    /// `gain` is one row long, `output` as long as `input`.
    ///
    /// # Panics
    /// If rows are not whole, or a slice has another length.
    pub fn rms_norm(
        input: &[f32],
        width: usize,
        gain: &[f32],
        epsilon: f32,
        output: &mut [f32],
    ) {
        check(input, width, gain, output);
        for (x, y) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
            let square = sum(x, 0.0, |x| x * x) / width as f32;
            let factor = 1.0 / (square + epsilon).sqrt();
            for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
                *y = x * factor * gain;
            }
        }
    }
}

fn check(input: &[f32], width: usize, gain: &[f32], output: &[f32]) {
    assert!(width > 0 && input.len().is_multiple_of(width), "rows that are not whole");
    assert_eq!(gain.len(), width, "a gain of another width");
    assert_eq!(output.len(), input.len(), "an output of another size");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{SIZES, at_every_level, noise};

    const EPSILON: f32 = 1e-5;

    fn near(got: &[f32], wanted: &[f64]) {
        for (&got, &wanted) in got.iter().zip(wanted) {
            assert!(
                (f64::from(got) - wanted).abs() < 3e-6 * wanted.abs().max(1.0),
                "{got} {wanted}"
            );
        }
    }

    #[test]
    fn layer_norm_is_near_the_truth_at_every_level() {
        for width in SIZES.into_iter().filter(|&width| width > 2) {
            let (input, gain, bias) = (noise(3 * width, 1), noise(width, 2), noise(width, 3));
            for bias in [&bias[..], &[]] {
                let got = at_every_level(|cpu| {
                    let mut output = vec![0.0; input.len()];
                    layer_norm(cpu, &input, width, &gain, bias, EPSILON, &mut output);
                    output
                });
                let mut wanted = Vec::new();
                for row in input.chunks(width) {
                    let row: Vec<f64> = row.iter().map(|&x| x.into()).collect();
                    let mean = row.iter().sum::<f64>() / width as f64;
                    let variance =
                        row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                    let deviation = (variance + f64::from(EPSILON)).sqrt();
                    wanted.extend((0..width).map(|i| {
                        let bias = bias.get(i).copied().unwrap_or(0.0);
                        (row[i] - mean) / deviation * f64::from(gain[i]) + f64::from(bias)
                    }));
                }
                near(&got, &wanted);
            }
        }
    }

    #[test]
    fn a_large_mean_leaves_the_variance_alone() {
        let input = [10_000.0, 10_001.0, 10_002.0, 10_003.0];
        let mut output = [0.0; 4];
        layer_norm(crate::Cpu::SCALAR, &input, 4, &[1.0; 4], &[], 0.0, &mut output);
        near(&output, &[-1.5, -0.5, 0.5, 1.5].map(|x: f64| x / 1.25f64.sqrt()));
    }

    #[test]
    fn rms_norm_is_near_the_truth_at_every_level() {
        for width in SIZES {
            let (input, gain) = (noise(2 * width, 4), noise(width, 5));
            let got = at_every_level(|cpu| {
                let mut output = vec![0.0; input.len()];
                rms_norm(cpu, &input, width, &gain, EPSILON, &mut output);
                output
            });
            let mut wanted = Vec::new();
            for row in input.chunks(width) {
                let square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                let root = (square + f64::from(EPSILON)).sqrt();
                wanted.extend(
                    row.iter().zip(&gain).map(|(&x, &g)| f64::from(x) / root * f64::from(g)),
                );
            }
            near(&got, &wanted);
        }
    }
}
