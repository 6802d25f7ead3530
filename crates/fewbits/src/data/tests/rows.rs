//! Where the rows of arrays lie, and arrays that have none.

use super::*;

/// An input whose rows lie along `row_axis`.
fn along(name: &str, dims: &[Option<usize>], row_axis: Option<usize>) -> ValueSpec {
    ValueSpec { row_axis, ..spec(name, DataType::Float, dims) }
}

fn one_call() -> DataOptions {
    DataOptions { arrays: Arrays::OneCall, ..DataOptions::default() }
}

fn counted(shape: &str, count: usize) -> Vec<u8> {
    npy_f32(shape, &(0..count).map(|i| i as f32).collect::<Vec<_>>())
}

fn shapes(data: &Dataset, rows: std::ops::Range<usize>) -> Vec<Vec<usize>> {
    data.batch(rows).iter().map(|(_, tensor)| tensor.shape().to_vec()).collect()
}

#[test]
fn the_arrays_of_one_call_are_fed_as_they_are() {
    let inputs = [
        along("x", &[None, Some(2)], Some(0)),
        along("h", &[Some(2), None, Some(1)], Some(1)),
        along("scale", &[], None),
        along("none", &[None], Some(0)),
    ];
    let file = stored(&[
        ("x", counted("(3, 2)", 6)),
        ("h", counted("(2, 5, 1)", 10)),
        ("scale", npy_f32("()", &[4.0])),
        ("none", npy_f32("(0,)", &[])),
        // No label is looked for, nor do rows have to fit one.
        ("y", npy_i64("(1,)", &[1])),
    ]);
    let data = read_with("npz", &file, &inputs, &one_call()).unwrap();
    assert!(data.is_one_call() && data.labels().is_none());
    assert_eq!(data.rows(), 1);
    assert_eq!(shapes(&data, 0..1), [vec![3, 2], vec![2, 5, 1], vec![], vec![0]]);
    let transposed = stored(&[("x", counted("(2, 3)", 6))]);
    let refusal = read_with("npz", &transposed, &inputs[..1], &one_call());
    refused(refusal, &["shape [2, 3]", "as the model takes it"]);
}

#[test]
fn rows_lie_along_the_axis_that_the_batch_has() {
    let inputs = [
        along("x", &[None, Some(1)], Some(0)),
        along("h", &[Some(2), None, Some(1)], Some(1)),
        along("fixed", &[Some(2)], None),
    ];
    let file = stored(&[
        ("x", counted("(3, 1)", 3)),
        ("h", counted("(2, 3, 1)", 6)),
        ("fixed", counted("(2,)", 2)),
    ]);
    let data = read("npz", &file, &inputs).unwrap();
    assert_eq!((data.rows(), data.most_rows_a_call()), (3, None));
    let batch = data.batch(1..3);
    assert_eq!(batch[1].1, Tensor::new(vec![2, 2, 1], vec![1f32, 2.0, 4.0, 5.0]).unwrap());
    assert_eq!(batch[2].1.values(), &vec![0f32, 1.0].into());
    assert_eq!(shapes(&data.sample(2), 0..2), [vec![2, 1], vec![2, 2, 1], vec![2]]);
    let limited = read_with("npz", &file, &inputs, &limit(2)).unwrap();
    assert_eq!(shapes(&limited, 0..9), [vec![2, 1], vec![2, 2, 1], vec![2]]);
    let fewer = stored(&[
        ("x", counted("(3, 1)", 3)),
        ("h", counted("(2, 2, 1)", 4)),
        ("fixed", counted("(2,)", 2)),
    ]);
    refused(read("npz", &fewer, &inputs), &["'x' has 3 rows but 'h' has 2", "batch whole"]);
}

#[test]
fn a_row_may_be_all_that_a_call_takes() {
    let inputs = [
        along("x", &[Some(1), Some(2)], Some(0)),
        along("h", &[Some(2), Some(1), Some(1)], None),
        along("rate", &[], None),
    ];
    let file = stored(&[
        ("x", counted("(3, 2)", 6)),
        ("h", counted("(3, 2, 1, 1)", 6)),
        ("rate", counted("(3,)", 3)),
    ]);
    let data = read("npz", &file, &inputs).unwrap();
    assert_eq!((data.rows(), data.most_rows_a_call()), (3, Some(1)));
    let batch = data.batch(1..2);
    assert_eq!(batch[1].1, Tensor::new(vec![2, 1, 1], vec![2f32, 3.0]).unwrap());
    assert_eq!(batch[2].1, Tensor::new(vec![], vec![1f32]).unwrap());
    assert_eq!(shapes(&data.sample(2), 1..2), [vec![1, 2], vec![2, 1, 1], vec![]]);
    // A state of one example whose batch axis is not the first, saved with the examples in front.
    let state = [along("h", &[Some(1), None, Some(2)], Some(1))];
    let data = read("npy", &counted("(3, 1, 2)", 6), &state).unwrap();
    assert_eq!(shapes(&data, 2..3), [[1, 1, 2]]);
}

#[test]
fn inputs_of_one_value_are_given_by_options() {
    let inputs = [
        along("rate", &[], None),
        along("x", &[None, Some(1)], Some(0)),
        along("level", &[None, Some(2)], Some(0)),
    ];
    let constants =
        vec!["rate=16000".parse::<Constant>().unwrap(), "level=-0.5".parse::<Constant>().unwrap()];
    let options = DataOptions { constants, ..DataOptions::default() };
    let data = read_with("npz", &stored(&[("x", counted("(3, 1)", 3))]), &inputs, &options);
    let data = data.unwrap();
    let batch = data.batch(1..3);
    assert_eq!(batch[0], ("rate".into(), Tensor::new(vec![], vec![16000f32]).unwrap()));
    assert_eq!(batch[2].1, Tensor::new(vec![2, 2], vec![-0.5f32; 4]).unwrap());
    assert_eq!(data.rows(), 3);
    assert_eq!(data.sample(1).batch(0..1)[0].1.values(), &vec![16000f32].into());

    let refusal = |text: &str, inputs: &[ValueSpec]| {
        let options = DataOptions { constants: vec![text.parse().unwrap()], ..options.clone() };
        let one = npy_f32("(1, 1)", &[0.0]);
        read_with("npz", &stored(&[("x", one)]), inputs, &options).unwrap_err().to_string()
    };
    assert_eq!(
        refusal("sr=1", &inputs),
        "input sr: the model has no such input; it has rate, x, level"
    );
    let count = ValueSpec { row_axis: None, ..spec("n", DataType::Int64, &[]) };
    assert!(refusal("n=0.5", &[count]).contains("cannot be an element of type Int64"));
    for text in ["rate", "rate=", "rate=many"] {
        assert!(text.parse::<Constant>().is_err());
    }
}
