//! Weights that stay integers where activations are floats: products and look-ups give the bits of the
//! floats that the integers stand for.

use std::num::NonZeroUsize;

use fewbits_engine::{Backend, Runner, RuntimeError, Tensor, Values};
use fewbits_ir::example::{FLOAT, INT64, Net, floats};
use fewbits_onnx::Model;
use fewbits_onnx::proto::{AttributeProto, TensorProto};
use fewbits_onnx::qweight::{QWeightWriter, ReadBy, WeightForm};
use fewbits_quant::{Bits, Granularity, QTensor, Scheme, quantize};

use crate::net::{Named, engine, float_runner};

/// Rows of the table, its width, which is the depth of the products, and their columns. As floats the
/// weights take more than a mebibyte, below which none stay integers.
const ROWS: usize = 1200;
const WIDTH: usize = 200;
const COLUMNS: usize = 70;

/// Looks rows up, multiplies them twice, adds a bias. The names of the weights are in order.
fn net() -> (Net, [String; 3]) {
    let mut net = Net::new();
    net.input("ids", INT64, &[None, Some(3)]);
    let weight = |net: &mut Net, dims: &[usize], seed| {
        let Values::F32(values) = floats(dims, seed).values().clone() else { unreachable!() };
        net.floats(dims, &values)
    };
    let table = weight(&mut net, &[ROWS, WIDTH], 1);
    let square = weight(&mut net, &[WIDTH, WIDTH], 2);
    let turned = weight(&mut net, &[COLUMNS, WIDTH], 3);
    let bias = weight(&mut net, &[COLUMNS], 4);
    let words = net.node("Gather", &[&table, "ids"], &[]);
    let product = net.node("MatMul", &[&words, &square], &[]);
    let shape = net.ints(&[-1, WIDTH as i64]);
    let rows = net.node("Reshape", &[&product, &shape], &[]);
    let transposed = AttributeProto::of_int("transB", 1);
    let y = net.node("Gemm", &[&rows, &turned, &bias], &[transposed]);
    net.output(&words, FLOAT);
    net.output(&y, FLOAT);
    (net, [table, square, turned])
}

fn ids(batch: usize) -> Named {
    let values: Vec<i64> = (0..batch * 3).map(|i| (i * 577 % ROWS) as i64 - 5).collect();
    let values = values.into_iter().map(|id| id.min(ROWS as i64 - 1)).collect::<Vec<i64>>();
    vec![("ids".into(), Tensor::new(vec![batch, 3], values).unwrap())]
}

fn group(axis: usize, size: usize) -> Granularity {
    Granularity::Group { axis, size: NonZeroUsize::new(size).unwrap() }
}

/// The model with quantized weights, and the one with the floats that they stand for.
fn models(bits: u8, affine: &[bool; 3], along: [Granularity; 3], form: WeightForm) -> [Model; 2] {
    let (net, names) = net();
    let [mut quantized, mut unpacked] = [net.model(), net.model()];
    let bits = Bits::new(bits).unwrap();
    let mut writer = QWeightWriter::new(&mut quantized, form);
    for ((name, &affine), granularity) in names.iter().zip(affine).zip(along) {
        let graph = unpacked.graph_mut();
        let tensor = graph.initializer.iter_mut().find(|t| t.name() == name).unwrap();
        let scheme = match affine {
            true => Scheme::Affine { bits, granularity },
            false => Scheme::Symmetric { bits, granularity },
        };
        let shape = tensor.shape().unwrap();
        let weight: QTensor = quantize(&tensor.floats().unwrap(), &shape, scheme).unwrap();
        *tensor = TensorProto::from_f32(name, &shape, &weight.dequantize());
        writer.replace(name, weight, ReadBy::Floats).unwrap();
    }
    writer.finish();
    [quantized, unpacked]
}

fn steps_with(model: &Model, words: &str) -> usize {
    let fusions = engine(model, 1).fusions();
    assert!(fusions.iter().all(|f| f.backend != Backend::Rten), "{fusions:?}");
    fusions.iter().filter(|f| f.what.contains(words)).count()
}

/// Compares one row, some, and many, on one thread and several.
fn check([quantized, unpacked]: [Model; 2]) {
    for batch in [1, 2, 37] {
        let ids = ids(batch);
        let wanted = engine(&unpacked, 1).run(&ids).unwrap();
        for threads in [1, 3] {
            assert_eq!(engine(&quantized, threads).run(&ids).unwrap(), wanted);
        }
    }
}

#[test]
fn products_and_look_ups_are_those_of_the_floats() {
    for bits in [2, 4, 5, 8] {
        for (affine, along) in [
            ([false; 3], [Granularity::Tensor; 3]),
            ([true; 3], [Granularity::Tensor; 3]),
            ([true, false, true], [0, 1, 0].map(|axis| Granularity::Channel { axis })),
            ([true; 3], [group(1, 32), group(0, 32), group(1, 64)]),
            ([false, true, false], [group(1, 7), group(0, 200), group(1, 19)]),
        ] {
            let models = models(bits, &affine, along, WeightForm::Newest);
            let what = format!("{bits}-bit");
            assert_eq!(steps_with(&models[0], &what), 3, "{affine:?} {along:?}");
            assert_eq!(steps_with(&models[1], "bit"), 0);
            check(models);
        }
    }
}

#[test]
fn scales_along_the_other_axis_are_unpacked() {
    let along = [group(0, 16), group(1, 16), Granularity::Channel { axis: 1 }];
    let models = models(4, &[true; 3], along, WeightForm::Newest);
    assert_eq!(steps_with(&models[0], "4-bit rows"), 1);
    assert_eq!(steps_with(&models[0], "by 4-bit weights"), 0);
    check(models);
}

#[test]
fn packed_products_of_another_runtime_are_the_same() {
    for affine in [[false; 3], [true; 3]] {
        let along = [group(1, 32), group(0, 32), group(1, 64)];
        let models = models(4, &affine, along, WeightForm::NBits);
        let operators = models[0].graph().node.iter().filter(|n| n.op_type() == "MatMulNBits");
        assert_eq!(operators.count(), 2);
        assert_eq!(steps_with(&models[0], "MatMulNBits by 4-bit weights"), 2);
        check(models);
    }
}

#[test]
fn rows_that_are_not_there_are_named() {
    let along = [group(1, 32), group(0, 32), group(1, 64)];
    let [quantized, unpacked] = models(4, &[true; 3], along, WeightForm::Newest);
    for id in [ROWS as i64, -(ROWS as i64) - 1] {
        let ids = vec![("ids".into(), Tensor::new(vec![1, 3], vec![0, id, 1]).unwrap())];
        for model in [&quantized, &unpacked] {
            let error = engine(model, 1).run(&ids).unwrap_err();
            assert!(matches!(error, RuntimeError::Run { .. }), "{error}");
            assert!(
                error.to_string().contains(&format!("row {id} of a table of {ROWS}")),
                "{error}"
            );
        }
        assert!(float_runner(&unpacked).run(&ids).is_err());
    }
}
