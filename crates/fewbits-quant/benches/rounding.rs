//! The methods of rounding on layers of a small encoder, and what they gain:
//! `cargo bench -p fewbits-quant`.
//!
//! Inputs are mixtures of a few causes with noise. Behind the times stands the squared error of the
//! outputs, as a share of what rounding to nearest makes of it.

use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use fewbits_quant::{
    Bits, Granularity, Hessian, HessianObserver, Inputs, Limits, Matrix, QTensor, Rounding, Scheme,
    WeightRange, quantize_on,
};

/// Numbers that look random, about normal, the same on every run.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| (0..6).map(|_| next()).sum::<f32>()).collect()
}

/// Rows of inputs with an eighth as many causes as columns.
fn inputs(rows: usize, columns: usize) -> Vec<f32> {
    let causes = columns / 8;
    let (mix, mut values) = (noise(causes * columns, 1), noise(rows * columns, 2));
    let strengths = noise(rows * causes, 3);
    for (row, strengths) in values.chunks_exact_mut(columns).zip(strengths.chunks(causes)) {
        row.iter_mut().for_each(|x| *x *= 2.0);
        for (strength, mix) in strengths.iter().zip(mix.chunks(columns)) {
            row.iter_mut().zip(mix).for_each(|(x, m)| *x += strength * m);
        }
    }
    values
}

fn observed(rows: &[f32], columns: usize) -> Hessian {
    let mut observer = HessianObserver::new(columns);
    observer.observe(rows).expect("whole rows");
    observer.finish().expect("finite inputs")
}

fn error(weight: &[f32], quantized: &QTensor, hessian: &Hessian) -> f64 {
    let pairs = weight.iter().zip(quantized.dequantize());
    hessian.error(&pairs.map(|(x, q)| x - q).collect::<Vec<f32>>()).expect("whole rows")
}

fn rounding(c: &mut Criterion) {
    let group = |size| Granularity::Group { axis: 1, size: NonZeroUsize::new(size).unwrap() };
    let cases = [
        ([1536, 384], 4, group(32)),
        ([384, 1536], 4, group(32)),
        ([64, 576], 4, Granularity::Channel { axis: 0 }),
    ];
    for (shape @ [outputs, columns], bits, granularity) in cases {
        let rows = inputs(2 * columns, columns);
        let mut times = c.benchmark_group(format!("{outputs}x{columns}"));
        times.sample_size(10);
        times.bench_function("observe 512 rows", |b| {
            let mut observer = HessianObserver::new(columns);
            b.iter(|| observer.observe(&rows[..512 * columns]));
        });
        let hessians = [observed(&rows, columns)];
        let weight = noise(outputs * columns, 4);
        let scheme = Scheme::Affine { bits: Bits::new(bits).unwrap(), granularity };
        let inputs = Inputs { matrix: Matrix::new(&shape, 0).unwrap(), hessians: &hessians };
        let quantized = |rounding| {
            let range = WeightRange::Mse;
            quantize_on(&weight, &shape, scheme, range, rounding, Some(inputs), &Limits::default())
                .unwrap()
        };
        let nearest = error(&weight, &quantized(Rounding::Nearest), &hessians[0]);
        for rounding in [Rounding::Nearest, Rounding::Gptq, Rounding::Hqq, Rounding::AdaRound] {
            times.bench_function(rounding.to_string(), |b| b.iter(|| quantized(rounding)));
            let share = error(&weight, &quantized(rounding), &hessians[0]) / nearest;
            println!("{outputs}x{columns} {rounding}: {share:.3} of the error of nearest");
        }
    }
}

criterion_group!(benches, rounding);
criterion_main!(benches);
