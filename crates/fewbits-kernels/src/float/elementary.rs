//! Elementary functions out of additions, multiplications and divisions.
//!
//! The coefficients are minimax fits in relative error, made for fewbits by iteratively reweighted
//! least squares in 160 bits. A comparison is written so that NaN falls through to the argument,
//! which is also what the `min` and `max` instructions of x86 do.

use std::f32::consts::{FRAC_2_SQRT_PI, LN_2, LOG2_E, SQRT_2};

/// 1.5 * 2^23: a small number added to it loses its fraction, and its integer part is then found
/// in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

/// ln 2 less its nearest f32, which is [`LN_2`].
const LN_2_REST: f32 = -1.904_654_3e-9;

/// From here on erf is 1 within a rounding. [`erf_inside`] gives exactly 1 here and for its
/// neighbours, which is why it is this number.
const ERF_END: f32 = 3.907_101_4;

/// `x` between `low` and `high`.
#[inline(always)]
pub fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// A polynomial whose coefficients are given from the lowest power on.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut value = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        value = value.mul_add(x, coefficients[i]);
    }
    value
}

/// `n` and e^r - 1, for x = n ln 2 + r with r in -ln 2 / 2 .. ln 2 / 2.
#[inline(always)]
fn exp_parts(x: f32) -> (i32, f32) {
    let rounded = x.mul_add(LOG2_E, ROUNDER);
    let n = rounded - ROUNDER;
    let r = n.mul_add(-LN_2_REST, n.mul_add(-LN_2, x));
    let series = polynomial(r, [0.5, 0.166_665_77, 0.041_666_854, 0.008_363_17, 0.001_390_128_8]);
    let bits = rounded.to_bits().wrapping_sub(ROUNDER.to_bits());
    (bits as i32, (series * r).mul_add(r, r))
}

/// 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// e^x, of the whole range, subnormal results included.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (n, fraction) = exp_parts(clamp(x, -104.0, 89.0));
    // In two steps, since 2^n may be out of the range where the result is still inside.
    let half = n >> 1;
    (1.0 + fraction) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// e^x - 1 for x up to 80, precise near 0 too.
#[inline(always)]
pub fn exp_less_one(x: f32) -> f32 {
    let (n, fraction) = exp_parts(if x < -20.0 { -20.0 } else { x });
    let scale = power_of_two(n);
    scale.mul_add(fraction, scale - 1.0)
}

/// tanh x, as t / (t + 2) of t = e^2x - 1.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let size = if size > 9.1 { 9.1 } else { size };
    let t = exp_less_one(size + size);
    (t / (t + 2.0)).copysign(x)
}

/// 1 / (1 + e^-x), precise in both tails.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let small = exp(-x.abs());
    (if x < 0.0 { small } else { 1.0 }) / (1.0 + small)
}

/// ln(1 + e^x).
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    // ln(1 + u) = 2 artanh(u / (2 + u)), for u in 0..=1.
    let u = exp(-x.abs());
    let s = u / (2.0 + u);
    let z = s * s;
    let series = polynomial(z, [0.333_333_2, 0.200_038_25, 0.141_171_6, 0.134_331_23]);
    let tail = 2.0 * (series * z).mul_add(s, s);
    tail + if x < 0.0 { 0.0 } else { x }
}

/// erf x for x in -[`ERF_END`]..=[`ERF_END`]: a rational function of x².
#[inline(always)]
fn erf_inside(x: f32) -> f32 {
    let z = x * x;
    let over = polynomial(
        z,
        [
            FRAC_2_SQRT_PI,
            0.190_559_22,
            0.052_765_213,
            0.003_771_201_7,
            2.848_369_8e-4,
            2.046_608_4e-6,
        ],
    );
    let under = polynomial(
        z,
        [1.0, 0.502_211_45, 0.114_168_89, 0.014_980_476, 0.001_163_575_1, 3.805_344e-5],
    );
    // The last rounding may overshoot.
    clamp(x * over / under, -1.0, 1.0)
}

/// erf x.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    erf_inside(clamp(x, -ERF_END, ERF_END))
}

/// x * (erf(x / √2) + 1) * 0.5, rounded as those four operations round.
#[inline(always)]
pub fn gelu_erf(x: f32) -> f32 {
    // The quotient by a constant, correctly rounded without a division: that is slower than all
    // the rest of erf. A test compares.
    let inside = clamp(x, -ERF_END * SQRT_2, ERF_END * SQRT_2);
    let about = inside * (1.0 / SQRT_2);
    let missing = about.mul_add(-SQRT_2, inside);
    let quotient = missing.mul_add(1.0 / SQRT_2, about);
    x * (erf_inside(quotient) + 1.0) * 0.5
}

/// 0.5 * x * (1 + tanh(√(2/π) * (x + 0.044715 * x³))), in the order of ONNX's Gelu.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    let bent = x + 0.044_715 * (x * x * x);
    0.5 * x * (1.0 + tanh(0.797_884_6 * bent))
}

/// alpha * x + beta between 0 and 1.
#[inline(always)]
pub fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    clamp(alpha * x + beta, 0.0, 1.0)
}
