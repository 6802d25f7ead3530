//! The kernels at every level of this CPU, on one thread: `cargo bench -p fewbits-kernels`.
//!
//! What criterion calls elements are products: a multiplication and an addition each. An epilogue
//! that makes bytes is part of every case, as it is of every step of the executor.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fewbits_kernels::bytes::{self, Depthwise, DepthwiseWeights, QuantizeTo, Requantize, Window};
use fewbits_kernels::float::{
    self, Codes, Convolution, Dims, Function, PackedCodes, Strided, StridedMut, Weights,
};
use fewbits_kernels::gemm::{Grid, Input, Output, PackedWeights, RowStrides, multiply};
use fewbits_kernels::{Buffer, Cpu, Halo, ImageLayout, Threads};

/// Bytes that look random, the same on every run.
fn noise(bytes: &mut [u8]) {
    let mut state = 1u32;
    for byte in bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
}

fn activations(len: usize) -> Buffer {
    let mut buffer = Buffer::new(len);
    noise(buffer.u8s_mut());
    buffer
}

fn weights(len: usize) -> Vec<i8> {
    let mut buffer = activations(len);
    buffer.i8s_mut().to_vec()
}

/// Scales that bring sums of `depth` products into the range of bytes.
fn scales(columns: usize, depth: usize) -> Vec<f32> {
    vec![1.0 / (150.0 * (depth as f32).sqrt()); columns]
}

const TO: QuantizeTo = QuantizeTo { scale: 1.0, zero_point: 128, low: 0, high: 255 };

/// Three by three taps with padding of one pixel.
const WINDOW: Window = Window { pads_begin: [1; 2], pads_end: [1; 2], ..Window::of([3; 2]) };

/// Times `run` at every level.
fn at_every_level(c: &mut Criterion, name: &str, products: usize, mut run: impl FnMut(Cpu)) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(products as u64));
    for cpu in Cpu::available() {
        group.bench_function(BenchmarkId::from_parameter(cpu.level()), |b| b.iter(|| run(cpu)));
    }
    group.finish();
}

/// A product of `rows` rows with weights of `depth` times `columns`, of so many bits.
fn matrix(c: &mut Criterion, [rows, depth, columns]: [usize; 3], bits: u32) {
    let input = activations(rows * depth);
    let (mut ints, scale) = (weights(columns * depth), scales(columns, depth));
    ints.iter_mut().for_each(|w| *w >>= 8 - bits);
    let packed: Vec<(Cpu, PackedWeights)> = Cpu::available()
        .into_iter()
        .map(|cpu| (cpu, PackedWeights::new(cpu, &ints, columns, 1, depth)))
        .collect();
    let mut out = vec![0; rows * columns];
    let name = format!("matrix of {bits} bits {rows}x{depth}x{columns}");
    at_every_level(c, &name, rows * depth * columns, |cpu| {
        let (_, packed) = packed.iter().find(|(of, _)| *of == cpu).expect("packed for all");
        multiply(
            packed,
            Grid::of_matrix(rows),
            &Input { bytes: input.with_slack(), rows: RowStrides::of_matrix(depth), runs: &[0] },
            Output::Bytes {
                bytes: &mut out,
                rows: RowStrides::of_matrix(columns),
                requantize: Requantize { bias: &vec![0; columns], scale: &scale, to: TO },
                add: None,
            },
            Threads::ONE,
        );
    });
}

/// An image of `size` times `size` pixels with a halo of 1.
fn image(size: usize, channels: usize) -> ImageLayout {
    let halo = Halo { top: 1, left: 1, bottom: 1, right: 1 };
    ImageLayout { images: 1, height: size, width: size, channels, halo }
}

/// A convolution of 3 by 3.
fn convolution(c: &mut Criterion, size: usize, channels: usize, filters: usize) {
    let (layout, out_layout) = (image(size, channels), image(size, filters));
    let input = activations(layout.len_bytes());
    let depth = 9 * channels;
    let (ints, scale) = (weights(filters * depth), scales(filters, depth));
    let packed: Vec<(Cpu, PackedWeights)> = Cpu::available()
        .into_iter()
        .map(|cpu| (cpu, PackedWeights::new(cpu, &ints, filters, 3, 3 * channels)))
        .collect();
    let runs = [0, layout.row_pitch(), 2 * layout.row_pitch()];
    let mut out = vec![0; out_layout.len_bytes()];
    let name = format!("convolution {size}x{size}x{channels} to {filters}");
    at_every_level(c, &name, size * size * depth * filters, |cpu| {
        let (_, packed) = packed.iter().find(|(of, _)| *of == cpu).expect("packed for all");
        multiply(
            packed,
            Grid { images: 1, height: size, width: size },
            &Input {
                bytes: input.with_slack(),
                rows: RowStrides::of_windows(&layout, &WINDOW),
                runs: &runs,
            },
            Output::Bytes {
                bytes: &mut out,
                rows: RowStrides::of_image(&out_layout),
                requantize: Requantize { bias: &vec![0; filters], scale: &scale, to: TO },
                add: None,
            },
            Threads::ONE,
        );
    });
}

/// A depthwise convolution of 3 by 3.
fn depthwise(c: &mut Criterion, size: usize, channels: usize) {
    let layout = image(size, channels);
    let input = activations(layout.len_bytes());
    let weights = DepthwiseWeights::new(&weights(9 * channels), channels, [3, 3]);
    let (bias, scale) = (vec![0; channels], scales(channels, 9));
    let requantize = Requantize { bias: &bias, scale: &scale, to: TO };
    let depthwise =
        Depthwise { weights: &weights, window: WINDOW, requantize, from: layout, to: layout };
    let mut out = vec![0; size * layout.row_pitch()];
    let name = format!("depthwise {size}x{size}x{channels}");
    at_every_level(c, &name, size * size * channels * 9, |cpu| {
        bytes::depthwise_rows(cpu, &depthwise, input.u8s(), 0..size, &mut out);
    });
}

/// Floats that look alike on every run.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect()
}

/// A product of floats whose right side is packed.
fn floats(c: &mut Criterion, [rows, depth, columns]: [usize; 3]) {
    let (a, b) = (values(rows * depth), values(depth * columns));
    let mut packed = vec![0.0; float::packed_len(depth, columns)];
    float::pack(Cpu::SCALAR, depth, columns, Strided::rows(&b, columns), &mut packed);
    let (mut out, mut scratch) = (vec![0.0; rows * columns], Vec::new());
    let name = format!("floats {rows}x{depth}x{columns}");
    at_every_level(c, &name, rows * depth * columns, |cpu| {
        let a = Strided::rows(&a, depth);
        let dims = Dims { m: rows, k: depth, n: columns };
        let to = StridedMut::rows(&mut out, columns);
        float::matmul_packed(cpu, dims, a, &packed, to, &mut scratch);
    });
}

/// The same with weights of so many bits, in groups of 32.
fn codes(c: &mut Criterion, [rows, depth, columns]: [usize; 3], bits: u32) {
    let a = values(rows * depth);
    let middle = 1i16 << (bits - 1);
    let code = |i: usize| (i * 37 % (1 << bits)) as i16 - middle;
    let packed = PackedCodes::new(
        depth,
        columns,
        &Codes {
            values: &(0..depth * columns).map(code).collect::<Vec<i16>>(),
            row_pitch: columns,
            column_pitch: 1,
            group: 32,
            scale: &vec![0.1; depth / 32 * columns],
            zero_point: &[],
        },
    )
    .expect("codes of at most 8 bits");
    let (mut out, mut scratch) = (vec![0.0; rows * columns], Vec::new());
    let name = format!("floats times {bits} bits {rows}x{depth}x{columns}");
    at_every_level(c, &name, rows * depth * columns, |cpu| {
        let a = Strided::rows(&a, depth);
        let to = StridedMut::rows(&mut out, columns);
        float::matmul_codes(cpu, rows, 0..columns, a, &packed, to, &mut scratch);
    });
}

/// A convolution of floats, 3 by 3 with a Relu, over two images.
fn float_convolution(
    c: &mut Criterion,
    size: usize,
    [channels, filters, groups]: [usize; 3],
    stride: usize,
) {
    let depth = 9 * channels / groups;
    let window = Window { stride: [stride; 2], ..WINDOW };
    let shape = [filters, channels / groups, 3, 3];
    let weights = Weights::new(Cpu::SCALAR, values(filters * depth), shape, groups, window);
    let bias = values(filters);
    let input = values(2 * channels * size * size);
    let out_size = (size - 1) / stride + 1;
    let conv = Convolution {
        bias: &bias,
        filters,
        channels,
        groups,
        window,
        size: [size; 2],
        out_size: [out_size; 2],
        function: Some(Function::Relu),
    };
    let planes = 2 * filters;
    let mut out = vec![0.0; planes * out_size * out_size];
    let mut scratch = Vec::new();
    let name = match groups {
        1 => format!("floats {size}x{size}x{channels} to {filters}, stride {stride}"),
        _ => format!("floats depthwise {size}x{size}x{channels}"),
    };
    at_every_level(c, &name, planes * out_size * out_size * depth, |cpu| {
        float::convolve(cpu, &conv, &weights, &input, 0..planes, &mut out, &mut scratch);
    });
}

fn all(c: &mut Criterion) {
    matrix(c, [512, 512, 512], 8);
    matrix(c, [128, 384, 1536], 8);
    for bits in [8, 4] {
        matrix(c, [1, 1024, 1024], bits);
        matrix(c, [32, 1024, 1024], bits);
    }
    convolution(c, 56, 64, 64);
    convolution(c, 14, 64, 64);
    convolution(c, 28, 1, 32);
    depthwise(c, 56, 144);
    floats(c, [512, 512, 512]);
    // The floats of 4096 x 4096 weights do not fit in the last cache.
    for shape in [[1, 1024, 1024], [1, 4096, 4096], [32, 1024, 1024]] {
        floats(c, shape);
        codes(c, shape, 4);
        codes(c, shape, 8);
    }
    float_convolution(c, 56, [64, 64, 1], 1);
    float_convolution(c, 14, [64, 64, 1], 1);
    float_convolution(c, 7, [128, 128, 1], 1);
    float_convolution(c, 56, [64, 64, 1], 2);
    float_convolution(c, 28, [1, 32, 1], 1);
    float_convolution(c, 14, [64, 64, 64], 1);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
