//! One bit: the sign, scaled by the mean magnitude.
//!
//! Rastegari et al. 2016, "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
//! Networks", section 3.1: for `W ~ alpha B` with `B` in {-1, +1}, the squared error is least for
//! `B = sign(W)` (eq. 4) and `alpha = mean |W|` (eq. 6).

use crate::{Encoding, Layout, PackedInts, QuantParams, Span};

/// The scales, alpha of each parameter (eq. 6). Where everything is zero it is the smallest
/// normal number: one bit cannot say zero, and this is as near as a usable scale comes.
pub fn params(values: &[f32], layout: &Layout) -> QuantParams {
    let mut sums = vec![0f64; layout.params()];
    layout.for_each_run(|run, span| match span {
        Span::One(param) => {
            sums[param] += values[run].iter().map(|x| f64::from(x.abs())).sum::<f64>()
        }
        Span::Each(first) => {
            for (sum, x) in sums[first..].iter_mut().zip(&values[run]) {
                *sum += f64::from(x.abs());
            }
        }
    });
    let scale = sums
        .iter()
        .zip(layout.elements_per_param())
        .map(|(&sum, count)| ((sum / count.max(1) as f64) as f32).max(f32::MIN_POSITIVE))
        .collect();
    QuantParams { scale, zero_point: Vec::new() }
}

/// The signs (eq. 4); 0 counts as positive.
pub fn signs(values: &[f32]) -> PackedInts {
    let codes: Vec<i16> = values.iter().map(|&x| if x < 0.0 { -1 } else { 1 }).collect();
    PackedInts::pack(&codes, 1, Encoding::Sign)
}
