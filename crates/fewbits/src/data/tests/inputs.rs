//! Which array feeds which input, and how it is made to fit: names, labels, shapes, pixels.

use super::*;

fn three_rows() -> Vec<u8> {
    npy_f32("(3, 2)", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
}

fn three_labels() -> Vec<u8> {
    npy_i64("(3,)", &[7, 8, 9])
}

#[test]
fn stored_and_deflated_archives_are_read() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let file = npz(method, &[("x", three_rows()), ("y", three_labels())]);
        let data = read("npz", &file, &floats(2)).unwrap();
        assert_eq!(data.rows(), 3);
        check_first(&data, &[3, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(labels(&data), &LabelValues::Class(vec![7, 8, 9]));
    }
}

#[test]
fn batches_cover_all_rows_once() {
    let data = read("npy", &three_rows(), &floats(2)).unwrap();
    assert_eq!(data.batches(2).collect::<Vec<_>>(), [0..2, 2..3]);
    assert_eq!(data.batches(9).next(), Some(0..3));
    assert_eq!(data.batches(0).count(), 3);
    let (name, last) = data.batch(2..9).remove(0);
    assert_eq!((name.as_str(), last), ("x", Tensor::new(vec![1, 2], vec![5f32, 6.0]).unwrap()));
    assert_eq!(data.labels(), None);
}

#[test]
fn a_sample_is_spread_over_all_rows() {
    // Floats, and bytes that become floats when they are asked for.
    let bytes: Vec<u8> = (0..20).collect();
    let kept: Vec<f32> = (0u8..20).map(f32::from).collect();
    for file in [npy_f32("(10, 2)", &kept), npy("|u1", "False", "(10, 2)", &bytes)] {
        let data = read("npy", &file, &floats(2)).unwrap();
        let rows_of = |wanted: usize| -> Vec<f32> {
            let sample = data.sample(wanted);
            let Values::F32(values) = first(&sample).into_parts().1 else { unreachable!() };
            assert_eq!(values.len(), 2 * sample.rows());
            assert!(values.chunks(2).all(|row| row[1] == row[0] + 1.0));
            values.chunks(2).map(|row| row[0] / 2.0).collect()
        };
        assert_eq!(rows_of(4), [0.0, 2.0, 5.0, 7.0]);
        assert_eq!(rows_of(0), [0.0]);
        assert_eq!(rows_of(99), (0u8..10).map(f32::from).collect::<Vec<_>>());
    }
    let labelled = stored(&[("x", three_rows()), ("y", three_labels())]);
    let data = read("npz", &labelled, &floats(2)).unwrap();
    assert_eq!(data.sample(3).labels(), data.labels());
    assert_eq!(data.sample(1).labels(), data.labels().map(|l| l.slice_rows(0..1)).as_ref());
}

#[test]
fn an_only_input_is_found_by_its_name_or_x_or_alone() {
    let other = || npy_f32("(3, 2)", &[0.0; 6]);
    let found = [
        vec![("x", three_rows()), ("X", other()), ("y", three_labels())],
        vec![("X", three_rows()), ("other", other()), ("y", three_labels())],
        vec![("y", three_labels()), ("images", three_rows())],
        vec![("images", three_rows())],
    ];
    for arrays in found {
        let data = read("npz", &stored(&arrays), &floats(2)).unwrap();
        check_first(&data, &[3, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
    let unclear = stored(&[("a", three_rows()), ("b", other()), ("y", three_labels())]);
    let error = refused(
        read("npz", &unclear, &floats(2)),
        &["the model's input 'x'", "the arrays 'a', 'b', 'y'", "rename one to 'x' or to 'X'"],
    );
    assert!(matches!(error, DataError::MissingInput { .. }));
    refused(read("npz", &stored(&[]), &floats(2)), &["no arrays"]);
}

#[test]
fn several_inputs_are_found_by_their_names() {
    let inputs = [
        spec("ids", DataType::Int64, &[None, Some(2)]),
        spec("city", DataType::String, &[None, Some(1)]),
    ];
    let city = npy("|S2", "False", "(3, 1)", b"a\0b\0cd");
    let file = stored(&[("city", city.clone()), ("ids", three_rows()), ("y", three_labels())]);
    let data = read("npz", &file, &inputs).unwrap();
    // In the order of the inputs, not the file's.
    let batch = data.batch(1..3);
    let ids = Tensor::new(vec![2, 2], vec![3i64, 4, 5, 6]).unwrap();
    let cities = Tensor::new(vec![2, 1], words(&["b", "cd"])).unwrap();
    assert_eq!(batch, [("ids".to_string(), ids), ("city".to_string(), cities)]);
    refused(read("npz", &stored(&[("city", city)]), &inputs), &["input 'ids'", "the array 'city'"]);
    refused(read("npy", &three_rows(), &inputs), &["input 'city'", "one .npz file"]);
}

#[test]
fn labels_are_found_by_name_and_by_option() {
    let of = |name: &str, options: &DataOptions| {
        let file = stored(&[("x", three_rows()), (name, three_labels())]);
        read_with("npz", &file, &floats(2), options)
    };
    for name in LABEL_NAMES {
        let data = of(name, &DataOptions::default()).unwrap();
        assert_eq!(labels(&data), &LabelValues::Class(vec![7, 8, 9]), "{name}");
    }
    assert_eq!(of("species", &DataOptions::default()).unwrap().labels(), None);
    let asked = of("species", &label("species")).unwrap();
    assert_eq!(labels(&asked), &LabelValues::Class(vec![7, 8, 9]));
    let missing = refused(of("species", &label("kind")), &["'kind'", "'x', 'species'", "label"]);
    assert!(matches!(missing, DataError::MissingLabel { .. }));
    refused(read_with("npy", &three_rows(), &floats(2), &label("y")), &["no label 'y'"]);
    // An input that is called as labels usually are is no label.
    let inputs = [spec("target", DataType::Float, &[None, Some(2)])];
    let file = stored(&[("target", three_rows())]);
    assert_eq!(read("npz", &file, &inputs).unwrap().labels(), None);
}

#[test]
fn labels_keep_their_type_and_shape() {
    let of =
        |array: Vec<u8>| read("npz", &stored(&[("x", three_rows()), ("y", array)]), &floats(2));
    let float = of(npy_f32("(3, 1)", &[0.5, 1.0, -2.0])).unwrap();
    assert_eq!(labels(&float), &LabelValues::Number(vec![0.5, 1.0, -2.0]));
    assert_eq!(float.labels().unwrap().shape(), [3]);
    let text = of(npy("|S1", "False", "(3,)", b"abc")).unwrap();
    assert_eq!(labels(&text), &LabelValues::Text(words(&["a", "b", "c"])));
    let truth = of(npy("|b1", "False", "(3,)", &[1, 0, 1])).unwrap();
    assert_eq!(labels(&truth), &LabelValues::Class(vec![1, 0, 1]));
    let tokens = of(npy("|u1", "False", "(3, 2)", &[1, 2, 3, 4, 5, 6])).unwrap();
    let tokens = tokens.labels().unwrap();
    assert_eq!((tokens.shape(), tokens.rows()), ([3, 2].as_slice(), 3));
    let cut = Labels::new(vec![1, 2], LabelValues::Class(vec![3, 4])).unwrap();
    assert_eq!(tokens.slice_rows(1..2), cut);
    assert_eq!(tokens.slice_rows(5..9).rows(), 0);
    let missing = of(npy_f32("(3, 2)", &[0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0]));
    let error = refused(missing, &["label 'y'", "at row 2", "drop the rows"]);
    assert!(matches!(error, DataError::LabelMissing { .. }));
    assert_eq!(Labels::new(vec![2], LabelValues::Class(vec![1])), None);
    assert_eq!(Labels::new(vec![usize::MAX, 2], LabelValues::Class(vec![1])), None);
}

#[test]
fn a_limit_keeps_the_first_rows_of_everything() {
    let file = stored(&[("x", three_rows()), ("y", three_labels())]);
    for rows in [1, 2, 3, 9] {
        let data = read_with("npz", &file, &floats(2), &limit(rows)).unwrap();
        assert_eq!((data.rows(), data.labels().unwrap().rows()), (rows.min(3), rows.min(3)));
        assert_eq!(first(&data).shape(), [rows.min(3), 2]);
    }
    refused(read_with("npz", &file, &floats(2), &limit(0)), &["no data"]);
    // A label past the limit may be missing.
    let late = npy_f32("(3,)", &[0.0, 1.0, f32::NAN]);
    let file = stored(&[("x", three_rows()), ("y", late)]);
    assert_eq!(read_with("npz", &file, &floats(2), &limit(2)).unwrap().rows(), 2);
}

#[test]
fn arrays_of_other_lengths_are_refused_even_past_the_limit() {
    let file = stored(&[("x", three_rows()), ("y", npy_i64("(2,)", &[1, 2]))]);
    for options in [DataOptions::default(), limit(1)] {
        let read = read_with("npz", &file, &floats(2), &options);
        let error = refused(read, &["'x' has 3 rows but 'y' has 2"]);
        assert!(matches!(error, DataError::Rows { .. }));
    }
}

#[test]
fn no_rows_are_refused() {
    for (extension, file) in [
        ("npy", npy_f32("(0, 2)", &[])),
        ("npz", stored(&[("x", npy_f32("(0, 2)", &[]))])),
        ("npz", stored(&[("x", npy_f32("(3, 0)", &[]))])),
    ] {
        let error = refused(read(extension, &file, &floats(2)), &["holds no data"]);
        assert!(matches!(error, DataError::Empty { .. }));
    }
}

#[test]
fn other_shapes_are_refused_with_what_to_do() {
    let error = refused(
        read("npy", &three_rows(), &floats(4)),
        &["shape [3, 2]", "shape [?, 4]", "trained on 4 features and the array has 2"],
    );
    assert!(matches!(error, DataError::Shape { .. }));
    let image = |shape| {
        read(
            "npy",
            &npy("|u1", "False", shape, &[0; 48]),
            &[spec("x", DataType::Float, &[None, Some(3), Some(4), Some(4)])],
        )
    };
    refused(image("(1, 4, 4, 3)"), &["shape [?, 3, 4, 4]", "transpose the array"]);
    refused(image("(1, 48)"), &["reshape the array"]);
    assert_eq!(first(&image("(1, 3, 4, 4)").unwrap()).shape(), [1, 3, 4, 4]);
    // Rows that the model fixes are the runner's to batch.
    let fixed = [spec("x", DataType::Float, &[Some(1), Some(2)])];
    assert_eq!(read("npy", &three_rows(), &fixed).unwrap().rows(), 3);
    let unknown = [ValueSpec { dims: None, ..floats(2).remove(0) }];
    assert_eq!(first(&read("npy", &three_rows(), &unknown).unwrap()).shape(), [3, 2]);
}

#[test]
fn a_missing_channel_axis_is_added() {
    let pixels: Vec<u8> = (0..8).collect();
    let file = npy("|u1", "False", "(2, 2, 2)", &pixels);
    for (dims, shape) in [
        ([None, Some(1), Some(2), Some(2)], [2, 1, 2, 2]),
        ([None, Some(2), Some(2), Some(1)], [2, 2, 2, 1]),
        ([None, Some(1), None, None], [2, 1, 2, 2]),
    ] {
        let data = read("npy", &file, &[spec("x", DataType::Float, &dims)]).unwrap();
        let expected: Vec<f32> = pixels.iter().map(|&x| f32::from(x)).collect();
        check_first(&data, &shape, expected);
        assert_eq!(data.batch(1..2)[0].1.shape()[0], 1);
    }
    let colour = [spec("x", DataType::Float, &[None, Some(3), Some(2), Some(2)])];
    refused(read("npy", &file, &colour), &["reshape the array"]);
}

/// (x / 255 − mean) / std, as torchvision's `Normalize` after `ToTensor` has it.
fn normalized(x: f64, mean: f64, std: f64) -> f32 {
    ((x / 255.0 - mean) / std) as f32
}

#[test]
fn integers_of_every_width_are_normalized() {
    let inputs = |data_type| [spec("x", data_type, &[None, Some(2)])];
    let expected = [0.0, 255.0, 51.0, 102.0].map(|x| normalized(x, 0.25, 0.5));
    let options = normalize("0.25,0.5");
    let wide: Vec<i64> = vec![0, 255, 51, 102];
    for file in [
        npy("|u1", "False", "(2, 2)", &[0, 255, 51, 102]),
        npy("<i4", "False", "(2, 2)", &bytes_of(&wide, |x| (x as i32).to_le_bytes())),
        npy_i64("(2, 2)", &wide),
    ] {
        let data = read_with("npy", &file, &inputs(DataType::Float), &options).unwrap();
        check_first(&data, &[2, 2], expected.to_vec());
        let last = data.batch(1..2).remove(0).1;
        assert_eq!(last, Tensor::new(vec![1, 2], expected[2..].to_vec()).unwrap());
        let doubles = read_with("npy", &file, &inputs(DataType::Double), &options).unwrap();
        check_first(&doubles, &[2, 2], expected.map(f64::from).to_vec());
        // A model that takes integers takes them as they are.
        let ids = read_with("npy", &file, &inputs(DataType::Int64), &options).unwrap();
        check_first(&ids, &[2, 2], wide.clone());
    }
    let floats_file = read_with("npy", &three_rows(), &floats(2), &options);
    refused(floats_file, &["normalize", "'data' holds floats"]);
}

#[test]
fn each_channel_has_its_own_normalization() {
    let pixels: Vec<u8> = (0..24).map(|x| x * 10).collect();
    let options = normalize("0.1,0.2,0.3/0.5,0.6,0.7");
    let of = |x: u8, channel: usize| {
        let (mean, std) = [(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)][channel];
        normalized(f64::from(x), mean, std)
    };
    let first_axis = ([None, Some(3), Some(2), Some(2)], "(2, 3, 2, 2)", 4);
    let last_axis = ([None, Some(2), Some(2), Some(3)], "(2, 2, 2, 3)", 1);
    for (dims, shape, run) in [first_axis, last_axis] {
        let expected: Vec<f32> =
            pixels.iter().enumerate().map(|(i, &x)| of(x, i / run % 3)).collect();
        let wide: Vec<i32> = pixels.iter().map(|&x| i32::from(x)).collect();
        for file in [
            npy("|u1", "False", shape, &pixels),
            npy("<i4", "False", shape, &bytes_of(&wide, i32::to_le_bytes)),
        ] {
            let inputs = [spec("x", DataType::Float, &dims)];
            let data = read_with("npy", &file, &inputs, &options).unwrap();
            let all = first(&data).into_parts().1;
            assert_eq!(all, Values::F32(expected.clone()), "{shape}");
            let second = data.batch(1..2).remove(0).1.into_parts().1;
            assert_eq!(second, Values::F32(expected[12..].to_vec()), "{shape}");
        }
    }
    let grey = npy("|u1", "False", "(2, 2)", &[0; 4]);
    let read = read_with("npy", &grey, &floats(2), &options);
    refused(read, &["3 channels are given but 'data' of shape [2, 2]"]);
}

#[test]
fn a_normalization_is_read_as_it_is_written() {
    for (text, channels) in [
        ("0.286,0.353", vec![(0.286, 0.353)]),
        ("0,1", vec![(0.0, 1.0)]),
        (
            "0.485,0.456,0.406/0.229,0.224,0.225",
            vec![(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)],
        ),
    ] {
        let read: Normalize = text.parse().unwrap();
        assert_eq!(read.channels(), channels);
        assert_eq!(read.to_string(), text);
        assert_eq!(read.to_string().parse::<Normalize>().unwrap(), read);
    }
    let spaced: Normalize = " 0.5 , 0.25 ".parse().unwrap();
    assert_eq!(spaced.channels(), [(0.5, 0.25)]);
    assert_eq!("0.5/0.25".parse::<Normalize>().unwrap(), spaced);
    for bad in ["", "1", "1,2,3", "a,b", "1,2/3", "1,2/3,4,5", "1,2/3/4"] {
        let error = bad.parse::<Normalize>().unwrap_err().to_string();
        assert!(error.contains("is not MEAN,STD"), "{bad}: {error}");
    }
    for bad in ["0,0", "0,-1", "0,nan", "inf,1", "0,inf"] {
        let error = bad.parse::<Normalize>().unwrap_err().to_string();
        assert!(error.contains("deviations positive"), "{bad}: {error}");
    }
    assert!(Normalize::new(vec![]).is_err());
}
