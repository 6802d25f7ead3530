//! How much a product loses when its channels are rescaled: `(X / s) (s W)` is `X W`, but what is
//! rounded differs.
//!
//! Rounding to a step adds an error of `step^2 / 12` to each element (Widrow 1956). An activation
//! has one step for all channels, a weight has one for each output channel. So with channels
//! divided by `s`, the error of output `n`, relative to its power, is expected to be
//!
//! ```text
//! step_x(s)^2 / 12 * sum_c (s_c W_cn)^2 / p_n        the activation's rounding
//! + step_n(s)^2 / 12 * sum_c E[x_c^2] / s_c^2 / p_n  the weight's rounding
//! p_n = sum_c E[x_c^2] W_cn^2
//! ```
//!
//! taking channels as independent. Where what follows weighs all outputs together, as a residual
//! addition and a layer norm do, `p_n` is their mean; where each output has a scale of its own, as
//! between convolutions, it is its own. The factors tried are those of SmoothQuant (Xiao et al. 2023,
//! eq. 4), `s_c = max|X_c|^a / max|W_c|^(1 - a)`; at `a = 1/2` they are those of cross-layer
//! equalization (Nagel et al. 2019, eq. 11) with the range of the activation in the place of that
//! of the weight before it. The share `a` is chosen by the error.

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_quant::{ChannelSeen, Levels};

use crate::Result;
use crate::layers::Product;

/// The shares tried.
const EIGHTHS: std::ops::RangeInclusive<u8> = 0..=8;
/// A channel counts as at least this part of the widest one: the factors stay usable.
const NARROWEST: f32 = 1e-4;

/// A weight, reduced to what the error depends on.
pub struct Reader<'a> {
    product: &'a Product,
    /// The largest magnitude for each output channel and each of its inputs, row by row.
    peak: Vec<f32>,
    /// The sum of the squares likewise.
    energy: Vec<f32>,
}

/// How integers of weights are stepped.
#[derive(Clone, Copy, Debug)]
pub struct WeightSteps {
    /// Steps on either side of zero.
    pub steps: f32,
    /// Whether each output channel has its own.
    pub per_output: PerOutput,
}

/// What shares a weight's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerOutput {
    /// An output channel.
    Own,
    /// All of them.
    Shared,
}

/// How the outputs of a product matter to what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Each by its own power.
    Apart,
    /// All by their mean power.
    Together,
}

impl<'a> Reader<'a> {
    /// Reads the values of a product's weight.
    pub fn new(product: &'a Product, weight: &[f32]) -> Reader<'a> {
        let pairs = product.outputs() * product.inputs_per_output();
        let (mut peak, mut energy) = (Vec::with_capacity(pairs), Vec::with_capacity(pairs));
        for output in 0..product.outputs() {
            for i in 0..product.inputs_per_output() {
                let taps = &weight[product.elements(output, i)];
                peak.push(taps.iter().fold(0f32, |most, w| most.max(w.abs())));
                energy.push(taps.iter().map(|w| w * w).sum());
            }
        }
        Reader { product, peak, energy }
    }

    /// Reads the weights of these products.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn all(model: &Model, index: &Index, products: &[&'a Product]) -> Result<Vec<Reader<'a>>> {
        products
            .iter()
            .map(|&product| {
                let weight = index.initializer(&product.weight);
                let weight = weight.expect("the weight of a product is a constant");
                Ok(Reader::new(product, &model.floats_released(weight)?))
            })
            .collect()
    }

    fn outputs(&self) -> impl Iterator<Item = (usize, &[f32], &[f32])> {
        let inputs = self.product.inputs_per_output();
        self.peak
            .chunks(inputs)
            .zip(self.energy.chunks(inputs))
            .enumerate()
            .map(|(output, (peak, energy))| (self.product.input_of(output, 0), peak, energy))
    }
}

/// What all readers of one activation lose.
struct Loss<'a> {
    channels: &'a [ChannelSeen],
    readers: &'a [Reader<'a>],
    levels: Levels,
    weights: WeightSteps,
    /// For each channel the squared weights that its rounding meets, relative to the outputs' power.
    sensitivity: Vec<f64>,
    /// The power of each reader's outputs.
    power: Vec<Vec<f64>>,
}

impl<'a> Loss<'a> {
    fn new(
        channels: &'a [ChannelSeen],
        readers: &'a [Reader<'a>],
        levels: Levels,
        weights: WeightSteps,
        outputs: Outputs,
    ) -> Loss<'a> {
        let mut sensitivity = vec![0.0; channels.len()];
        let mut power = Vec::new();
        for reader in readers {
            let mut of_reader: Vec<f64> = reader
                .outputs()
                .map(|(first, _, energy)| {
                    let channels = &channels[first..first + energy.len()];
                    energy.iter().zip(channels).map(|(&e, c)| f64::from(e) * c.mean_square).sum()
                })
                .collect();
            if outputs == Outputs::Together {
                let mean = of_reader.iter().sum::<f64>() / of_reader.len() as f64;
                of_reader.fill(mean);
            }
            for ((first, _, energy), &p) in reader.outputs().zip(&of_reader) {
                for (s, &e) in sensitivity[first..].iter_mut().zip(energy).filter(|_| p > 0.0) {
                    *s += f64::from(e) / p;
                }
            }
            power.push(of_reader);
        }
        Loss { channels, readers, levels, weights, sensitivity, power }
    }

    /// The relative error with channels divided by `factors`, times 12.
    fn with(&self, factors: &[f32]) -> f64 {
        let step = self.activation_step(factors);
        let activation: f64 = self
            .sensitivity
            .iter()
            .zip(factors)
            .map(|(b, &s)| b * f64::from(s) * f64::from(s))
            .sum();
        let rest: Vec<f64> = self
            .channels
            .iter()
            .zip(factors)
            .map(|(c, &s)| c.mean_square / (f64::from(s) * f64::from(s)))
            .collect();
        let mut weight = 0.0;
        for (reader, power) in self.readers.iter().zip(&self.power) {
            let taps = reader.product.taps() as f64;
            let peaks: Vec<f32> = reader
                .outputs()
                .map(|(first, peak, _)| {
                    peak.iter().zip(&factors[first..]).fold(0f32, |most, (p, s)| most.max(p * s))
                })
                .collect();
            let most = peaks.iter().copied().fold(0f32, f32::max);
            for (((first, peak, _), own), &p) in reader.outputs().zip(&peaks).zip(power) {
                let widest = match self.weights.per_output {
                    PerOutput::Own => *own,
                    PerOutput::Shared => most,
                };
                let step = f64::from(widest / self.weights.steps);
                let rounded: f64 = rest[first..first + peak.len()].iter().sum();
                if p > 0.0 {
                    weight += step * step * taps * rounded / p;
                }
            }
        }
        step * step * activation + weight
    }

    fn activation_step(&self, factors: &[f32]) -> f64 {
        let ends =
            self.channels.iter().zip(factors).fold((0f32, 0f32), |(low, high), (c, s)| {
                (low.min(c.low / s), high.max(c.high / s))
            });
        let (low, high) = (f64::from(ends.0), f64::from(ends.1));
        match self.levels {
            Levels::Affine(steps) => (high - low) / f64::from(steps),
            Levels::Symmetric(steps) => high.max(-low) / f64::from(steps),
        }
    }
}

/// Factors that channels are to be divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescaling {
    /// One for each channel, positive.
    pub factors: Vec<f32>,
    /// The error expected without them over that with them.
    pub gain: f64,
}

/// The factors of least expected error for an activation with these channels and readers; `None`
/// if none lower it.
///
/// Channels are divided by at least `least`, so that none passes the bound of a `Clip` before the
/// readers.
pub fn rescale(
    channels: &[ChannelSeen],
    readers: &[Reader],
    levels: Levels,
    weights: WeightSteps,
    outputs: Outputs,
    least: Option<&[f32]>,
) -> Option<Rescaling> {
    let loss = Loss::new(channels, readers, levels, weights, outputs);
    let of_activation = usable(channels.iter().map(ChannelSeen::abs_max).collect())?;
    let of_weights = usable(weight_ranges(channels.len(), readers, outputs))?;
    let unscaled = loss.with(&vec![1.0; channels.len()]);
    let mut best: Option<(Vec<f32>, f64)> = None;
    for eighths in EIGHTHS {
        let mut factors: Vec<f32> = of_activation
            .iter()
            .zip(&of_weights)
            .map(|(&x, &w)| power(x, eighths) / power(w, 8 - eighths))
            .collect();
        let most = factors.iter().copied().fold(0f32, f32::max);
        factors.iter_mut().for_each(|factor| *factor /= most);
        for (factor, least) in factors.iter_mut().zip(least.unwrap_or_default()) {
            *factor = factor.max(*least).min(1.0);
        }
        let error = loss.with(&factors);
        if error < best.as_ref().map_or(unscaled, |b| b.1) {
            best = Some((factors, error));
        }
    }
    best.map(|(factors, error)| Rescaling { factors, gain: unscaled / error })
}

/// `x^(eighths / 8)` by square roots, which every CPU rounds alike.
fn power(x: f32, eighths: u8) -> f32 {
    let half = x.sqrt();
    let quarter = half.sqrt();
    let roots = [(8, x), (4, half), (2, quarter), (1, quarter.sqrt())];
    roots.iter().filter(|(part, _)| eighths & part != 0).map(|(_, root)| root).product()
}

/// For each channel the largest weight that reads it; where outputs are apart relative to the
/// output's largest, since the output's own scale makes up for the rest.
fn weight_ranges(channels: usize, readers: &[Reader], outputs: Outputs) -> Vec<f32> {
    let mut ranges = vec![0f32; channels];
    for (first, peak, _) in readers.iter().flat_map(Reader::outputs) {
        let most = match outputs {
            Outputs::Apart => peak.iter().copied().fold(0f32, f32::max),
            Outputs::Together => 1.0,
        };
        if most > 0.0 {
            for (range, p) in ranges[first..].iter_mut().zip(peak) {
                *range = range.max(p / most);
            }
        }
    }
    ranges
}

/// Ranges relative to the widest, which count as at least [`NARROWEST`]; a channel without a range
/// says nothing and counts as the widest. `None` if all are like that.
fn usable(ranges: Vec<f32>) -> Option<Vec<f32>> {
    let widest = ranges.iter().copied().fold(0f32, f32::max);
    let relative = |range: f32| match range / widest {
        0.0 => 1.0,
        r => r.max(NARROWEST),
    };
    (widest > 0.0 && widest.is_finite()).then(|| ranges.into_iter().map(relative).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::ProductKind;

    const STEPS: WeightSteps = WeightSteps { steps: 127.0, per_output: PerOutput::Own };

    fn columns(inputs: usize, outputs: usize) -> Product {
        Product {
            node: 0,
            value: "x".into(),
            weight: "w".into(),
            shape: vec![inputs, outputs],
            kind: ProductKind::Columns,
        }
    }

    fn channel(range: f32) -> ChannelSeen {
        let mean_square = f64::from(range * range) / 9.0;
        ChannelSeen { low: -range, high: range, mean: 0.0, mean_square }
    }

    /// A number in -0.5..0.5, the same at every run.
    fn noise(i: u32) -> f32 {
        let mixed = [0x7feb_352du32, 0x846c_a68b].into_iter().fold(i, |x, factor| {
            let x = x ^ (x >> 16);
            x.wrapping_mul(factor)
        });
        ((mixed >> 8) as f32) / (1 << 24) as f32 - 0.5
    }

    #[test]
    fn powers_are_those_of_the_exponent() {
        for eighths in 0..=8 {
            let expected = 0.3f32.powf(f32::from(eighths) / 8.0);
            assert!((power(0.3, eighths) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_wide_channel_is_narrowed() {
        let product = columns(4, 8);
        let weight: Vec<f32> = (0..32).map(noise).collect();
        let channels = [1.0, 1.2, 50.0, 0.9].map(channel);
        let readers = [Reader::new(&product, &weight)];
        let found =
            rescale(&channels, &readers, Levels::Affine(255), STEPS, Outputs::Apart, None).unwrap();
        assert!(found.gain > 3.0, "{found:?}");
        assert_eq!(found.factors[2], 1.0);
        assert!(found.factors[0] < 0.5 && found.factors[3] < 0.5, "{found:?}");
    }

    #[test]
    fn what_was_scaled_badly_is_scaled_back() {
        // Channels multiplied, and their weights divided, by far numbers.
        let product = columns(6, 16);
        let bad = [30.0, 0.05, 1.0, 7.0, 0.2, 1.0];
        let weight: Vec<f32> = (0..96).map(|i| noise(i) / bad[i as usize / 16]).collect();
        let channels = bad.map(channel);
        let readers = [Reader::new(&product, &weight)];
        let found =
            rescale(&channels, &readers, Levels::Affine(255), STEPS, Outputs::Apart, None).unwrap();
        let undone: Vec<f32> =
            channels.iter().zip(&found.factors).map(|(c, s)| c.high / s).collect();
        let (low, high) = undone.iter().fold((f32::MAX, 0f32), |(l, h), &x| (l.min(x), h.max(x)));
        assert!(high / low < 3.0, "{undone:?}");
        assert!(found.gain > 20.0);
    }

    #[test]
    fn the_expected_error_is_that_of_rounding() {
        let (inputs, outputs, rows) = (32usize, 12usize, 4000u32);
        let product = columns(inputs, outputs);
        let weight: Vec<f32> = (0..(inputs * outputs) as u32).map(noise).collect();
        let x: Vec<f32> = (0..rows * inputs as u32).map(|i| 2.0 * noise(i + 7_000_000)).collect();
        let mut channels = vec![ChannelSeen::default(); inputs];
        for row in x.chunks(inputs) {
            for (c, &x) in channels.iter_mut().zip(row) {
                c.low = c.low.min(x);
                c.high = c.high.max(x);
                c.mean_square += f64::from(x * x) / f64::from(rows);
            }
        }
        let steps = WeightSteps { steps: 7.0, per_output: PerOutput::Own };
        let readers = [Reader::new(&product, &weight)];
        let loss = Loss::new(&channels, &readers, Levels::Symmetric(7), steps, Outputs::Apart);
        let expected = loss.with(&vec![1.0; inputs]) / 12.0 / outputs as f64;
        let round = |x: f32, step: f32| (x / step).round_ties_even() * step;
        let x_step = loss.activation_step(&vec![1.0; inputs]) as f32;
        let mut real = 0.0;
        for n in 0..outputs {
            let column: Vec<f32> = (0..inputs).map(|i| weight[i * outputs + n]).collect();
            let step = column.iter().fold(0f32, |m, w| m.max(w.abs())) / 7.0;
            let (mut signal, mut error) = (0.0, 0.0);
            for row in x.chunks(inputs) {
                let y: f32 = row.iter().zip(&column).map(|(x, w)| x * w).sum();
                let rounded: f32 =
                    row.iter().zip(&column).map(|(&x, &w)| round(x, x_step) * round(w, step)).sum();
                signal += f64::from(y * y);
                error += f64::from((y - rounded) * (y - rounded));
            }
            real += error / signal / outputs as f64;
        }
        assert!((expected / real - 1.0).abs() < 0.05, "{expected} for {real}");
    }

    #[test]
    fn nothing_is_done_where_nothing_is_gained() {
        let product = columns(3, 4);
        let readers = [Reader::new(&product, &[0.5; 12])];
        let even = [1.0; 3].map(channel);
        assert_eq!(
            rescale(&even, &readers, Levels::Affine(255), STEPS, Outputs::Apart, None),
            None
        );
        let dead = [ChannelSeen::default(); 3];
        assert_eq!(
            rescale(&dead, &readers, Levels::Affine(255), STEPS, Outputs::Apart, None),
            None
        );
        let zeros = [Reader::new(&product, &[0.0; 12])];
        assert_eq!(rescale(&even, &zeros, Levels::Affine(255), STEPS, Outputs::Apart, None), None);
    }

    #[test]
    fn no_channel_passes_the_bound_of_a_clip() {
        let product = columns(3, 8);
        let weight: Vec<f32> = (0..24).map(|i| noise(i) * if i < 8 { 0.01 } else { 1.0 }).collect();
        let readers = [Reader::new(&product, &weight)];
        let channels = [0.1, 3.0, 6.0].map(channel);
        let least = channels.map(|c| c.high / 6.0);
        let levels = Levels::Affine(255);
        let found =
            rescale(&channels, &readers, levels, STEPS, Outputs::Apart, Some(&least)).unwrap();
        for (c, s) in channels.iter().zip(&found.factors) {
            assert!(c.high / s <= 6.0 * (1.0 + 1e-6), "{found:?}");
        }
        assert_eq!(found.factors[2], 1.0);
    }
}
