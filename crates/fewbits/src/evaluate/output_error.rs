//! How far the float outputs of one model are from those of another.

use fewbits_engine::{Tensor, Values};

use crate::Result;
use crate::metric::MetricError;
use crate::padding::Tokens;

/// The least that is told, in decibels: of outputs that are not numbers any more nothing is left.
const LEAST_DB: f64 = -300.0;

/// The quantile of the normal distribution below which 99 % lie.
const NORMAL_99: f64 = 2.326;

/// The distance between the float outputs of two models.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputError {
    max_abs: f64,
    signal: f64,
    noise: f64,
    rows: Spread,
}

/// How signal and noise spread over the rows.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: f64,
    signal_squared: f64,
    noise_squared: f64,
    signal_by_noise: f64,
}

impl Spread {
    fn add(&mut self, signal: f64, noise: f64) {
        self.count += 1.0;
        self.signal_squared += signal * signal;
        self.noise_squared += noise * noise;
        self.signal_by_noise += signal * noise;
    }
}

impl OutputError {
    /// Adds outputs of `b` beside those of `a`; only float ones count.
    ///
    /// # Errors
    /// If two outputs differ in length.
    pub fn push(&mut self, a: &[Tensor], b: &[Tensor]) -> Result<()> {
        for (a, b) in a.iter().zip(b) {
            let rows = a.rows();
            let is_float = |t: &Tensor| matches!(t.values(), Values::F32(_) | Values::F64(_));
            let (true, true, Some(a), Some(b)) = (is_float(a), is_float(b), a.to_f64(), b.to_f64())
            else {
                continue;
            };
            if a.len() != b.len() {
                return Err(MetricError::Length { predictions: b.len(), labels: a.len() }.into());
            }
            let row = a.len().div_ceil(rows.max(1)).max(1);
            for (a, b) in a.chunks(row).zip(b.chunks(row)) {
                let (mut signal, mut noise) = (0.0, 0.0);
                for (x, y) in a.iter().zip(b).filter(|(x, _)| x.is_finite()) {
                    // NaN where the first model gives a number is as wrong as can be.
                    let error = if y.is_finite() { (x - y).abs() } else { f64::INFINITY };
                    self.max_abs = self.max_abs.max(error);
                    signal += x * x;
                    noise += error * error;
                }
                self.signal += signal;
                self.noise += noise;
                self.rows.add(signal, noise);
            }
        }
        Ok(())
    }

    /// Noise over signal, infinite where only `b` is not finite; `None` where there was no signal.
    pub fn relative(&self) -> Option<f64> {
        (self.signal > 0.0).then(|| self.noise / self.signal)
    }

    /// The SQNR in decibels that as many other rows have with a confidence of 99 %, as far as the spread of
    /// these tells: noise over signal, and 2.326 times the standard error of such a ratio (Cochran, Sampling
    /// Techniques, 3rd edition, equation 6.13) and of that of the other rows.
    pub fn sure_sqnr_db(&self) -> Option<f64> {
        let ratio = self.relative().filter(|&noise| noise > 0.0)?;
        let Spread { count, signal_squared, noise_squared, signal_by_noise } = self.rows;
        let squares =
            noise_squared - 2.0 * ratio * signal_by_noise + ratio * ratio * signal_squared;
        let error = match count > 1.0 {
            true => (squares.max(0.0) * count / (count - 1.0)).sqrt() / self.signal,
            // Of one row nothing is known.
            false => 0.0,
        };
        let most = ratio + NORMAL_99 * 2f64.sqrt() * error;
        Some(if most.is_finite() { (-10.0 * most.log10()).max(LEAST_DB) } else { LEAST_DB })
    }

    /// Signal to quantization noise in decibels, at least [`LEAST_DB`]; `None` where the outputs are equal or
    /// there was no signal.
    pub fn sqnr_db(&self) -> Option<f64> {
        let ratio = self.relative().filter(|&noise| noise > 0.0);
        ratio.map(|noise| (-10.0 * noise.log10()).max(LEAST_DB))
    }
}

/// The distance of every output of a model from that of another.
#[derive(Clone, Debug, Default)]
pub struct OutputErrors {
    each: Vec<OutputError>,
}

impl OutputErrors {
    /// Adds outputs of `b` beside those of `a`; of rows with padding those of `tokens` only.
    ///
    /// # Errors
    /// If two outputs differ in length.
    pub fn push(&mut self, a: &[Tensor], b: &[Tensor], tokens: Option<&Tokens>) -> Result<()> {
        match tokens {
            Some(tokens) => self.push_counted(&tokens.only(a), &tokens.only(b)),
            None => self.push_counted(a, b),
        }
    }

    fn push_counted(&mut self, a: &[Tensor], b: &[Tensor]) -> Result<()> {
        self.each.resize_with(a.len(), OutputError::default);
        let pairs = a.iter().zip(b).zip(&mut self.each);
        pairs.into_iter().try_for_each(|((a, b), error)| {
            error.push(std::slice::from_ref(a), std::slice::from_ref(b))
        })
    }

    /// The signal to quantization noise of all outputs together, as [`OutputError::sqnr_db`].
    pub fn sqnr_db(&self) -> Option<f64> {
        let total = self.each.iter().fold(OutputError::default(), |sum, error| OutputError {
            signal: sum.signal + error.signal,
            noise: sum.noise + error.noise,
            ..sum
        });
        total.sqnr_db()
    }

    /// The largest difference between two elements.
    pub fn max_abs(&self) -> f64 {
        self.each.iter().fold(0.0, |most, error| most.max(error.max_abs))
    }

    /// One for each output, in their order; what holds no floats has neither signal nor error.
    pub fn each(&self) -> impl Iterator<Item = &OutputError> {
        self.each.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_outputs_have_no_noise() {
        let t = Tensor::new(vec![2], vec![1.0f32, 2.0]).unwrap();
        let mut error = OutputError::default();
        error.push(std::slice::from_ref(&t), std::slice::from_ref(&t)).unwrap();
        assert_eq!((error.max_abs, error.sqnr_db()), (0.0, None));
        let noisy = Tensor::new(vec![2], vec![1.0f32, 2.5]).unwrap();
        error.push(&[t], &[noisy]).unwrap();
        assert_eq!(error.max_abs, 0.5);
        assert!((error.sqnr_db().unwrap() - 10.0 * (10.0f64 / 0.25).log10()).abs() < 1e-9);
        assert_eq!(error.relative(), Some(0.25 / 10.0));
    }

    #[test]
    fn rows_that_differ_make_the_noise_less_sure() {
        let of = |rows: &[[f32; 2]]| {
            let mut error = OutputError::default();
            for row in rows {
                let given = Tensor::new(vec![1, 1], vec![row[0] + row[1]]).unwrap();
                error.push(&[Tensor::new(vec![1, 1], vec![row[0]]).unwrap()], &[given]).unwrap();
            }
            (error.sqnr_db().unwrap(), error.sure_sqnr_db().unwrap())
        };
        let (db, sure) = of(&[[1.0, 0.125], [2.0, 0.25], [4.0, 0.5]]);
        assert!((db - sure).abs() < 1e-6, "each row has the same ratio");
        // Two rows of one signal: the ratio is 1/8, and its standard error as much.
        let (db, sure) = of(&[[1.0, 0.5], [1.0, 0.0]]);
        assert!((db - 10.0 * 8f64.log10()).abs() < 1e-9);
        assert!(
            (sure - 10.0 * (8.0 / (1.0 + 2f64.sqrt() * NORMAL_99)).log10()).abs() < 1e-9,
            "{sure}"
        );
        assert_eq!(of(&[[1.0, 0.5]]).0, of(&[[1.0, 0.5]]).1);
        assert_eq!(of(&[[1.0, f32::NAN], [1.0, 0.0]]), (LEAST_DB, LEAST_DB));
    }

    #[test]
    fn a_number_lost_is_the_worst_error_and_silence_is_none() {
        let of = |a: [f32; 2], b: [f32; 2]| {
            let mut error = OutputError::default();
            let tensor = |values: [f32; 2]| Tensor::new(vec![2], values.to_vec()).unwrap();
            error.push(&[tensor(a)], &[tensor(b)]).unwrap();
            error.relative()
        };
        assert_eq!(of([1.0, 2.0], [1.0, f32::NAN]), Some(f64::INFINITY));
        assert_eq!(of([1.0, f32::NEG_INFINITY], [1.0, f32::NEG_INFINITY]), Some(0.0));
        assert_eq!(of([0.0, 0.0], [1.0, 0.0]), None);
    }
}
