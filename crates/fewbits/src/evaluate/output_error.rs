//! How far the float outputs of one model are from those of another.

use fewbits_runtime::{Tensor, Values};

use crate::Result;
use crate::metric::MetricError;
use crate::padding::Tokens;

/// The distance between the float outputs of two models.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputError {
    max_abs: f64,
    signal: f64,
    noise: f64,
}

impl OutputError {
    /// Adds outputs of `b` beside those of `a`; only float ones count.
    ///
    /// # Errors
    /// If two outputs differ in length.
    pub fn push(&mut self, a: &[Tensor], b: &[Tensor]) -> Result<()> {
        for (a, b) in a.iter().zip(b) {
            let is_float = |t: &Tensor| matches!(t.values(), Values::F32(_) | Values::F64(_));
            let (true, true, Some(a), Some(b)) = (is_float(a), is_float(b), a.to_f64(), b.to_f64())
            else {
                continue;
            };
            if a.len() != b.len() {
                return Err(MetricError::Length { predictions: b.len(), labels: a.len() }.into());
            }
            for (x, y) in a.iter().zip(&b).filter(|(x, _)| x.is_finite()) {
                // NaN where the first model gives a number is as wrong as can be.
                let error = if y.is_finite() { (x - y).abs() } else { f64::INFINITY };
                self.max_abs = self.max_abs.max(error);
                self.signal += x * x;
                self.noise += error * error;
            }
        }
        Ok(())
    }

    /// Noise over signal, infinite where only `b` is not finite; `None` where there was no signal.
    pub fn relative(&self) -> Option<f64> {
        (self.signal > 0.0).then(|| self.noise / self.signal)
    }

    /// The largest difference between two elements.
    pub fn max_abs(&self) -> f64 {
        self.max_abs
    }

    /// Signal to quantization noise in decibels; `None` where the outputs are equal or there was no
    /// signal.
    pub fn sqnr_db(&self) -> Option<f64> {
        (self.noise > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
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
