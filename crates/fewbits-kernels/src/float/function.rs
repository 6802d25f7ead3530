//! Functions of one number, applied to many.

use serde::{Deserialize, Serialize};

use super::elementary::{
    clamp, erf, exp, exp_less_one, gelu_erf, gelu_tanh, hard_sigmoid, sigmoid, softplus, tanh,
};
use super::lanes::each;
use crate::Cpu;
use crate::cpu::per_cpu;
use crate::exact_f32;

/// A function of one f32. NaN gives NaN.
///
/// Those that multiply `x` by something that vanishes (GELU, SiLU, HardSwish) give NaN for -inf,
/// as the graph of their parts does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// x, or 0 if x is negative.
    Relu,
    /// x, or `slope` * x if x is negative.
    LeakyRelu {
        /// The slope of the negative side.
        #[serde(with = "exact_f32")]
        slope: f32,
    },
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function.
    Erf,
    /// e^x.
    Exp,
    /// x * (erf(x / √2) + 1) * 0.5, with the bits of Div, [`Function::Erf`], Add, Mul and Mul.
    GeluErf,
    /// 0.5 * x * (1 + tanh(√(2/π) * (x + 0.044715 * x³))).
    GeluTanh,
    /// x * sigmoid(x).
    Silu,
    /// `alpha` * x + `beta`, between 0 and 1.
    HardSigmoid {
        /// The factor.
        #[serde(with = "exact_f32")]
        alpha: f32,
        /// The offset.
        #[serde(with = "exact_f32")]
        beta: f32,
    },
    /// x times the HardSigmoid of `alpha` 1/6 and `beta` 1/2.
    HardSwish,
    /// x between `low` and `high`; `high` if they cross.
    Clip {
        /// The least result.
        #[serde(with = "exact_f32")]
        low: f32,
        /// The greatest result.
        #[serde(with = "exact_f32")]
        high: f32,
    },
    /// The square root.
    Sqrt,
    /// 1 / x.
    Reciprocal,
    /// -x.
    Neg,
    /// |x|.
    Abs,
    /// x, or `alpha` * (e^x - 1) if x is negative.
    Elu {
        /// What the negative side tends to, negated.
        #[serde(with = "exact_f32")]
        alpha: f32,
    },
    /// ln(1 + e^x).
    Softplus,
}

impl Function {
    /// Computes the function of `x`, with the same bits as [`apply`] gives.
    pub fn at(self, x: f32) -> f32 {
        let mut value = [x];
        apply(Cpu::SCALAR, self, &mut value);
        value[0]
    }
}

per_cpu! {
    /// Replaces every value by `function` of it.
    pub fn apply(function: Function, values: &mut [f32]) {
        match function {
            Function::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
            Function::LeakyRelu { slope } => {
                each(values, |x| if x < 0.0 { slope * x } else { x });
            }
            Function::Sigmoid => each(values, sigmoid),
            Function::Tanh => each(values, tanh),
            Function::Erf => each(values, erf),
            Function::Exp => each(values, exp),
            Function::GeluErf => each(values, gelu_erf),
            Function::GeluTanh => each(values, gelu_tanh),
            Function::Silu => each(values, |x| x * sigmoid(x)),
            Function::HardSigmoid { alpha, beta } => {
                each(values, |x| hard_sigmoid(x, alpha, beta));
            }
            Function::HardSwish => each(values, |x| x * hard_sigmoid(x, 1.0 / 6.0, 0.5)),
            Function::Clip { low, high } => each(values, |x| clamp(x, low, high)),
            Function::Sqrt => each(values, |x| x.sqrt()),
            Function::Reciprocal => each(values, |x| 1.0 / x),
            Function::Neg => each(values, |x| -x),
            Function::Abs => each(values, |x| x.abs()),
            Function::Elu { alpha } => each(values, |x| {
                let below = alpha * exp_less_one(if x > 0.0 { 0.0 } else { x });
                if x < 0.0 { below } else { x }
            }),
            Function::Softplus => each(values, softplus),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::testing::{SIZES, at_every_level, noise, same_bits};
    use proptest::prelude::*;

    const ALL: [Function; 18] = [
        Function::Relu,
        Function::LeakyRelu { slope: 0.01 },
        Function::Sigmoid,
        Function::Tanh,
        Function::Erf,
        Function::Exp,
        Function::GeluErf,
        Function::GeluTanh,
        Function::Silu,
        Function::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Function::HardSwish,
        Function::Clip { low: -1.0, high: 6.0 },
        Function::Sqrt,
        Function::Reciprocal,
        Function::Neg,
        Function::Abs,
        Function::Elu { alpha: 1.0 },
        Function::Softplus,
    ];

    /// A series without cancellation: 2/√π e^-x² Σ 2^n x^(2n+1) / (2n+1)!!.
    fn erf_f64(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn reference(function: Function, x: f64) -> f64 {
        match function {
            Function::Relu => x.max(0.0),
            Function::LeakyRelu { slope } => x.max(0.0) + f64::from(slope) * x.min(0.0),
            Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Function::Tanh => x.tanh(),
            Function::Erf => erf_f64(x),
            Function::Exp => x.exp(),
            Function::GeluErf => x * (erf_f64(x / 2f64.sqrt()) + 1.0) * 0.5,
            Function::GeluTanh => {
                let bent = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + bent.tanh())
            }
            Function::Silu => x / (1.0 + (-x).exp()),
            Function::HardSigmoid { alpha, beta } => {
                (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)
            }
            Function::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Function::Clip { low, high } => x.clamp(low.into(), high.into()),
            Function::Sqrt => x.sqrt(),
            Function::Reciprocal => 1.0 / x,
            Function::Neg => -x,
            Function::Abs => x.abs(),
            Function::Elu { alpha } => x.max(0.0) + f64::from(alpha) * x.min(0.0).exp_m1(),
            Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        }
    }

    /// How far from the truth a result may be. Sums with a constant cancel, in the functions that
    /// have one, and then their error is that of the constant times `x`.
    fn allowed(function: Function, x: f64, wanted: f64) -> f64 {
        let cancels = match function {
            Function::GeluErf | Function::GeluTanh | Function::HardSwish => 2.4e-7 * x.abs(),
            Function::HardSigmoid { .. } => 1.2e-7,
            _ => 0.0,
        };
        // Twice the least subnormal number, times x where x is a factor.
        let least = if matches!(function, Function::Silu) { 3e-45 * x.abs() } else { 3e-45 };
        4e-7 * wanted.abs() + cancels + least
    }

    /// Numbers of all magnitudes, except for those of which the double overflows, and densely those where something happens.
    fn wide() -> Vec<f32> {
        let fine = (-110_000..=110_000).map(|i| i as f32 * 1e-3);
        let powers = (-149..126).flat_map(|e| [1.0, 1.37, -1.0, -1.71].map(|m| m * 2f32.powi(e)));
        fine.chain(powers).collect()
    }

    #[test]
    fn functions_are_near_the_truth() {
        let x = wide();
        for function in ALL {
            let mut got = x.clone();
            apply(Cpu::chosen().unwrap(), function, &mut got);
            for (&x, &got) in x.iter().zip(&got) {
                let x = f64::from(x);
                let wanted = reference(function, x);
                let beyond = wanted.abs() > f64::from(f32::MAX)
                    && f64::from(got) == wanted.signum() * f64::INFINITY;
                let error = (f64::from(got) - wanted).abs();
                let fine = error <= allowed(function, x, wanted)
                    || beyond
                    || wanted.is_nan() && got.is_nan();
                assert!(fine, "{function:?} of {x}: {got}, not {wanted}");
            }
        }
    }

    #[test]
    fn the_ends_are_exact() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for (function, below, above) in [
            (Function::Relu, 0.0, inf),
            (Function::Sigmoid, 0.0, 1.0),
            (Function::Tanh, -1.0, 1.0),
            (Function::Erf, -1.0, 1.0),
            (Function::Exp, 0.0, inf),
            (Function::GeluErf, nan, inf),
            (Function::GeluTanh, nan, inf),
            (Function::Silu, nan, inf),
            (Function::HardSigmoid { alpha: 0.2, beta: 0.5 }, 0.0, 1.0),
            (Function::Elu { alpha: 1.5 }, -1.5, inf),
            (Function::Softplus, 0.0, inf),
        ] {
            let got = [function.at(-inf), function.at(inf)];
            assert!(same_bits(&got, &[below, above]), "{function:?}: {got:?}");
        }
        for function in ALL {
            assert!(function.at(f32::NAN).is_nan(), "{function:?}");
        }
        assert_eq!(Function::GeluErf.at(-6.0), 0.0);
        assert_eq!(Function::Erf.at(3.92), 1.0);
    }

    #[test]
    fn levels_agree() {
        for function in ALL {
            for len in SIZES {
                let x: Vec<f32> = noise(len, 1).iter().map(|x| x * 8.0).collect();
                let all = at_every_level(|cpu| {
                    let mut values = x.clone();
                    apply(cpu, function, &mut values);
                    values
                });
                let one_by_one: Vec<f32> = x.iter().map(|&x| function.at(x)).collect();
                assert!(same_bits(&all, &one_by_one));
            }
        }
    }

    #[test]
    fn erf_never_leaves_its_range() {
        let x = wide();
        let mut got = x.clone();
        apply(Cpu::chosen().unwrap(), Function::Erf, &mut got);
        assert!(
            got.iter().all(|y| y.abs() <= 1.0),
            "{:?}",
            got.iter().cloned().fold(0.0, f32::max)
        );
    }

    proptest! {
        #[test]
        fn levels_agree_on_any_bits(bits in prop::collection::vec(any::<u32>(), 1..80)) {
            let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            for function in ALL {
                at_every_level(|cpu| {
                    let mut values = x.clone();
                    apply(cpu, function, &mut values);
                    values
                });
            }
        }

        #[test]
        fn gelu_is_the_graph_of_its_parts(x in -12f32..12.0) {
            let parts = x * (Function::Erf.at(x / std::f32::consts::SQRT_2) + 1.0) * 0.5;
            prop_assert_eq!(Function::GeluErf.at(x).to_bits(), parts.to_bits());
        }
    }
}
