//! Our product of bytes beside rten's product of floats, on one thread:
//! `cargo bench -p fewbits-engine`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fewbits_kernels::bytes::{QuantizeTo, Requantize};
use fewbits_kernels::gemm::{Grid, Input, Output, PackedWeights, RowStrides, multiply};
use fewbits_kernels::{Buffer, Cpu, Threads};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use rten::{RunOptions, ThreadPool};
use rten_tensor::TensorView;

/// Rows, columns and depth.
const SIZE: usize = 512;

fn floats() -> Vec<f32> {
    (0..SIZE * SIZE).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect()
}

/// A model that multiplies by constant weights, which rten packs when it loads them.
fn product_of_rten() -> rten::Model {
    let value = |name: &str| ValueInfoProto::tensor(name, DataType::Float as i32, &[None, None]);
    let graph = GraphProto {
        node: vec![NodeProto::new("MatMul", &["x", "w"], &["y"])],
        initializer: vec![TensorProto::from_f32("w", &[SIZE, SIZE], &floats())],
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let mut options = rten::ModelOptions::with_all_ops();
    options.prepack_weights(true);
    options.load(Model::from_graph(graph, 17).to_bytes()).expect("a model of one product")
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{SIZE}x{SIZE}x{SIZE}"));
    group.throughput(Throughput::Elements(SIZE.pow(3) as u64)).sample_size(20);

    let cpu = Cpu::chosen().expect("FEWBITS_CPU names a level of this CPU");
    let mut input = Buffer::new(SIZE * SIZE);
    input.u8s_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 251) as u8);
    let ints: Vec<i8> = (0..SIZE * SIZE).map(|i| (i % 253) as u8 as i8).collect();
    let packed = PackedWeights::new(cpu, &ints, SIZE, 1, SIZE);
    let (bias, scale, mut out) = (vec![0; SIZE], vec![1e-4; SIZE], vec![0; SIZE * SIZE]);
    group.bench_function(format!("bytes, {}", cpu.level()), |b| {
        b.iter(|| {
            multiply(
                &packed,
                Grid::of_matrix(SIZE),
                &Input { bytes: input.with_slack(), rows: RowStrides::of_matrix(SIZE), runs: &[0] },
                Output::Bytes {
                    bytes: &mut out,
                    rows: RowStrides::of_matrix(SIZE),
                    requantize: Requantize {
                        bias: &bias,
                        scale: &scale,
                        to: QuantizeTo::all_bytes(1.0, 128),
                    },
                    add: None,
                },
                Threads::ONE,
            );
        });
    });

    let model = product_of_rten();
    let (x, y) = (model.node_id("x").expect("x"), model.node_id("y").expect("y"));
    let values = floats();
    let pool = Arc::new(ThreadPool::with_num_threads(1));
    group.bench_function("floats, rten", |b| {
        b.iter(|| {
            let view = TensorView::from_data(&[SIZE, SIZE], values.as_slice());
            let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
            black_box(model.run(vec![(x, view.into())], &[y], Some(options)).expect("it runs"))
        });
    });
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
