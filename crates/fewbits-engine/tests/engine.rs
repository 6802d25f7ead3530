//! The integer runner against the float runner on the same quantized graphs.

#[path = "graphs/common_forms.rs"]
mod common_forms;
#[path = "graphs/dynamic.rs"]
mod dynamic;
#[path = "graphs/examples.rs"]
mod examples;
#[path = "graphs/kept.rs"]
mod kept;
#[path = "graphs/net.rs"]
mod net;
#[path = "graphs/oracle.rs"]
mod oracle;
#[path = "graphs/products.rs"]
mod products;
#[path = "graphs/random.rs"]
mod random;
#[path = "graphs/refusals.rs"]
mod refusals;
#[path = "graphs/rows.rs"]
mod rows;

use fewbits_engine::{Backend, Engine, RunOptions, Runner, RuntimeError, Tensor, Values};
use fewbits_ir::example::{
    Coding, FLOAT, INT8, Net, Random, Scale, Scales, UINT8, Weights, floats, integers,
};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use net::{Named, assert_close, assert_runs, engine, float_runner};

const X: Scale = Scale::UNSIGNED;
const Y: Scale = Scale::SIGNED;

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto::of_ints(name, values)
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto::of_int(name, value)
}

const IMAGES: [Option<i64>; 4] = [None, Some(3), Some(7), Some(6)];

fn images(rows: usize) -> Named {
    vec![("x".into(), floats(&[rows, 3, 7, 6], 1))]
}

/// A convolution of 4 filters, 3x3 and padded.
fn conv(net: &mut Net, x: &str, seed: u64) -> String {
    let w = Weights::random(
        &mut Random(seed),
        &[4, 3, 3, 3],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = net.weights(&w);
    net.node("Conv", &[x, &w], &[ints("pads", &[1, 1, 1, 1])])
}

/// A product of 6 columns of rows of `depth`.
fn matmul(net: &mut Net, x: &str, depth: usize) -> String {
    let w = Weights::random(
        &mut Random(7),
        &[depth, 6],
        1,
        100,
        0.002,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = net.weights(&w);
    net.node("MatMul", &[x, &w], &[])
}

#[test]
fn what_a_quantize_linear_writes_can_be_an_output() {
    for scale in [X, Y] {
        // Of an input, of a convolution, and of floats inside a product; read by a node as well.
        let mut net = Net::of(&IMAGES);
        let q = net.quantize("x", X);
        net.output(&q, UINT8);
        let x = net.dequantize(&q, X);
        let sums = conv(&mut net, &x, 3);
        let q = net.quantize(&sums, scale);
        net.output(&q, scale.data_type);
        let y = net.dequantize(&q, scale);
        net.output(&y, FLOAT);
        assert_runs(&net, &images(2));

        let mut net = Net::of(&[None, Some(8)]);
        let x = net.rounded("x", X);
        let sums = matmul(&mut net, &x, 8);
        let y = net.node("Sigmoid", &[&sums], &[]);
        let to = Scale { scale: 0.004, ..scale };
        let q = net.quantize(&y, to);
        net.output(&q, scale.data_type);
        let y = net.dequantize(&q, to);
        net.output(&y, FLOAT);
        assert_runs(&net, &vec![("x".into(), floats(&[5, 8], 1))]);
    }
}

#[test]
fn a_sum_of_bytes_that_is_given_out_may_be_added_inside_a_product() {
    let mut net = Net::of(&[None, Some(6)]);
    let x = net.rounded("x", X);
    let sums = matmul(&mut net, &x, 6);
    let product = net.rounded(&sums, Y);
    let sum = net.node("Add", &[&product, &x], &[]);
    let q = net.quantize(&sum, X);
    net.output(&q, UINT8);
    let y = net.dequantize(&q, X);
    net.output(&y, FLOAT);
    assert_runs(&net, &vec![("x".into(), floats(&[5, 6], 1))]);
}

#[test]
fn bytes_are_read_by_operators_on_integers() {
    let mut net = Net::of(&IMAGES);
    let q = net.quantize("x", Y);
    let x = net.dequantize(&q, Y);
    let sums = conv(&mut net, &x, 3);
    let y = net.rounded(&sums, X);
    net.output(&y, FLOAT);
    let cast = net.node("Cast", &[&q], &[int("to", i64::from(FLOAT))]);
    net.output(&cast, FLOAT);
    assert_runs(&net, &images(2));
}

#[test]
fn inputs_may_be_bytes() {
    for scale in [X, Y] {
        let mut net = Net::new();
        net.input("q", scale.data_type, &IMAGES);
        let x = net.dequantize("q", scale);
        let sums = conv(&mut net, &x, 3);
        let y = net.rounded(&sums, X);
        net.output(&y, FLOAT);
        let values: Vec<u8> = (0..2 * 3 * 7 * 6).map(|i| (i * 37 % 256) as u8).collect();
        let values = match scale.data_type == INT8 {
            true => Values::I8(values.iter().map(|&v| v as i8).collect()),
            false => Values::U8(values),
        };
        let q = Tensor::new(vec![2, 3, 7, 6], values).unwrap();
        assert_runs(&net, &vec![("q".into(), q)]);
    }
}

#[test]
fn one_value_may_be_quantized_twice() {
    // To other bytes, and to the same; each is read by a convolution.
    for second in [Y, X] {
        let mut net = Net::of(&IMAGES);
        for (i, scale) in [X, second].into_iter().enumerate() {
            let x = net.rounded("x", scale);
            let sums = conv(&mut net, &x, 3 + i as u64);
            let relu = net.node("Relu", &[&sums], &[]);
            for scale in [X, second] {
                let y = net.rounded(&relu, scale);
                net.output(&y, FLOAT);
            }
        }
        assert_runs(&net, &images(2));
    }
}

#[test]
fn bytes_of_a_product_are_not_added_to_where_others_read_them() {
    // The second pair changes nothing: its bytes are those of the first.
    let mut net = Net::of(&[None, Some(4), Some(7), Some(6)]);
    let x = net.rounded("x", X);
    let w = Weights::random(
        &mut Random(5),
        &[4, 4, 3, 3],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::One),
    );
    let w = net.weights(&w);
    let sums = net.node("Conv", &[&x, &w], &[ints("pads", &[1, 1, 1, 1])]);
    let first = net.rounded(&sums, Y);
    let again = net.rounded(&first, Y);
    let sum = net.node("Add", &[&again, &x], &[]);
    let sum = net.rounded(&sum, Y);
    let other = net.node("Conv", &[&first, &w], &[ints("pads", &[1, 1, 1, 1])]);
    let other = net.rounded(&other, Y);
    net.output(&sum, FLOAT);
    net.output(&other, FLOAT);
    net.output(&first, FLOAT);
    assert_runs(&net, &vec![("x".into(), floats(&[2, 4, 7, 6], 1))]);
}

#[test]
fn bytes_may_be_read_with_another_meaning() {
    // Padding is the zero point that the convolution reads, not the one that was written.
    let other = Scale::u8(0.013, 90);
    let mut net = Net::of(&IMAGES);
    let q = net.quantize("x", X);
    for scale in [X, other] {
        let x = net.dequantize(&q, scale);
        let sums = conv(&mut net, &x, 3);
        let q = net.quantize(&sums, X);
        let (one, two) = (net.dequantize(&q, X), net.dequantize(&q, other));
        let sum = net.node("Add", &[&one, &one], &[]);
        let y = net.rounded(&sum, Y);
        net.output(&y, FLOAT);
        net.output(&two, FLOAT);
    }
    assert_runs(&net, &images(2));

    let mut net = Net::of(&[None, Some(6)]);
    let x = net.rounded("x", X);
    let sums = matmul(&mut net, &x, 6);
    let q = net.quantize(&sums, X);
    let product = net.dequantize(&q, other);
    let sum = net.node("Add", &[&product, &x], &[]);
    let y = net.rounded(&sum, Y);
    net.output(&y, FLOAT);
    assert_runs(&net, &vec![("x".into(), floats(&[5, 6], 1))]);
}

#[test]
fn constants_behind_nodes_are_computed_once() {
    // A quantized constant added to bytes, and to floats; one multiplied from the left; one given
    // out; integers given out.
    let mut net = Net::of(&[None, Some(6)]);
    let row =
        Weights::random(&mut Random(2), &[1, 6], 1, 100, 0.01, (Coding::Symmetric, Scales::One));
    let row = net.weights(&row);
    let left =
        Weights::random(&mut Random(3), &[2, 5], 1, 100, 0.01, (Coding::Affine, Scales::One));
    let left = net.weights(&left);
    let x = net.rounded("x", X);
    let sum = net.node("Add", &[&x, &row], &[]);
    let y = net.rounded(&sum, Y);
    let tanh = net.node("Tanh", &[&y], &[]);
    let floats_sum = net.node("Sub", &[&row, &tanh], &[]);
    let product = net.node("MatMul", &[&left, &floats_sum], &[]);
    for name in [&y, &floats_sum, &product, &row] {
        net.output(name, FLOAT);
    }
    let numbers = net.ints(&[3, 1, 4]);
    net.output(&numbers, 7);
    assert_runs(&net, &vec![("x".into(), floats(&[5, 6], 1))]);
}

#[test]
fn graph_outputs_lie_inside_chains_that_would_be_fused() {
    for taken in 0..4 {
        let mut net = Net::of(&IMAGES);
        let x = net.rounded("x", X);
        let a = conv(&mut net, &x, 3);
        let b = net.node("Relu", &[&a], &[]);
        let c = net.rounded(&b, X);
        let d = conv(&mut net, &x, 4);
        let d = net.rounded(&d, Y);
        let sum = net.node("Add", &[&c, &d], &[]);
        let y = net.rounded(&sum, Y);
        net.output([&a, &b, &c, &sum][taken], FLOAT);
        net.output(&y, FLOAT);
        assert_runs(&net, &images(2));
    }
}

#[test]
fn sums_and_products_broadcast() {
    for op in ["Add", "Mul"] {
        for reshaped in [None, Some(vec![0, 4, 1, 1]), Some(vec![4, 1, 1]), Some(vec![1, -1])] {
            let mut net = Net::of(&[Some(1), Some(3), Some(7), Some(4)]);
            let x = net.rounded("x", X);
            let sums = conv(&mut net, &x, 3);
            let a = net.rounded(&sums, Y);
            let mean = net.node("GlobalAveragePool", &[&a], &[]);
            let mut mean = net.rounded(&mean, Y);
            if let Some(dims) = reshaped {
                let dims = net.ints(&dims);
                mean = net.node("Reshape", &[&mean, &dims], &[]);
            }
            for (a, b) in [(&a, &mean), (&mean, &a)] {
                let y = net.node(op, &[a, b], &[]);
                let y = net.rounded(&y, X);
                net.output(&y, FLOAT);
            }
            assert_runs(&net, &vec![("x".into(), floats(&[1, 3, 7, 4], 1))]);
        }
    }
}

#[test]
fn floats_of_two_bytes_come_in_one_step() {
    for op in ["Add", "Sub", "Mul"] {
        let mut net = Net::of(&IMAGES);
        let x = net.rounded("x", X);
        let a = conv(&mut net, &x, 3);
        let a = net.rounded(&a, Y);
        let b = conv(&mut net, &x, 4);
        let b = net.rounded(&b, X);
        let mean = net.node("GlobalAveragePool", &[&a], &[]);
        let mean = net.rounded(&mean, Y);
        for other in [&b, &mean] {
            let y = net.node(op, &[&a, other], &[]);
            let relu = net.node("Relu", &[&y], &[]);
            net.output(&relu, FLOAT);
            // Read by the Relu and given out: no function of it is fused.
            let z = net.node(op, &[other, &a], &[]);
            let sigmoid = net.node("Sigmoid", &[&z], &[]);
            net.output(&z, FLOAT);
            net.output(&sigmoid, FLOAT);
        }
        assert_runs(&net, &images(3));
        let steps = engine(&net.model(), 1).fusions();
        assert!(steps.iter().any(|step| step.what == format!("{op} + Relu")), "{steps:?}");
    }
}

#[test]
fn functions_of_bytes_are_tables() {
    for op in ["Sigmoid", "HardSwish", "Tanh", "LeakyRelu", "Elu"] {
        let mut net = Net::of(&IMAGES);
        let x = net.rounded("x", X);
        let a = conv(&mut net, &x, 3);
        let a = net.rounded(&a, Y);
        let y = net.node(op, &[&a], &[]);
        let y = net.rounded(&y, X);
        net.output(&y, FLOAT);
        assert_runs(&net, &images(2));
        let steps = engine(&net.model(), 1).fusions();
        assert!(steps.iter().any(|step| step.what == format!("{op} by a table")), "{steps:?}");
    }
}

#[test]
fn means_of_volumes_are_means() {
    let mut net = Net::of(&[None, Some(3), Some(4), Some(5), Some(2)]);
    let x = net.rounded("x", X);
    let mean = net.node("GlobalAveragePool", &[&x], &[]);
    let y = net.rounded(&mean, Scale::i8(0.002, 3));
    net.output(&y, FLOAT);
    assert_runs(&net, &vec![("x".into(), floats(&[2, 3, 4, 5, 2], 1))]);
}

#[test]
fn one_dimension_is_enough() {
    for (kernel, stride, dilation, group) in
        [(3, 1, 1, 1), (3, 2, 2, 1), (5, 1, 1, 4), (1, 3, 1, 2)]
    {
        let mut net = Net::of(&[None, Some(4), None]);
        let x = net.rounded("x", X);
        let dims = [8, 4 / group, kernel];
        let w = Weights::random(
            &mut Random(4),
            &dims,
            0,
            90,
            0.004,
            (Coding::Symmetric, Scales::PerChannel),
        );
        let w = net.weights(&w);
        let attributes = [
            ints("pads", &[2, 1]),
            ints("strides", &[stride]),
            ints("dilations", &[dilation]),
            int("group", group as i64),
        ];
        let sums = net.node("Conv", &[&x, &w], &attributes);
        let y = net.rounded(&sums, Y);
        let pool = [ints("kernel_shape", &[2]), ints("strides", &[2]), ints("pads", &[1, 0])];
        let most = net.node("MaxPool", &[&y], &pool);
        let most = net.rounded(&most, Y);
        let mean = net.node("AveragePool", &[&y], &pool);
        let mean = net.rounded(&mean, Y);
        net.output(&y, FLOAT);
        net.output(&most, FLOAT);
        net.output(&mean, FLOAT);
        let model = net.model();
        let runner = engine(&model, 2);
        for length in [9, 30, 12] {
            let x = vec![("x".into(), floats(&[2, 4, length], 1))];
            let wanted = float_runner(&model).run(&x).unwrap();
            assert_close(&runner.run(&x).unwrap(), &wanted, Y.scale);
        }
    }
}

#[test]
fn weights_of_every_range_are_exact() {
    let symmetric = [1, 3, 7, 64, 127].map(|most| (most, Coding::Symmetric));
    for (most, coding) in symmetric.into_iter().chain([(127, Coding::Affine)]) {
        for scales in [Scales::One, Scales::PerChannel] {
            let scale = 0.2 / most as f32;
            let mut net = Net::of(&[None, Some(4), Some(5), Some(5)]);
            let x = net.rounded("x", X);
            for (filters, group) in [(6, 1), (6, 2), (4, 4), (8, 4)] {
                let dims = [filters, 4 / group, 3, 3];
                let mut w =
                    Weights::random(&mut Random(9), &dims, 0, most, scale, (coding, scales));
                if most == 127 && coding == Coding::Affine {
                    // Two terms of 8 bits.
                    w.zero_points.fill(250);
                    w.values.iter_mut().step_by(3).for_each(|v| *v = 0);
                }
                let w = net.weights(&w);
                let attributes = [int("group", group as i64), ints("pads", &[1, 1, 1, 1])];
                let sums = net.node("Conv", &[&x, &w], &attributes);
                let y = net.rounded(&sums, Scale::i8(0.05, 2));
                net.output(&y, FLOAT);
            }
            let flat = net.node("Flatten", &[&x], &[]);
            let mut w =
                Weights::random(&mut Random(9), &[100, 7], 1, most, scale / 4.0, (coding, scales));
            if coding == Coding::Affine {
                w.zero_points.fill(255);
                w.values.iter_mut().step_by(3).for_each(|v| *v = 0);
            }
            let w = net.weights(&w);
            let sums = net.node("MatMul", &[&flat, &w], &[]);
            net.output(&sums, FLOAT);
            let y = net.rounded(&sums, Scale::i8(0.05, 2));
            net.output(&y, FLOAT);
            assert_runs(&net, &vec![("x".into(), floats(&[3, 4, 5, 5], 1))]);
        }
    }
}

/// Convolutions, pooling, products, a dynamic product, normalization and attention of nothing.
#[test]
fn no_rows_give_no_rows() {
    let mut net = Net::of(&IMAGES);
    let x = net.rounded("x", X);
    let a = conv(&mut net, &x, 3);
    let a = net.rounded(&a, Y);
    let b = conv(&mut net, &x, 4);
    let b = net.rounded(&b, Y);
    let sum = net.node("Add", &[&a, &b], &[]);
    let sum = net.rounded(&sum, Y);
    let w = Weights::random(
        &mut Random(5),
        &[4, 1, 3, 3],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::One),
    );
    let w = net.weights(&w);
    let deep = net.node("Conv", &[&sum, &w], &[int("group", 4)]);
    let deep = net.rounded(&deep, Y);
    let pool = [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    let most = net.node("MaxPool", &[&deep], &pool);
    let most = net.rounded(&most, Y);
    let both = net.node("Concat", &[&most, &most], &[int("axis", 1)]);
    let both = net.rounded(&both, X);
    let mean = net.node("GlobalAveragePool", &[&both], &[]);
    let mean = net.rounded(&mean, X);
    let flat = net.node("Flatten", &[&mean], &[]);
    let product = matmul(&mut net, &flat, 8);
    let y = net.node("Sigmoid", &[&product], &[]);
    net.output(&y, FLOAT);
    let logits = net.rounded(&product, Y);
    let likely = net.node("Softmax", &[&logits], &[]);
    net.output(&likely, FLOAT);
    let runner = engine(&net.model(), 2);
    let outputs = runner.run(&images(0)).unwrap();
    assert_eq!(outputs[0].1.shape(), [0, 6]);
    assert_eq!(outputs[1].1.shape(), [0, 6]);
    // And what follows is not disturbed.
    assert_close(
        &runner.run(&images(3)).unwrap(),
        &float_runner(&net.model()).run(&images(3)).unwrap(),
        0.01,
    );
}

fn fixture(name: &str) -> Model {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    Model::open(&fixtures.join(name)).unwrap()
}

/// An encoder: dynamic products, attention of two heads with a mask, normalization, Gelu.
fn encoder(mask: &[i64]) -> Net {
    const WIDTH: usize = 8;
    let mut net = Net::of(&[None, None, Some(WIDTH as i64)]);
    let product = |net: &mut Net, x: &str, columns: usize| {
        let mut random = Random(columns as u64);
        let values: Vec<i64> =
            (0..WIDTH * columns).map(|_| random.below(200) as i64 - 100).collect();
        let name = net.fresh();
        let w = net.constant(integers(&name, &[WIDTH, columns], INT8, &values));
        let scale = net.floats(&[], &[0.01]);
        let [q, by, from] = net.quantized_as_it_comes(x);
        let sums = net.node("MatMulInteger", &[&q, &w, &from], &[]);
        net.scaled(&sums, &by, &scale)
    };
    let heads = net.ints(&[0, 0, 2, 4]);
    let split = |net: &mut Net, perm: &[i64]| {
        let x = product(net, "x", WIDTH);
        let x = net.node("Reshape", &[&x, &heads], &[]);
        net.node("Transpose", &[&x], &[ints("perm", perm)])
    };
    let q = split(&mut net, &[0, 2, 1, 3]);
    let k = split(&mut net, &[0, 2, 3, 1]);
    let v = split(&mut net, &[0, 2, 1, 3]);
    let scores = net.node("MatMul", &[&q, &k], &[]);
    let root = net.floats(&[], &[2.0]);
    let scores = net.node("Div", &[&scores, &root], &[]);
    net.input("mask", FLOAT, &mask.iter().map(|&d| Some(d).filter(|&d| d > 0)).collect::<Vec<_>>());
    let scores = net.node("Add", &[&scores, "mask"], &[]);
    let likely = net.node("Softmax", &[&scores], &[int("axis", -1)]);
    let mixed = net.node("MatMul", &[&likely, &v], &[]);
    let mixed = net.node("Transpose", &[&mixed], &[ints("perm", &[0, 2, 1, 3])]);
    let joined = net.ints(&[0, 0, WIDTH as i64]);
    let mixed = net.node("Reshape", &[&mixed, &joined], &[]);
    let sum = net.node("Add", &[&mixed, "x"], &[]);
    let gain = net.floats(&[WIDTH], &[1.5; WIDTH]);
    let bias = net.floats(&[WIDTH], &[0.1; WIDTH]);
    let normal = net.node("LayerNormalization", &[&sum, &gain, &bias], &[int("axis", -1)]);
    let y = product(&mut net, &normal, WIDTH);
    net.output(&y, FLOAT);
    net
}

#[test]
fn one_runner_takes_shapes_in_turn() {
    for mask in [&[0, 1, 1, 0][..], &[0, 1, 0, 0], &[0], &[0, 1, 0, 1], &[1, 1], &[]] {
        let model = encoder(mask).model();
        let runner = engine(&model, 2);
        for (batch, length) in [(1, 5), (3, 1), (2, 17), (32, 4), (0, 3), (1, 5)] {
            let sizes = [batch, 0, length, length];
            let behind = &sizes[4 - mask.len()..];
            let dims: Vec<usize> = mask
                .iter()
                .zip(behind)
                .map(|(&m, &d)| if m > 0 { m as usize } else { d })
                .collect();
            let inputs = vec![
                ("x".to_string(), floats(&[batch, length, 8], length as u64)),
                ("mask".to_string(), floats(&dims, 9)),
            ];
            let ours = runner.run(&inputs).unwrap();
            assert_eq!(ours, engine(&model, 1).run(&inputs).unwrap(), "{mask:?}");
            if batch > 0 {
                let wanted = float_runner(&model).run(&inputs).unwrap();
                assert_close(&ours, &wanted, 0.05);
            }
        }
    }
}

#[test]
fn one_runner_serves_several_threads() {
    let runner = engine(&encoder(&[0, 1, 1, 0]).model(), 2);
    let inputs = |length: usize| {
        vec![
            ("x".to_string(), floats(&[2, length, 8], length as u64)),
            ("mask".to_string(), floats(&[2, 1, 1, length], 9)),
        ]
    };
    let alone: Vec<Named> = (1..9).map(|n| runner.run(&inputs(n)).unwrap()).collect();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (runner, alone, inputs) = (&runner, &alone, &inputs);
            scope.spawn(move || {
                for i in (0..40).map(|i| (start + i) % alone.len()) {
                    assert_eq!(runner.run(&inputs(i + 1)).unwrap(), alone[i]);
                }
            });
        }
    });
}

/// A batch is whole in the first call, and in parts when it is known what a row takes.
#[test]
fn batches_are_the_same_whole_and_in_parts() {
    let mut net = Net::of(&IMAGES);
    let x = net.rounded("x", X);
    let sums = conv(&mut net, &x, 3);
    let y = net.rounded(&sums, Y);
    net.output(&y, FLOAT);
    let flat = net.node("Flatten", &[&y], &[]);
    let sums = matmul(&mut net, &flat, 4 * 7 * 6);
    net.output(&sums, FLOAT);
    let convolutions = net.model();
    let encoder = encoder(&[0, 1, 1, 0]).model();
    let of_images = |rows: usize| images(rows);
    let of_texts = |rows: usize| {
        let mask = floats(&[rows, 1, 1, 5], 9);
        vec![("x".to_string(), floats(&[rows, 5, 8], 3)), ("mask".to_string(), mask)]
    };
    // Places that the float executor cuts out, as long as a text.
    let mut net = Net::of(&[None, None, Some(8)]);
    let places = net.floats(&[16, 8], &[0.5; 128]);
    let (zero, length) = (net.ints(&[0]), [int("start", 1), int("end", 2)]);
    let length = net.node("Shape", &["x"], &length);
    let places = net.node("Slice", &[&places, &zero, &length, &zero], &[]);
    let sum = net.node("Add", &["x", &places], &[]);
    let sum = net.rounded(&sum, X);
    let product = matmul(&mut net, &sum, 8);
    net.output(&product, FLOAT);
    let placed = net.model();
    let of_words = |rows: usize| vec![("x".to_string(), floats(&[rows, 5, 8], 3))];
    let regions = engine(&placed, 1).fusions();
    assert!(
        regions.iter().any(|unit| unit.what.contains("Slice") && unit.backend == Backend::Rten)
    );
    // Views, as exporters write them, of images and of rows.
    let mut net = Net::of(&IMAGES);
    let sums = conv(&mut net, "x", 3);
    let sizes = net.node("Shape", &[&sums], &[int("end", 1)]);
    let rest = net.ints(&[2, -1]);
    let dims = net.node("Concat", &[&sizes, &rest], &[int("axis", 0)]);
    let halves = net.node("Reshape", &[&sums, &dims], &[]);
    let dims = net.ints(&[-1, 4 * 7 * 6]);
    let rows = net.node("Reshape", &[&halves, &dims], &[]);
    let rows = net.rounded(&rows, X);
    let product = matmul(&mut net, &rows, 4 * 7 * 6);
    net.output(&product, FLOAT);
    let viewed = net.model();
    let cases: [(&Model, &dyn Fn(usize) -> Named); 4] = [
        (&convolutions, &of_images),
        (&encoder, &of_texts),
        (&placed, &of_words),
        (&viewed, &of_images),
    ];
    for (model, inputs) in cases {
        // More than what is kept in the cache, so that one thread cuts it as well.
        for rows in [7, 601, 4001] {
            let whole = engine(model, 1).run(&inputs(rows)).unwrap();
            for threads in [1, 2, 3] {
                let runner = engine(model, threads);
                runner.run(&inputs(2)).unwrap();
                assert_eq!(runner.run(&inputs(rows)).unwrap(), whole, "{rows} on {threads}");
                assert_eq!(runner.run_alone(&inputs(rows)).unwrap(), whole, "{rows} alone");
                assert_eq!(runner.run(&inputs(1)).unwrap()[0].1.rows(), 1);
            }
        }
    }
}

#[test]
fn failed_runs_leave_no_trace() {
    let mut net = Net::of(&[None, Some(4), None]);
    let x = net.rounded("x", X);
    let w = Weights::random(
        &mut Random(4),
        &[8, 4, 5],
        0,
        90,
        0.004,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = net.weights(&w);
    let sums = net.node("Conv", &[&x, &w], &[]);
    let y = net.rounded(&sums, Y);
    net.output(&y, FLOAT);
    let runner = engine(&net.model(), 2);
    let x = |length: usize| vec![("x".to_string(), floats(&[2, 4, length], 1))];
    let before = runner.run(&x(9)).unwrap();
    let error = runner.run(&x(3)).unwrap_err().to_string();
    assert!(error.contains("[2, 4, 3]") && error.contains("smaller than a window"), "{error}");
    assert_eq!(runner.run(&x(9)).unwrap(), before);
}

#[test]
fn inputs_are_checked_by_name_type_and_shape() {
    let mut net = Net::of(&IMAGES);
    let x = net.rounded("x", X);
    net.output(&x, FLOAT);
    let runner = engine(&net.model(), 1);
    let refused = |inputs: &Named| match runner.run(inputs).unwrap_err() {
        RuntimeError::Input { input, reason } => (input, reason),
        error => panic!("{error}"),
    };
    assert_eq!(refused(&vec![]), ("x".into(), "no data given for it".into()));
    let (input, reason) = refused(&vec![("y".into(), floats(&[1], 1))]);
    assert!(input == "y" && reason.contains("it has x"), "{input}: {reason}");
    let (input, reason) = refused(&vec![("x".into(), floats(&[2, 3, 7, 5], 1))]);
    assert!(input == "x" && reason.contains("[?, 3, 7, 6] needed"), "{input}: {reason}");
    let (input, reason) = refused(&vec![("x".into(), floats(&[2, 3, 7], 1))]);
    assert!(input == "x" && reason.contains("[2, 3, 7] given"), "{input}: {reason}");
    let ints = Tensor::new(vec![1, 3, 7, 6], vec![0i64; 126]).unwrap();
    let (input, reason) = refused(&vec![("x".into(), ints)]);
    assert!(input == "x" && reason.contains("Float needed"), "{input}: {reason}");
}

#[test]
fn what_cannot_be_run_is_named_when_the_model_is_loaded() {
    let load = |model: &Model, options: &RunOptions| {
        Engine::new(model, options).err().unwrap().to_string()
    };
    let mut net = Net::of(&IMAGES);
    let x = net.rounded("x", X);
    let y = net.node("Frobnicate", &[&x], &[]);
    net.output(&y, FLOAT);
    let error = load(&net.model(), &RunOptions::default());
    assert!(error.contains("Frobnicate"), "{error}");

    // Read by a step of ours, and by a node that is none.
    for op in ["Add", "Pow"] {
        let mut net = Net::of(&IMAGES);
        let x = net.rounded("x", X);
        let y = net.node(op, &[&x, "nobody"], &[]);
        net.output(&y, FLOAT);
        let error = load(&net.model(), &RunOptions::default());
        assert!(error.contains("nobody"), "{error}");
    }

    let options = RunOptions { intermediates: vec!["nobody".into()], ..RunOptions::default() };
    let error = load(&fixture("digits_cnn/model.onnx"), &options);
    assert!(error.contains("input 'nobody'"), "{error}");
}

#[test]
fn values_inside_are_handed_out_behind_the_outputs() {
    let mut net = Net::of(&IMAGES);
    let x = net.rounded("x", X);
    let a = conv(&mut net, &x, 3);
    let y = net.rounded(&a, Y);
    // Left to the float executor.
    let z = net.node("ReduceSum", &[&y], &[]);
    net.output(&z, FLOAT);
    let model = net.model();
    let options = RunOptions { intermediates: vec![a.clone(), y], ..RunOptions::default() };
    let ours = Engine::new(&model, &options).unwrap().run(&images(2)).unwrap();
    let wanted = fewbits_engine::FloatRunner::new(&model, &options).unwrap();
    let wanted = wanted.run(&images(2)).unwrap();
    assert_eq!(ours[1].0, a);
    assert_close(&ours[1..].to_vec(), &wanted[1..].to_vec(), Y.scale);
}

#[test]
fn float_models_run_as_the_float_runner_has_them() {
    for name in ["digits/mlp.onnx", "notebook/model.onnx", "wine/linearsvc.onnx"] {
        let model = fixture(name);
        let runner = engine(&model, 1);
        let spec = &runner.inputs()[0];
        let width = spec.dims.as_ref().unwrap()[1].unwrap();
        let x = vec![(spec.name.clone(), floats(&[4, width], 3))];
        assert_close(&runner.run(&x).unwrap(), &float_runner(&model).run(&x).unwrap(), 1e-3);
    }
}

#[test]
fn a_row_of_more_axes_makes_more_axes() {
    let mut net = Net::of(&[None, Some(8)]);
    let x = net.rounded("x", X);
    let sums = matmul(&mut net, &x, 8);
    let row = net.floats(&[1, 1, 6], &[0.5; 6]);
    let sum = net.node("Add", &[&sums, &row], &[]);
    let y = net.node("Relu", &[&sum], &[]);
    net.output(&y, FLOAT);
    let ours = assert_runs(&net, &vec![("x".into(), floats(&[5, 8], 1))]);
    assert_eq!(ours[0].1.shape(), [1, 5, 6]);
}

#[test]
fn biases_of_all_forms_are_added() {
    let float = |net: &mut Net| net.floats(&[4], &[0.5, -0.25, 0.0, 1.0]);
    let ints = |scales: &'static [f32]| {
        move |net: &mut Net| {
            let name = net.fresh();
            let values: Vec<u8> =
                [400i32, -300, 0, 70_000].iter().flat_map(|v| v.to_le_bytes()).collect();
            let bias = net.constant(TensorProto {
                name: Some(name),
                dims: vec![4],
                data_type: Some(6),
                raw_data: Some(values.into()),
                ..TensorProto::default()
            });
            let dims: &[usize] = if scales.len() == 1 { &[] } else { &[scales.len()] };
            let scale = net.floats(dims, scales);
            net.node("DequantizeLinear", &[&bias, &scale], &[int("axis", 0)])
        }
    };
    // The scale of the sums, and another.
    let forms: [&dyn Fn(&mut Net) -> String; 4] = [
        &float,
        &ints(&[0.01 * 0.002]),
        &ints(&[0.00003]),
        &ints(&[0.00003, 0.00002, 0.00001, 0.00001]),
    ];
    for form in forms {
        let mut net = Net::of(&IMAGES);
        let x = net.rounded("x", X);
        let w = Weights::random(
            &mut Random(3),
            &[4, 3, 3, 3],
            0,
            100,
            0.002,
            (Coding::Symmetric, Scales::One),
        );
        let w = net.weights(&w);
        let bias = form(&mut net);
        let sums = net.node("Conv", &[&x, &w, &bias], &[]);
        let y = net.rounded(&sums, Y);
        net.output(&y, FLOAT);
        let flat = net.node("Flatten", &[&x], &[]);
        let w = Weights::random(
            &mut Random(3),
            &[4, 126],
            0,
            100,
            0.002,
            (Coding::Symmetric, Scales::One),
        );
        let w = net.weights(&w);
        let sums = net.node("Gemm", &[&flat, &w, &bias], &[int("transB", 1)]);
        let y = net.rounded(&sums, Y);
        net.output(&y, FLOAT);
        assert_runs(&net, &images(2));
    }
}

/// A graph of a branch, whose nodes read values of the graph around it.
fn branch(name: &str, nodes: Vec<NodeProto>, output: &str) -> AttributeProto {
    let graph = GraphProto {
        name: Some(name.into()),
        node: nodes,
        output: vec![ValueInfoProto { name: Some(output.into()), ..ValueInfoProto::default() }],
        ..GraphProto::default()
    };
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(5),
        g: Some(graph),
        ..AttributeProto::default()
    }
}

#[test]
fn branches_read_what_steps_compute() {
    let mut net = Net::of(&[None, Some(6)]);
    let x = net.rounded("x", X);
    let sums = matmul(&mut net, &x, 6);
    let y = net.rounded(&sums, Y);
    let all = net.node("ReduceMax", &["x"], &[int("keepdims", 0)]);
    let limit = net.floats(&[], &[0.5]);
    let is_high = net.node("Greater", &[&all, &limit], &[]);
    let square = NodeProto::new("Mul", &[&y, &y], &["square"]);
    let high = NodeProto::new("Sub", &["square", &x], &["high"]);
    let low = NodeProto::new("Neg", &[&y], &["low"]);
    let branches = [
        branch("then_branch", vec![square, high], "high"),
        branch("else_branch", vec![low], "low"),
    ];
    let z = net.node("If", &[&is_high], &branches);
    let z = net.rounded(&z, X);
    net.output(&z, FLOAT);
    for most in [1.0, 0.4] {
        let (shape, Values::F32(values)) = floats(&[5, 6], 1).into_parts() else { unreachable!() };
        let values: Vec<f32> = values.iter().map(|v| v * most).collect();
        assert_runs(&net, &vec![("x".into(), Tensor::new(shape, values).unwrap())]);
    }
}

#[test]
fn an_input_may_be_an_output() {
    let mut net = Net::of(&[None, Some(6)]);
    let x = net.rounded("x", X);
    let y = net.node("Identity", &["x"], &[]);
    for name in ["x", &x, &y] {
        net.output(name, FLOAT);
    }
    let x = floats(&[5, 6], 1);
    let outputs = engine(&net.model(), 1).run(&[("x".into(), x.clone())]).unwrap();
    assert_eq!((&outputs[0].1, &outputs[2].1), (&x, &x));
}

#[test]
fn images_of_another_rank_are_refused() {
    let w = Weights::random(
        &mut Random(5),
        &[4, 1, 3, 3],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::One),
    );
    for op in ["Conv", "MaxPool", "AveragePool"] {
        let mut net = Net::new();
        net.input_of_any_shape("x");
        let x = net.rounded("x", X);
        let w = net.weights(&w);
        let y = match op {
            "Conv" => net.node(op, &[&x, &w], &[int("group", 4)]),
            _ => net.node(op, &[&x], &[ints("kernel_shape", &[3, 3])]),
        };
        let y = net.rounded(&y, Y);
        net.output(&y, FLOAT);
        let runner = engine(&net.model(), 1);
        for dims in [&[2, 4, 7][..], &[4, 7], &[7], &[2, 4, 5, 5, 5], &[2, 3, 7, 7][..]] {
            let done = runner.run(&[("x".into(), floats(dims, 1))]);
            assert!(op != "Conv" && dims.len() == 4 || done.is_err(), "{op} of {dims:?}");
        }
        assert!(runner.run(&[("x".into(), floats(&[2, 4, 7, 7], 1))]).is_ok());
    }
}

#[test]
fn random_graphs_are_within_a_few_steps() {
    // Always the same ones: how far steps add up is not known of others.
    for seed in 0..300 {
        random::check(seed);
    }
}

#[test]
fn random_products_are_within_a_few_steps() {
    for seed in 0..200 {
        rows::check(seed);
    }
}

#[test]
fn convolutions_quantized_as_they_come_are_exact() {
    (0..150).for_each(dynamic::check);
}

#[test]
fn products_that_end_in_integers_are_exact() {
    (0..300).for_each(products::check_matrices);
    (0..150).for_each(products::check_convolutions);
}

/// A convolution of 6 filters 3x3 over images of 3 channels that leaves them 6 wide.
fn dynamic_conv(seed: u64) -> dynamic::Case {
    let random = &mut Random(seed);
    dynamic::Case {
        channels: 3,
        size: [7, 6],
        filters: 6,
        group: 1,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [1; 4],
        weights: Weights::random(
            random,
            &[6, 3, 3, 3],
            0,
            100,
            0.01,
            (Coding::Affine, Scales::PerChannel),
        ),
        bias: None,
        relu: false,
        is_line: false,
    }
}

#[test]
fn bytes_of_images_quantized_as_they_come_are_shared() {
    let mut net = Net::of(&IMAGES);
    let x = net.quantized_as_it_comes("x");
    let narrow = dynamic_conv(1);
    let wide = dynamic::Case { pads: [3, 2, 0, 4], ..dynamic_conv(2) };
    for case in [&narrow, &wide] {
        let y = case.write(&mut net, &x);
        net.output(&y, FLOAT);
    }
    // Rows of the same images.
    let w =
        Weights::random(&mut Random(3), &[6, 5], 1, 100, 0.01, (Coding::Symmetric, Scales::One));
    let codes = net.codes(&w);
    let sums = net.node("MatMulInteger", &[&x[0], &codes, &x[2]], &[]);
    let sums = net.node("Cast", &[&sums], &[int("to", i64::from(FLOAT))]);
    let product = net.node("Mul", &[&sums, &x[1]], &[]);
    net.output(&product, FLOAT);
    let runner = engine(&net.model(), 2);
    assert!(runner.fusions().iter().all(|step| step.backend != Backend::Rten));
    let outputs = assert_runs(&net, &images(3));
    assert_eq!(outputs[0].1, narrow.wanted(&images(3)[0].1));
    assert_eq!(outputs[1].1, wide.wanted(&images(3)[0].1));
}

#[test]
fn floats_of_images_quantized_as_they_come_are_read_as_any_others() {
    let values: Vec<f32> = (0..6).map(|i| i as f32 / 4.0 - 1.0).collect();
    let conv = |net: &mut Net, seed: u64| {
        let x = net.quantized_as_it_comes("x");
        dynamic_conv(seed).write(net, &x)
    };
    let mut net = Net::of(&IMAGES);
    // Of the width of the images, as many as filters.
    let row = net.floats(&[6], &values);
    let sums = conv(&mut net, 1);
    let y = net.node("Add", &[&sums, &row], &[]);
    net.output(&y, FLOAT);
    let filters = net.floats(&[6, 1, 1], &values);
    let sums = conv(&mut net, 2);
    let y = net.node("Add", &[&filters, &sums], &[]);
    let y = net.node("LeakyRelu", &[&y], &[]);
    net.output(&y, FLOAT);
    let more_axes = net.floats(&[1, 1, 6, 1, 1], &values);
    let sums = conv(&mut net, 3);
    let y = net.node("Add", &[&sums, &more_axes], &[]);
    net.output(&y, FLOAT);
    let (a, b) = (conv(&mut net, 4), conv(&mut net, 5));
    let y = net.node("Add", &[&a, &b], &[]);
    net.output(&y, FLOAT);
    // Rounded, in a convolution of bytes and given out.
    let sums = conv(&mut net, 6);
    let y = net.rounded(&sums, Scale::u8(0.1, 120));
    let w = Weights::random(
        &mut Random(7),
        &[4, 6, 2, 2],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = net.weights(&w);
    let y = net.node("Conv", &[&y, &w], &[]);
    let y = net.rounded(&y, Scale::u8(0.1, 120));
    net.output(&y, FLOAT);
    assert_runs(&net, &images(2));
    let steps = engine(&net.model(), 1).fusions();
    assert!(steps.iter().all(|step| step.backend != Backend::Rten), "{steps:?}");
    assert!(steps.iter().any(|step| step.what == "ConvInteger + Add + LeakyRelu"), "{steps:?}");
}

#[test]
fn images_quantized_as_they_come_are_of_the_right_channels() {
    let mut net = Net::of(&[None, None, None, None]);
    let x = net.quantized_as_it_comes("x");
    let y = dynamic_conv(1).write(&mut net, &x);
    net.output(&y, FLOAT);
    let runner = engine(&net.model(), 2);
    for shape in [[1, 4, 7, 6], [1, 3, 0, 6]] {
        let result = runner.run(&[("x".into(), floats(&shape, 1))]);
        assert!(matches!(result, Err(RuntimeError::Run { .. })), "{result:?}");
        assert_eq!(runner.run(&images(2)).unwrap()[0].1, dynamic_conv(1).wanted(&images(2)[0].1));
    }
}
