//! Why nodes are left to the float executor: a small graph for each reason.

use fewbits_engine::Backend;
use fewbits_ir::example::{
    Coding, FLOAT, INT8, INT32, INT64, Net, Random, Scale, Scales, UINT8, Weights, integers,
};
use fewbits_onnx::proto::{AttributeProto, NodeProto};

use crate::net::engine;

const BOOL: i32 = 9;
const X: Scale = Scale::UNSIGNED;

const IMAGES: [Option<i64>; 4] = [None, Some(3), None, None];
const ROWS: [Option<i64>; 2] = [None, Some(6)];
const WORDS: [Option<i64>; 3] = [None, Some(4), Some(6)];

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto::of_int(name, value)
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto::of_ints(name, values)
}

/// One node between bytes and bytes.
fn between_bytes(dims: &[Option<i64>], op: &str, attributes: &[AttributeProto]) -> Net {
    let mut net = Net::of(dims);
    let x = net.rounded("x", X);
    let y = net.node(op, &[&x], attributes);
    let y = net.rounded(&y, X);
    net.output(&y, FLOAT);
    net
}

/// A convolution of bytes by constant filters.
fn convolution(attributes: &[AttributeProto]) -> Net {
    let mut net = Net::of(&IMAGES);
    let x = net.rounded("x", X);
    let w = Weights::random(
        &mut Random(1),
        &[4, 3, 3, 3],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = net.weights(&w);
    let y = net.node("Conv", &[&x, &w], attributes);
    let y = net.rounded(&y, X);
    net.output(&y, FLOAT);
    net
}

/// What is made of `x`, and a step on integers behind it, so that what has kernels becomes a step.
fn linked(dims: &[Option<i64>], make: impl FnOnce(&mut Net) -> String) -> Net {
    let mut net = Net::of(dims);
    let y = make(&mut net);
    let y = net.rounded(&y, X);
    net.output(&y, FLOAT);
    net
}

/// The same of an operator on `x` and other inputs, which are fed or constant.
fn fed(
    dims: &[Option<i64>],
    op: &str,
    other: &[&[Option<i64>]],
    attributes: &[AttributeProto],
) -> Net {
    linked(dims, |net| {
        let names: Vec<String> = (0..other.len()).map(|i| format!("b{i}")).collect();
        for (name, dims) in names.iter().zip(other) {
            net.input(name, FLOAT, dims);
        }
        let names: Vec<&str> = ["x"].into_iter().chain(names.iter().map(String::as_str)).collect();
        net.node(op, &names, attributes)
    })
}

/// A convolution of values that are quantized as they come.
fn dynamic_convolution(attributes: &[AttributeProto]) -> Net {
    let mut net = Net::of(&IMAGES);
    let mut quantize = NodeProto::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]);
    quantize.name = Some("quantize".into());
    net.push(quantize);
    let w = net.fresh();
    let w = net.constant(integers(&w, &[4, 3, 3, 3], INT8, &[7; 108]));
    let sums = net.node("ConvInteger", &["q", &w, "z"], attributes);
    let scale = net.floats(&[], &[0.5]);
    let y = net.scaled(&sums, "s", &scale);
    net.output(&y, FLOAT);
    net
}

fn reasons(net: &Net) -> Vec<String> {
    let steps = engine(&net.model(), 1).fusions();
    let left = steps.into_iter().filter(|step| step.backend == Backend::Rten);
    left.flat_map(|step| step.why).collect()
}

/// Asserts that each graph leaves a node for the reason beside it, and tells of all that do not.
#[track_caller]
fn assert_reasons(cases: Vec<(Net, &str)>) {
    let wrong: Vec<String> = cases
        .iter()
        .map(|(net, wanted)| (reasons(net), wanted))
        .filter(|(told, wanted)| !told.iter().any(|reason| reason == *wanted))
        .map(|(told, wanted)| format!("{wanted}\n    but {told:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn windows_without_a_kernel() {
    let pair = [2, 2];
    let size = ints("kernel_shape", &pair);
    let by_size = [AttributeProto::of_string("auto_pad", "SAME_UPPER"), ints("strides", &pair)];
    let mut positions = Net::of(&IMAGES);
    let x = positions.rounded("x", X);
    let mut pool = NodeProto::new("MaxPool", &[&x], &["y", "at"]);
    pool.attribute = vec![size.clone()];
    positions.push(pool);
    positions.output("y", FLOAT);
    positions.output("at", INT64);
    let ceil = [size.clone(), int("ceil_mode", 1)];
    let far = [size.clone(), ints("strides", &[1, 1 << 25])];
    let padded = [[size].as_slice(), &by_size].concat();
    let by_size_told = "auto_pad is SAME_UPPER; images of declared sizes are padded by numbers";
    assert_reasons(vec![
        (between_bytes(&IMAGES, "AveragePool", &ceil), "AveragePool: ceil_mode is set"),
        (between_bytes(&IMAGES, "MaxPool", &far), "MaxPool: its window reaches over 2^24 pixels"),
        (between_bytes(&IMAGES, "MaxPool", &padded), &format!("MaxPool: {by_size_told}")),
        (positions, "MaxPool: it also gives positions"),
        (convolution(&by_size), &format!("Conv: {by_size_told}")),
    ]);
}

#[test]
fn the_order_of_positions_that_nobody_asks_for() {
    let order = [ints("kernel_shape", &[2, 2]), int("storage_order", 1)];
    for net in [between_bytes(&IMAGES, "MaxPool", &order), fed(&IMAGES, "MaxPool", &[], &order)] {
        assert_eq!(reasons(&net), [""; 0]);
    }
}

#[test]
fn convolutions_by_what_is_not_constant() {
    let weights = [Some(4), Some(3), Some(3), Some(3)];
    let mut biased = Net::of(&IMAGES);
    biased.input("b", FLOAT, &[Some(4)]);
    let x = biased.rounded("x", X);
    let w = Weights::random(
        &mut Random(1),
        &[4, 3, 3, 3],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = biased.weights(&w);
    let y = biased.node("Conv", &[&x, &w, "b"], &[]);
    let y = biased.rounded(&y, X);
    biased.output(&y, FLOAT);
    assert_reasons(vec![
        (fed(&IMAGES, "Conv", &[&weights], &[]), "Conv: its weights are not constant"),
        (biased, "Conv: its bias is not constant, or not one number for each filter"),
    ]);
}

#[test]
fn products_in_another_form() {
    let square = [Some(6), Some(6)];
    let gemm = |attribute: AttributeProto| {
        linked(&ROWS, |net| {
            let w = net.floats(&[6, 6], &[0.1; 36]);
            net.node("Gemm", &["x", &w], &[attribute])
        })
    };
    let mut turned = Net::of(&[Some(6), None]);
    let w = turned.floats(&[6, 6], &[0.1; 36]);
    let y = turned.node("Gemm", &["x", &w], &[int("transA", 1)]);
    let y = turned.rounded(&y, X);
    turned.output(&y, FLOAT);
    let mut unknown = Net::new();
    unknown.input_of_any_shape("x");
    let w = unknown.floats(&[6, 6], &[0.1; 36]);
    let y = unknown.node("MatMul", &["x", &w], &[]);
    let y = unknown.rounded(&y, X);
    unknown.output(&y, FLOAT);
    assert_reasons(vec![
        (gemm(AttributeProto::of_float("alpha", 2.0)), "Gemm: its alpha or beta is not 1"),
        (turned, "Gemm: transA is set"),
        (fed(&ROWS, "Gemm", &[&square], &[]), "Gemm: its second factor is no constant matrix"),
        (unknown, "MatMul: a factor is a vector, or of unknown rank"),
    ]);
}

#[test]
fn floats_in_another_form() {
    let row = [Some(6)];
    let of_any_rank = || {
        let mut net = Net::new();
        net.input_of_any_shape("x");
        net
    };
    let mut pool = of_any_rank();
    let y = pool.node("GlobalAveragePool", &["x"], &[]);
    let y = pool.rounded(&y, X);
    pool.output(&y, FLOAT);
    let mut reduced = of_any_rank();
    let y = reduced.node("ReduceMean", &["x"], &[ints("axes", &[1])]);
    let y = reduced.rounded(&y, X);
    reduced.output(&y, FLOAT);
    let reshape = linked(&ROWS, |net| {
        net.input("to", INT64, &[Some(2)]);
        net.node("Reshape", &["x", "to"], &[])
    });
    let gather = |axis: i64| {
        linked(&ROWS, |net| {
            net.input("at", INT64, &[None]);
            net.node("Gather", &["x", "at"], &[int("axis", axis)])
        })
    };
    assert_reasons(vec![
        (pool, "GlobalAveragePool: the number of its spatial axes is not known"),
        (reduced, "ReduceMean: the rank of what it reduces is not known"),
        (
            fed(&WORDS, "ReduceMean", &[], &[ints("axes", &[1])]),
            "ReduceMean: it reduces other axes than the last",
        ),
        (
            fed(&WORDS, "Softmax", &[], &[int("axis", 1)]),
            "Softmax: its axis is not known to be the last",
        ),
        (
            fed(&WORDS, "LayerNormalization", &[&row], &[]),
            "LayerNormalization: its scale or bias is not constant",
        ),
        (fed(&ROWS, "Transpose", &[], &[]), "Transpose: it has no perm"),
        (reshape, "Reshape: the new shape is not constant"),
        (fed(&ROWS, "Clip", &[&[]], &[]), "Clip: its bounds are not constant"),
        (gather(0), "Gather: its table is no constant matrix"),
        (gather(1), "Gather: it looks up along another axis than the first"),
        (fed(&ROWS, "Sin", &[], &[]), "Sin: the operator has no integer or float kernel here"),
    ]);
}

#[test]
fn values_of_another_type() {
    let mut compared = Net::of(&ROWS);
    compared.input("b", FLOAT, &ROWS);
    let y = compared.node("Less", &["x", "b"], &[]);
    compared.output(&y, BOOL);
    let mut largest = Net::of(&WORDS);
    let y = largest.node("ArgMax", &["x"], &[int("axis", 1)]);
    largest.output(&y, INT64);
    let mut last = Net::of(&WORDS);
    let y = last.node("ArgMax", &["x"], &[int("axis", 2), int("select_last_index", 1)]);
    last.output(&y, INT64);
    assert_reasons(vec![
        (compared, "Less: bool values have no kernel here"),
        (largest, "ArgMax: its axis is not known to be the last"),
        (last, "ArgMax: select_last_index is set"),
    ]);
}

#[test]
fn a_comparison_is_no_step_without_the_cast_behind_it() {
    let mut net = Net::of(&ROWS);
    let zero = net.floats(&[], &[0.0]);
    let above = net.node("Greater", &["x", &zero], &[]);
    let y = net.node("Not", &[&above], &[]);
    net.output(&y, BOOL);
    let told = "Greater: bool values have no kernel here";
    assert_reasons(vec![(net, told)]);
}

#[test]
fn integers_in_another_form() {
    let mut channels = Net::of(&ROWS);
    let (scales, axis) = (channels.floats(&[6], &[0.1; 6]), [int("axis", 1)]);
    let q = channels.node("QuantizeLinear", &["x", &scales], &axis);
    let y = channels.node("DequantizeLinear", &[&q, &scales], &axis);
    channels.output(&y, FLOAT);
    let mut given = Net::new();
    given.input("q", UINT8, &ROWS);
    let y = given.dequantize("q", X);
    given.output(&y, FLOAT);
    let one_scale = "its integers do not have 8 bits with one constant scale";
    assert_reasons(vec![
        (channels, &format!("DequantizeLinear: {one_scale}")),
        (given, "DequantizeLinear: the integers before it are an input, or constant"),
    ]);
}

#[test]
fn what_is_quantized_as_it_comes_and_no_step_with_what_reads_it() {
    let mut alone = Net::of(&ROWS);
    alone.push(NodeProto::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]));
    alone.output("q", UINT8);
    let by_size = [AttributeProto::of_string("auto_pad", "SAME_UPPER"), ints("strides", &[2, 2])];
    let conv = dynamic_convolution(&by_size);
    let node = conv.model().graph().node[1].name().to_string();
    let told = format!(
        "DynamicQuantizeLinear: '{node}' behind it: auto_pad is SAME_UPPER; images of declared \
         sizes are padded by numbers"
    );
    assert_reasons(vec![
        (
            alone,
            "DynamicQuantizeLinear: it is not part of DynamicQuantizeLinear, MatMulInteger or \
             ConvInteger, Cast and Mul by both scales with constant weights",
        ),
        (conv, &told),
    ]);
}

#[test]
fn nodes_apart_from_integers() {
    let apart = |quantized: bool| {
        let mut net = Net::of(&ROWS);
        let y = net.node("Relu", &["x"], &[]);
        let y = net.node("Sin", &[&y], &[]);
        let y = if quantized { net.rounded(&y, X) } else { y };
        net.output(&y, FLOAT);
        net
    };
    // A product of floats whose weights have a scale for each row.
    let mut scaled = Net::of(&ROWS);
    let w = Weights::random(
        &mut Random(1),
        &[6, 6],
        0,
        100,
        0.002,
        (Coding::Symmetric, Scales::PerChannel),
    );
    let w = scaled.weights(&w);
    let y = scaled.node("MatMul", &["x", &w], &[]);
    let y = scaled.node("Sin", &[&y], &[]);
    scaled.output(&y, FLOAT);
    let rows_told = "MatMul: weights of 8 bits with scales along axis 0 are multiplied as floats, \
                     and no step on integers is linked to it";
    let mut product = Net::of(&ROWS);
    let w = product.floats(&[6, 6], &[0.1; 36]);
    let y = product.node("MatMul", &["x", &w], &[]);
    let y = product.node("Sin", &[&y], &[]);
    product.output(&y, FLOAT);
    assert_reasons(vec![
        (scaled, rows_told),
        (product, "MatMul: no activation in the model is quantized"),
        (apart(false), "Relu: no activation in the model is quantized"),
        (apart(true), "Relu: no step on integers is linked to it by nodes that have kernels"),
    ]);
}

#[test]
fn what_is_computed_or_of_another_type() {
    let gemm = linked(&ROWS, |net| {
        net.input("b", FLOAT, &[Some(6)]);
        let w = net.floats(&[6, 6], &[0.1; 36]);
        net.node("Gemm", &["x", &w, "b"], &[])
    });
    let gather = linked(&ROWS, |net| {
        net.input("at", INT32, &[None]);
        let table = net.floats(&[6, 6], &[0.1; 36]);
        net.node("Gather", &[&table, "at"], &[])
    });
    assert_reasons(vec![
        (gemm, "Gemm: its bias is computed"),
        (gather, "Gather: the places that it looks up are no int64"),
    ]);
}
