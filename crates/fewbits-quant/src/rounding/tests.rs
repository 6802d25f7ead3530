//! What every method of rounding promises.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::{
    Bits, FractionBits, Granularity, HessianObserver, Scheme, WeightRange, quantize, quantize_on,
};

/// [`quantize_on`] without limits.
fn unlimited(
    values: &[f32],
    shape: &[usize],
    scheme: Scheme,
    range: WeightRange,
    rounding: Rounding,
    inputs: Option<Inputs>,
) -> Result<QTensor> {
    quantize_on(values, shape, scheme, range, rounding, inputs, &Limits::default())
}

/// Numbers in -1..1 that look random, the same on every run.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Inputs that go together, as those of real layers do: mixtures of a few causes, and noise.
pub fn inputs(rows: usize, columns: usize, seed: u32) -> Vec<f32> {
    let causes = columns.div_ceil(4);
    let mix = noise(causes * columns, seed);
    let mut values = noise(rows * columns, seed + 1);
    for row in values.chunks_exact_mut(columns.max(1)) {
        let strengths: Vec<f32> = row.iter().take(causes).copied().collect();
        for (j, x) in row.iter_mut().enumerate() {
            *x *= 0.3;
            *x += strengths.iter().enumerate().map(|(i, s)| s * mix[i * columns + j]).sum::<f32>();
        }
    }
    values
}

pub fn hessian(rows: &[f32], columns: usize) -> Hessian {
    let mut observer = HessianObserver::new(columns);
    observer.observe(rows).unwrap();
    observer.finish().unwrap()
}

pub fn scheme(bits: u8, affine: bool, granularity: Granularity) -> Scheme {
    let bits = Bits::new(bits).unwrap();
    match affine {
        true => Scheme::Affine { bits, granularity },
        false => Scheme::Symmetric { bits, granularity },
    }
}

pub fn group(axis: usize, size: usize) -> Granularity {
    Granularity::Group { axis, size: NonZeroUsize::new(size).unwrap() }
}

/// The squared error in the outputs.
pub fn error(weight: &[f32], quantized: &QTensor, inputs: Inputs) -> f64 {
    let pairs = weight.iter().zip(quantized.dequantize());
    let differences = pairs.map(|(x, q)| x - q).collect::<Vec<f32>>();
    let rows = inputs.matrix.to_rows(&differences);
    let per_group = rows.len() / inputs.hessians.len();
    let groups = rows.chunks(per_group.max(1)).zip(inputs.hessians);
    groups.map(|(rows, hessian)| hessian.error(rows).unwrap()).sum()
}

#[test]
fn names_are_read_as_they_are_written() {
    for method in Rounding::ALL {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    assert!("up".parse::<Rounding>().unwrap_err().contains("gptq"));
}

#[test]
fn correlated_inputs_make_methods_much_better_than_nearest() {
    let (outputs, columns) = (48, 160);
    let weight = noise(outputs * columns, 1);
    let hessians = [hessian(&inputs(600, columns, 2), columns)];
    for (shape, axis) in [([outputs, columns], 0), ([columns, outputs], 1)] {
        let matrix = Matrix::new(&shape, axis).unwrap();
        let weight = matrix.from_rows(weight.clone());
        let inputs = Inputs { matrix, hessians: &hessians };
        for scheme in [
            scheme(4, true, group(1 - axis, 32)),
            scheme(3, false, Granularity::Channel { axis }),
            scheme(4, false, Granularity::Tensor),
            scheme(1, false, Granularity::Channel { axis }),
        ] {
            let of = |rounding| {
                let range = WeightRange::MinMax;
                unlimited(&weight, &shape, scheme, range, rounding, Some(inputs)).unwrap()
            };
            let (nearest, gptq) = (of(Rounding::Nearest), of(Rounding::Gptq));
            assert_eq!(gptq.params(), nearest.params());
            let (before, after) = (error(&weight, &nearest, inputs), error(&weight, &gptq, inputs));
            assert!(after < 0.5 * before, "{scheme}: {after} for {before}");
        }
    }
}

#[test]
fn each_group_of_a_convolution_has_inputs_of_its_own() {
    let shape = [4, 3, 3, 3];
    let weight = noise(108, 5);
    let matrix = Matrix::new(&shape, 0).unwrap();
    let scheme = scheme(3, true, Granularity::Channel { axis: 0 });
    let both = [hessian(&inputs(90, 27, 6), 27), hessian(&inputs(90, 27, 60), 27)];
    let quantized = |weight: &[f32], shape: &[usize], hessians: &[Hessian]| {
        let inputs = Inputs { matrix: Matrix::new(shape, 0).unwrap(), hessians };
        let range = WeightRange::Mse;
        unlimited(weight, shape, scheme, range, Rounding::Gptq, Some(inputs)).unwrap()
    };
    let whole = quantized(&weight, &shape, &both).dequantize();
    for (i, half) in weight.chunks(54).enumerate() {
        let alone = quantized(half, &[2, 3, 3, 3], &both[i..=i]).dequantize();
        assert_eq!(alone, whole[i * 54..][..54]);
    }
    for hessians in [vec![], vec![both[0].clone(); 3], vec![hessian(&[1.0; 9], 9)]] {
        let inputs = Some(Inputs { matrix, hessians: &hessians });
        let range = WeightRange::MinMax;
        let wrong = unlimited(&weight, &shape, scheme, range, Rounding::Gptq, inputs);
        assert!(matches!(wrong, Err(QuantError::Inputs { .. })));
    }
}

#[test]
fn what_cannot_be_done_by_inputs_is_done_without_or_refused() {
    let hessians = [hessian(&inputs(20, 6, 7), 6)];
    let range = WeightRange::MinMax;
    for rounding in Rounding::ALL.into_iter().filter(|m| m.needs_inputs()) {
        let of = |values: &[f32], shape: &[usize], scheme| {
            let matrix = Matrix::new(shape, 0).unwrap();
            let inputs = Inputs { matrix, hessians: &hessians };
            unlimited(values, shape, scheme, range, rounding, Some(inputs)).unwrap()
        };
        let weight = noise(24, 8);
        let fixed = Scheme::FixedPoint { fraction_bits: FractionBits::EIGHT };
        assert_eq!(of(&weight, &[4, 6], fixed), quantize(&weight, &[4, 6], fixed).unwrap());
        let affine = scheme(4, true, group(1, 32));
        assert_eq!(of(&[], &[0, 6], affine), quantize(&[], &[0, 6], affine).unwrap());
        // A group longer than the row is the row.
        assert_eq!(of(&weight, &[4, 6], affine).params().scale.len(), 4);
        let none = unlimited(&weight, &[4, 6], affine, range, rounding, None).unwrap_err();
        assert_eq!(none, QuantError::NeedsInputs { rounding: rounding.name() });
        assert!(none.to_string().starts_with(&rounding.to_string()));
    }
}

#[test]
fn weights_of_dead_inputs_are_rounded_to_nearest() {
    let (outputs, columns) = (8, 40);
    let mut rows = inputs(200, columns, 9);
    let is_dead = |column: usize| column % 5 == 2;
    for (i, x) in rows.iter_mut().enumerate() {
        *x *= if is_dead(i % columns) { 0.0 } else { 1.0 };
    }
    let hessians = [hessian(&rows, columns)];
    let shape = [outputs, columns];
    let inputs = Inputs { matrix: Matrix::new(&shape, 0).unwrap(), hessians: &hessians };
    let weight = noise(outputs * columns, 10);
    let of = |rounding| {
        let scheme = scheme(3, true, group(1, 8));
        let range = WeightRange::MinMax;
        let q = unlimited(&weight, &shape, scheme, range, rounding, Some(inputs)).unwrap();
        q.codes().unpack()
    };
    let nearest = of(Rounding::Nearest);
    for method in Rounding::ALL.into_iter().filter(|m| m.needs_inputs()) {
        let codes = of(method);
        assert_ne!(codes, nearest);
        for (i, (a, b)) in codes.iter().zip(&nearest).enumerate() {
            assert!(!is_dead(i % columns) || a == b, "{method}: weight {i}");
        }
    }
    // Nothing but dead inputs.
    let hessians = [hessian(&vec![0.0; 3 * columns], columns)];
    let inputs = Inputs { hessians: &hessians, ..inputs };
    let scheme = scheme(3, true, group(1, 8));
    for method in [Rounding::Nearest, Rounding::Gptq, Rounding::AdaRound] {
        for range in [WeightRange::MinMax, WeightRange::Mse] {
            let q = unlimited(&weight, &shape, scheme, range, method, Some(inputs)).unwrap();
            assert_eq!(q.dequantize(), quantize(&weight, &shape, scheme).unwrap().dequantize());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Also where rows of inputs are fewer than columns, some are the same, and most are zero.
    #[test]
    fn no_row_is_worse_than_by_rounding_to_nearest(
        (outputs, columns, rows) in (1usize..5, 1usize..40, 1usize..60), seed in 0u32..1000,
        bits in 1u8..=8, affine in any::<bool>(), kind in 0usize..5, size in 1usize..50,
        axis in 0usize..2, mse in any::<bool>(), power in 0i32..8, repeated in any::<bool>(),
    ) {
        let shape = if axis == 0 { [outputs, columns] } else { [columns, outputs] };
        let matrix = Matrix::new(&shape, axis).unwrap();
        let weight: Vec<f32> =
            noise(outputs * columns, seed).into_iter().map(|x| x.powi(1 + power % 3)).collect();
        let mut observed: Vec<f32> =
            inputs(rows, columns, seed + 1).into_iter().map(|x| x.powi(power)).collect();
        if repeated {
            let first = observed[..columns].to_vec();
            observed.chunks_exact_mut(columns).for_each(|row| row.copy_from_slice(&first));
        }
        let hessians = [hessian(&observed, columns)];
        let granularity = [
            Granularity::Tensor,
            Granularity::Channel { axis: 0 },
            Granularity::Channel { axis: 1 },
            group(0, size),
            group(1, size),
        ][kind];
        let scheme = scheme(bits, affine, granularity);
        let range = if mse { WeightRange::Mse } else { WeightRange::MinMax };
        let inputs = Some(Inputs { matrix, hessians: &hessians });
        let errors = |rounding| {
            let q = unlimited(&weight, &shape, scheme, range, rounding, inputs).unwrap();
            let pairs = weight.iter().zip(q.dequantize());
            let differences = pairs.map(|(x, q)| x - q).collect::<Vec<f32>>();
            hessians[0].row_errors(&matrix.to_rows(&differences))
        };
        let plain = errors(Rounding::Nearest);
        for rounding in Rounding::ALL.into_iter().filter(|m| m.needs_inputs()) {
            for (error, plain) in errors(rounding).iter().zip(&plain) {
                prop_assert!(error <= plain, "{rounding}, {scheme}: {error} for {plain}");
            }
        }
    }
}

proptest! {
    #[test]
    fn hqq_is_no_worse_than_nearest_in_any_group(
        power in 1i32..4, seed in 0u32..1000, bits in 1u8..=8, affine in any::<bool>(),
        axis in 0usize..2, size in 1usize..50, mse in any::<bool>(), shift in -1f32..1.0,
    ) {
        let shape = [12, 40];
        let weight: Vec<f32> =
            noise(480, seed).into_iter().map(|x| x.powi(power) + shift.powi(3)).collect();
        let scheme = scheme(bits, affine, group(axis, size));
        let range = if mse { WeightRange::Mse } else { WeightRange::MinMax };
        let errors = |rounding| {
            let q = unlimited(&weight, &shape, scheme, range, rounding, None).unwrap();
            let values = q.dequantize();
            let mut errors = vec![0f64; q.layout().params()];
            q.layout().for_each_run(|run, span| {
                for (i, element) in run.enumerate() {
                    errors[span.param(i)] += f64::from(weight[element] - values[element]).powi(2);
                }
            });
            errors
        };
        let (hqq, plain) = (errors(Rounding::Hqq), errors(Rounding::Nearest));
        for (hqq, plain) in hqq.iter().zip(plain) {
            // f32 sums; what is almost exact has no digits to compare.
            prop_assert!(*hqq <= plain * (1.0 + 1e-4) + 1e-12, "{scheme}: {hqq} for {plain}");
        }
    }
}

#[test]
fn hqq_repairs_ranges_with_outliers_and_needs_no_inputs() {
    let mut weight: Vec<f32> = noise(64 * 64, 20).into_iter().map(|x| x * x * x).collect();
    weight.iter_mut().step_by(100).for_each(|x| *x *= 2.0);
    for scheme in [scheme(3, true, group(1, 32)), scheme(3, false, group(0, 32))] {
        let noise = |rounding| {
            let range = WeightRange::MinMax;
            let q = unlimited(&weight, &[64, 64], scheme, range, rounding, None).unwrap();
            let pairs = weight.iter().zip(q.dequantize());
            pairs.map(|(x, q)| f64::from(x - q).powi(2)).sum::<f64>()
        };
        let (hqq, nearest) = (noise(Rounding::Hqq), noise(Rounding::Nearest));
        assert!(hqq < 0.9 * nearest, "{scheme}: {hqq} for {nearest}");
    }
}

#[test]
fn hqq_leaves_what_has_no_better_parameters() {
    let weight = noise(40, 21);
    for scheme in [
        scheme(1, false, Granularity::Channel { axis: 0 }),
        Scheme::FixedPoint { fraction_bits: FractionBits::EIGHT },
    ] {
        let range = WeightRange::MinMax;
        let hqq = unlimited(&weight, &[4, 10], scheme, range, Rounding::Hqq, None);
        assert_eq!(hqq, quantize(&weight, &[4, 10], scheme));
    }
    for (values, shape) in [(&[0.0; 6][..], [2, 3]), (&[], [0, 3]), (&[1e-42; 6], [2, 3])] {
        for scheme in [scheme(4, true, group(1, 2)), scheme(4, false, Granularity::Tensor)] {
            let range = WeightRange::MinMax;
            let hqq = unlimited(values, &shape, scheme, range, Rounding::Hqq, None).unwrap();
            assert_eq!(hqq, quantize(values, &shape, scheme).unwrap());
        }
    }
}

#[test]
fn one_thread_gives_what_many_do() {
    let (outputs, columns) = (150, 70);
    let shape = [outputs, columns];
    let weight = noise(outputs * columns, 30);
    let hessians = [hessian(&inputs(300, columns, 31), columns)];
    let inputs = Some(Inputs { matrix: Matrix::new(&shape, 0).unwrap(), hessians: &hessians });
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let many = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for method in Rounding::ALL {
        let scheme = scheme(3, true, group(1, 16));
        let round = || unlimited(&weight, &shape, scheme, WeightRange::Mse, method, inputs);
        assert_eq!(alone.install(round), many.install(round), "{method}");
    }
}
