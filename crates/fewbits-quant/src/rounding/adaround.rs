//! AdaRound: learns for each weight whether it goes up or down.
//!
//! Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization"
//! (arXiv:2004.10568), section 3.3. A weight becomes `s (floor(w / s) + h(V))`, saturated (eq. 22),
//! where `h` is the rectified sigmoid
//!
//! ```text
//! h(V) = clip(σ(V) (ζ - γ) + γ, 0, 1)                    (eq. 23)
//! ```
//!
//! and `V` is learned by Adam on the squared error of the layer's outputs and a term that in the
//! end leaves only 0 and 1:
//!
//! ```text
//! |W x - W~ x|² + λ Σ (1 - |2 h(V) - 1|^β)               (eq. 21 and 24)
//! ```
//!
//! where β falls. The first term is `d H dᵀ` for all inputs at once, with the gradient `2 d H`: no
//! inputs are kept, no batches drawn, and every run is the same. It is measured in what rounding to
//! nearest makes of it, so that λ means the same for every layer. Of every row the better of the
//! learned and the nearest is kept.

use fewbits_kernels::float::{
    Dims, Function, Strided, StridedMut, apply, matmul_packed, pack, packed_len,
};
use rayon::prelude::*;

use super::grid::{Best, Choice, GridRows};
use crate::Hessian;
use crate::observer::cpu;

/// The ends of the stretched sigmoid (section 3.3).
const ZETA: f32 = 1.1;
const GAMMA: f32 = -0.1;

/// Steps of Adam at most, and of these the ones before the term of eq. 24 sets in; what β falls from
/// and to, and λ. The paper takes ten times as many steps, each on some of the inputs only.
const STEPS: usize = 1000;
const WARM_UP: usize = 200;
const BETAS: (u32, u32) = (20, 2);
const LAMBDA: f32 = 10.0;

/// Adam's (Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1).
const RATE: f32 = 0.1;
const MOMENTUM: f32 = 0.9;
const SECOND_MOMENTUM: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Rows learned together, by one thread.
const ROWS: usize = 32;

/// The integers of `weights`, rows of the matrix whose inputs `hessian` knows. One bit has no up and
/// down: each weight goes to the nearest.
pub(crate) fn codes(weights: &[f32], grid: GridRows, hessian: &Hessian) -> Vec<i16> {
    let mut best = Best::plain(weights, grid, hessian);
    if let Some(choices) = grid.choices(weights) {
        let columns = hessian.columns();
        let sums = Strided::rows(hessian.sums(), columns);
        let mut packed = vec![0f32; packed_len(columns, columns)];
        pack(cpu(), columns, columns, sums, &mut packed);
        // The squared error that each weight makes on average becomes 1.
        let unit = |&error: &f64| match error > 0.0 {
            true => (columns as f64 / error) as f32,
            false => 0.0,
        };
        let units: Vec<f32> = best.errors().iter().map(unit).collect();
        let parts = choices.par_chunks(ROWS * columns).zip(units.par_chunks(ROWS));
        let learn = |(choices, units)| Rows { choices, columns, sums: &packed, units }.learn();
        let learned: Vec<i16> = parts.flat_map_iter(learn).collect();
        best.offer(learned);
    }
    best.codes()
}

/// Rows that are learned together.
struct Rows<'a> {
    choices: &'a [Choice],
    columns: usize,
    /// H, packed for products.
    sums: &'a [f32],
    /// What the squared error of each row is multiplied by.
    units: &'a [f32],
}

impl Rows<'_> {
    fn learn(&self) -> Vec<i16> {
        let (count, columns) = (self.choices.len(), self.columns);
        let mut v = self.start();
        let (mut sigmoids, mut slopes) = (v.clone(), vec![0f32; count]);
        let (mut differences, mut products) = (vec![0f32; count], vec![0f32; count]);
        let (mut adam, mut scratch) = (Adam::new(count), Vec::new());
        for step in 0..STEPS {
            sigmoids.copy_from_slice(&v);
            apply(cpu(), Function::Sigmoid, &mut sigmoids);
            for ((d, &sigmoid), choice) in differences.iter_mut().zip(&sigmoids).zip(self.choices) {
                *d = choice.difference(rectified(sigmoid));
            }
            matmul_packed(
                cpu(),
                Dims { m: count / columns, k: columns, n: columns },
                Strided::rows(&differences, columns),
                self.sums,
                StridedMut::rows(&mut products, columns),
                &mut scratch,
            );
            self.slopes(&sigmoids, &products, beta(step), &mut slopes);
            adam.step(&mut v, &slopes);
            if sigmoids.iter().all(|&s| is_decided(rectified(s))) {
                break;
            }
        }
        let up = |v: f32| if v < 0.0 { 0.0 } else { 1.0 };
        self.choices.iter().zip(v).map(|(choice, v)| choice.code(up(v))).collect()
    }

    /// The derivatives by V, from `σ(V)` and `d H`.
    fn slopes(&self, sigmoids: &[f32], products: &[f32], beta: Option<u32>, slopes: &mut [f32]) {
        for (row, &unit) in self.units.iter().enumerate() {
            for i in row * self.columns..(row + 1) * self.columns {
                let (h, choice) = (rectified(sigmoids[i]), &self.choices[i]);
                // d falls as h rises.
                let error = -2.0 * unit * products[i] * choice.slope(h);
                let term = match beta {
                    Some(beta) => -2.0 * LAMBDA * beta as f32 * power(2.0 * h - 1.0, beta - 1),
                    None => 0.0,
                };
                let by_v = match is_decided(h) {
                    true => 0.0,
                    false => (ZETA - GAMMA) * sigmoids[i] * (1.0 - sigmoids[i]),
                };
                slopes[i] = (error + term) * by_v;
            }
        }
    }

    /// V where every weight is what it was.
    fn start(&self) -> Vec<f32> {
        let mut v = vec![0f32; self.choices.len()];
        let mut sigmoids = v.clone();
        // By Newton's method: a logarithm is not the same on every system.
        for _ in 0..6 {
            sigmoids.copy_from_slice(&v);
            apply(cpu(), Function::Sigmoid, &mut sigmoids);
            for ((v, &s), choice) in v.iter_mut().zip(&sigmoids).zip(self.choices) {
                let wanted = (choice.rest() - GAMMA) / (ZETA - GAMMA);
                *v -= (s - wanted) / (s * (1.0 - s));
            }
        }
        v
    }
}

/// Eq. 23, from σ(V).
fn rectified(sigmoid: f32) -> f32 {
    let h = sigmoid * (ZETA - GAMMA) + GAMMA;
    let h = if h > 0.0 { h } else { 0.0 };
    if h < 1.0 { h } else { 1.0 }
}

/// Whether a weight goes all the way up or down; it stays there.
fn is_decided(h: f32) -> bool {
    h == 0.0 || h == 1.0
}

/// β of a step; `None` while the term has not set in.
fn beta(step: usize) -> Option<u32> {
    let (from, to) = BETAS;
    let done = step.checked_sub(WARM_UP)? as u32 * (from - to) / (STEPS - WARM_UP) as u32;
    Some(from - done)
}

/// `|x|^n` with the sign of x.
fn power(x: f32, n: u32) -> f32 {
    let (mut result, mut square, mut n) = (1f32, x.abs(), n);
    while n > 0 {
        if n % 2 == 1 {
            result *= square;
        }
        square *= square;
        n /= 2;
    }
    result.copysign(x)
}

/// Adam's moments.
struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    /// The powers of both decays.
    decays: (f32, f32),
}

impl Adam {
    fn new(count: usize) -> Adam {
        Adam { first: vec![0.0; count], second: vec![0.0; count], decays: (1.0, 1.0) }
    }

    fn step(&mut self, v: &mut [f32], slopes: &[f32]) {
        self.decays.0 *= MOMENTUM;
        self.decays.1 *= SECOND_MOMENTUM;
        let (bias, second_bias) = (1.0 - self.decays.0, 1.0 - self.decays.1);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((v, &slope), (first, second)) in v.iter_mut().zip(slopes).zip(moments) {
            *first += (1.0 - MOMENTUM) * (slope - *first);
            *second += (1.0 - SECOND_MOMENTUM) * (slope * slope - *second);
            *v -= RATE * (*first / bias) / ((*second / second_bias).sqrt() + EPSILON);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_term_falls_from_the_first_beta_to_the_last() {
        assert_eq!(beta(WARM_UP - 1), None);
        assert_eq!((beta(WARM_UP), beta(STEPS - 1)), (Some(BETAS.0), Some(BETAS.1 + 1)));
        for n in 1..=20 {
            assert!((power(-0.9, n) + 0.9f32.powi(n as i32)).abs() < 1e-6);
            assert_eq!((power(1.0, n), power(0.0, n)), (1.0, 0.0));
        }
    }

    #[test]
    fn the_sigmoid_is_stretched_and_cut_off() {
        assert_eq!((rectified(0.0), rectified(1.0), rectified(0.5)), (0.0, 1.0, 0.5));
        assert!(is_decided(rectified(0.08)) && is_decided(rectified(0.92)));
        assert!(!is_decided(rectified(0.09)) && !is_decided(rectified(0.91)));
    }

    #[test]
    fn adam_finds_the_bottom_of_a_bowl() {
        let (mut adam, mut v) = (Adam::new(2), vec![3.0, -1.0]);
        for _ in 0..500 {
            let slopes = [2.0 * (v[0] - 1.0), 20.0 * (v[1] - 2.0)];
            adam.step(&mut v, &slopes);
        }
        assert!((v[0] - 1.0).abs() < 1e-3 && (v[1] - 2.0).abs() < 1e-3, "{v:?}");
    }
}
