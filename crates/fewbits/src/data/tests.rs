use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use fewbits_onnx::proto::DataType;
use fewbits_runtime::Values;
use proptest::prelude::*;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

/// A version 1 header as `numpy.save` writes it, then the payload.
fn npy(descr: &str, order: &str, shape: &str, payload: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes.extend(payload);
    bytes
}

fn floats(shape: &str, values: &[f32]) -> Vec<u8> {
    npy("<f4", "False", shape, &values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

fn longs(shape: &str, values: &[i64]) -> Vec<u8> {
    npy("<i8", "False", shape, &values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

fn npz(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn stored(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    npz(CompressionMethod::Stored, arrays)
}

fn input(name: &str, data_type: DataType, dims: &[Option<i64>]) -> InputSpec {
    InputSpec { name: name.to_string(), data_type, dims: Some(dims.to_vec()) }
}

fn pair() -> Vec<InputSpec> {
    vec![input("X", DataType::Float, &[None, Some(2)])]
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn read_with(
    name: &str,
    bytes: &[u8],
    inputs: &[InputSpec],
    options: &DataOptions,
) -> Result<Dataset, DataError> {
    let folder = Folder::new();
    Dataset::read(&folder.file(name, bytes), inputs, options)
}

fn read(name: &str, bytes: &[u8], inputs: &[InputSpec]) -> Result<Dataset, DataError> {
    read_with(name, bytes, inputs, &DataOptions::default())
}

/// The message, without the folder, checked to be one line.
fn refusal(name: &str, bytes: &[u8], inputs: &[InputSpec], options: &DataOptions) -> String {
    let error = read_with(name, bytes, inputs, options).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error[error.find(name).unwrap_or(0)..].to_string()
}

fn with_label(label: &str) -> DataOptions {
    DataOptions { label: Some(label.to_string()), ..DataOptions::default() }
}

fn f32s(data: &Dataset) -> Vec<f32> {
    match data.batch(0..data.rows())[0].1.values() {
        Values::F32(v) => v.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn arrays_are_found_by_input_name_by_x_and_as_the_only_one() {
    let x = || floats("(2, 2)", &[1.0, 2.0, 3.0, 4.0]);
    let y = || longs("(2,)", &[7, 8]);
    for name in ["X", "only"] {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let data =
                read("a.npz", &npz(method, &[(name, x()), ("labels", y())]), &pair()).unwrap();
            assert_eq!(f32s(&data), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(data.labels().unwrap().values(), &LabelValues::Class(vec![7, 8]));
        }
    }
    let message = refusal(
        "a.npz",
        &stored(&[("a", x()), ("b", x()), ("y", y())]),
        &pair(),
        &DataOptions::default(),
    );
    assert_eq!(
        message,
        "a.npz: nothing for the model's input 'X'; the file has the arrays 'a', 'b', 'y': rename one to 'X'"
    );
    assert!(read("a.npz", &stored(&[("X", x())]), &pair()).unwrap().labels().is_none());
}

#[test]
fn every_element_type_is_read_in_both_byte_orders() {
    let one = |descr: &str, payload: &[u8]| {
        let inputs = [input("X", DataType::Float, &[None])];
        f32s(&read("a.npy", &npy(descr, "False", "(1,)", payload), &inputs).unwrap())[0]
    };
    let cases: [(&str, &[u8], f32); 14] = [
        ("|b1", &[1], 1.0),
        ("|i1", &[0xff], -1.0),
        ("|u1", &[0xff], 255.0),
        ("<i2", &[0xfe, 0xff], -2.0),
        (">i2", &[0xff, 0xfe], -2.0),
        ("<u2", &[0xff, 0xff], 65535.0),
        (">i4", &[0, 0, 1, 0], 256.0),
        ("<u4", &[0, 0, 0, 0x80], 2147483648.0),
        (">i8", &[0, 0, 0, 0, 0, 0, 0, 3], 3.0),
        ("<u8", &[3, 0, 0, 0, 0, 0, 0, 0], 3.0),
        ("<f2", &[0, 0x3e], 1.5),
        (">f4", &[0x3f, 0xc0, 0, 0], 1.5),
        ("<f8", &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], 1.5),
        (">f8", &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0], 1.5),
    ];
    for (descr, payload, value) in cases {
        assert_eq!(one(descr, payload), value, "{descr}");
    }
}

#[test]
fn strings_become_text_labels() {
    let unicode: Vec<u8> =
        ['a', 'b', 'é', '\0'].iter().flat_map(|&c| (c as u32).to_le_bytes()).collect();
    for (descr, payload, texts) in
        [("<U2", unicode, ["ab", "é"]), ("|S2", b"abc\0".to_vec(), ["ab", "c"])]
    {
        let arrays =
            [("X", floats("(2, 2)", &[0.0; 4])), ("y", npy(descr, "False", "(2,)", &payload))];
        let data = read("a.npz", &stored(&arrays), &pair()).unwrap();
        assert_eq!(
            data.labels().unwrap().values(),
            &LabelValues::Text(texts.map(String::from).to_vec())
        );
    }
}

#[test]
fn fortran_order_and_limit() {
    // [[1, 2, 3], [4, 5, 6]] with the first axis fastest.
    let payload: Vec<u8> =
        [1f32, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = npy("<f4", "True", "(2, 3)", &payload);
    let inputs = [input("X", DataType::Float, &[None, Some(3)])];
    assert_eq!(f32s(&read("a.npy", &bytes, &inputs).unwrap()), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let first = DataOptions { limit: Some(1), ..DataOptions::default() };
    assert_eq!(f32s(&read_with("a.npy", &bytes, &inputs, &first).unwrap()), [1.0, 2.0, 3.0]);
}

#[test]
fn images_get_their_channel_axis_and_are_normalized_by_channel() {
    let pixels = [0u8, 51, 102, 255, 0, 51, 102, 255];
    let one = npy("|u1", "False", "(2, 2, 2)", &pixels);
    let inputs = [input("X", DataType::Float, &[None, Some(1), Some(2), Some(2)])];
    let data = read("a.npy", &one, &inputs).unwrap();
    assert_eq!(data.batch(1..2)[0].1.shape(), [1, 1, 2, 2]);
    assert_eq!(f32s(&data)[..4], [0.0, 51.0, 102.0, 255.0]);
    let options = |text: &str| DataOptions {
        normalize: Some(text.parse().unwrap()),
        ..DataOptions::default()
    };
    let data = read_with("a.npy", &one, &inputs, &options("0.5,0.5")).unwrap();
    assert_eq!(f32s(&data)[..4], [-1.0, -0.6, -0.2, 1.0]);

    let two = npy("|u1", "False", "(1, 2, 2, 2)", &pixels);
    let first = [input("X", DataType::Float, &[None, Some(2), Some(2), Some(2)])];
    let data = read_with("a.npy", &two, &first, &options("0,1/1,2")).unwrap();
    assert_eq!(f32s(&data), [0.0, 0.2, 0.4, 1.0, -0.5, -0.4, -0.3, 0.0]);
    // Channels last, and integers wider than a byte.
    let last = [input("X", DataType::Float, &[None, Some(4), Some(2)])];
    let wide = longs("(1, 4, 2)", &[0, 51, 102, 255, 0, 51, 102, 255]);
    let data = read_with("a.npy", &wide, &last, &options("0,1/1,2")).unwrap();
    assert_eq!(f32s(&data), [0.0, -0.4, 0.4, 0.0, 0.0, -0.4, 0.4, 0.0]);

    let message = refusal("a.npy", &two, &first, &options("0,0,0/1,1,1"));
    assert!(message.contains("3 channels"), "{message}");
    let message = refusal("a.npy", &floats("(2, 2)", &[0.0; 4]), &pair(), &options("0,1"));
    assert!(message.contains("holds floats"), "{message}");
}

#[test]
fn normalize_is_parsed_or_explained() {
    let parsed: Normalize = "1, 2/3,4".parse().unwrap();
    assert_eq!(parsed.channels(), [(1.0, 3.0), (2.0, 4.0)]);
    for wrong in ["", "1", "1,2,3", "1,2/3", "a,b", "0,0", "0,-1", "nan,1", "0,inf"] {
        assert!(wrong.parse::<Normalize>().is_err(), "{wrong}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let refuse = |arrays: &[(&str, Vec<u8>)], options: &DataOptions| {
        refusal("a.npz", &stored(arrays), &pair(), options)
    };
    let x = || floats("(2, 2)", &[0.0; 4]);
    let plain = DataOptions::default();
    let message = refuse(&[("X", floats("(2, 1)", &[0.0; 2]))], &plain);
    assert!(
        message.starts_with(
            "a.npz: array 'X' of shape [2, 1] does not fit input 'X' of shape [?, 2]; "
        ),
        "{message}"
    );
    let message = refuse(&[("X", x()), ("y", longs("(3,)", &[0; 3]))], &plain);
    assert!(message.starts_with("a.npz: 'X' has 2 rows but 'y' has 3"), "{message}");
    let message = refuse(&[("X", x())], &with_label("z"));
    assert_eq!(message, "a.npz: no label 'z'; the file has the array 'X': choose one with --label");
    let message = refuse(&[("X", x()), ("y", npy("|O", "False", "(2,)", b"pickle"))], &plain);
    assert!(message.contains("pickle") && message.contains("astype"), "{message}");
    let message = refuse(&[("X", x()), ("y", floats("(2,)", &[0.0, f32::NAN]))], &plain);
    assert!(message.contains("'y'") && message.contains("row 2"), "{message}");
    let message = refuse(&[("X", floats("(0, 2)", &[]))], &plain);
    assert!(message.contains("holds no data"), "{message}");
    let message = refuse(&[("X", npy("<c8", "False", "(2,)", &[0; 16]))], &plain);
    assert!(message.contains("<c8"), "{message}");
    let message = refusal("a.txt", b"", &pair(), &plain);
    assert!(message.contains(".npz, .npy, .csv or .parquet"), "{message}");
    let ids = [input("X", DataType::Int64, &[None, Some(2)])];
    let message = refusal("a.npy", &floats("(1, 2)", &[1.0, 1.5]), &ids, &plain);
    assert!(message.contains("1.5"), "{message}");
}

#[test]
fn lying_shapes_are_refused_before_anything_is_allocated() {
    for shape in [
        "(1099511627776, 2)",
        "(18446744073709551615, 2)",
        "(9223372036854775808, 9223372036854775808)",
        "(2, 3)",
    ] {
        let lie = floats(shape, &[0.0; 4]);
        for bytes in
            [stored(&[("X", lie.clone())]), npz(CompressionMethod::Deflated, &[("X", lie.clone())])]
        {
            let message = refusal("a.npz", &bytes, &pair(), &DataOptions::default());
            assert!(message.contains("damaged"), "{message}");
        }
        let message = refusal("a.npy", &lie, &pair(), &DataOptions::default());
        assert!(message.contains("damaged"), "{message}");
    }
    // A header of 4 GB, and strings of as much.
    let mut header = b"\x93NUMPY\x02\x00".to_vec();
    header.extend([0xff; 4]);
    assert!(read("a.npy", &header, &pair()).is_err());
    assert!(read("a.npy", &npy("<U4294967295", "False", "(1, 2)", &[0; 8]), &pair()).is_err());
}

#[test]
fn csv_features_and_labels() {
    let table =
        |text: &str, options: &DataOptions| read_with("a.csv", text.as_bytes(), &pair(), options);
    let plain = DataOptions::default();
    let data = table("a,b,species\n1,2,cat\n3,,dog\n", &plain).unwrap();
    assert_eq!(
        data.labels().unwrap().values(),
        &LabelValues::Text(vec!["cat".into(), "dog".into()])
    );
    assert!(f32s(&data)[3].is_nan());
    let data = table("y,a,b\n1,2,3\n", &plain).unwrap();
    assert_eq!(data.labels().unwrap().values(), &LabelValues::Class(vec![1]));
    assert_eq!(f32s(&data), [2.0, 3.0]);
    let data = table("a,z,b\n1,2.5,3\n4,5,6\n", &with_label("z")).unwrap();
    assert_eq!(data.labels().unwrap().values(), &LabelValues::Number(vec![2.5, 5.0]));
    assert_eq!(f32s(&data), [1.0, 3.0, 4.0, 6.0]);
    assert!(table("a,y\n1,2\n", &plain).unwrap().labels().is_none());

    let refuse =
        |text: &str, options: &DataOptions| refusal("a.csv", text.as_bytes(), &pair(), options);
    let message = refuse("a,b,y\n1,2,0\n1,oops,0\n", &plain);
    assert!(message.starts_with("a.csv: row 2, column 'b': 'oops' is not a number"), "{message}");
    assert!(refuse("a,b,y\n1,2\n", &plain).contains("row 1: it has 2 fields"));
    assert!(refuse("a,b,y\n1,2,\n", &plain).contains("row 1"));
    assert!(refuse("1,2,3\n1,2,3\n", &plain).contains("header"));
    assert!(refuse("a,b,y\n", &plain).contains("holds no data"));
    assert!(refuse("", &plain).contains("holds no data"));
    assert!(refuse("a,b,c,d\n1,2,3,4\n", &plain).contains("4 feature columns"));
    assert!(refuse("a,b,y\n1,2,3\n", &with_label("q")).contains("'a', 'b', 'y'"));
}

#[test]
fn csv_columns_feed_inputs_of_their_names() {
    let inputs = [
        input("age", DataType::Float, &[None, Some(1)]),
        input("city", DataType::String, &[None, Some(1)]),
        input("kids", DataType::Int64, &[None, Some(1)]),
    ];
    let data = read("a.csv", b"kids,city,age,bought\n2,Bern,30.5,yes\n", &inputs).unwrap();
    let batch = data.batch(0..1);
    assert_eq!(batch[0].1.values(), &Values::F32(vec![30.5]));
    assert_eq!(batch[1].1.values(), &Values::Str(vec!["Bern".into()]));
    assert_eq!(batch[2].1.values(), &Values::I64(vec![2]));
    assert!(batch.iter().all(|(_, t)| t.shape() == [1, 1]));
    assert_eq!(data.labels().unwrap().values(), &LabelValues::Text(vec!["yes".into()]));
    let message = refusal("a.csv", b"kids,age\n1,2\n", &inputs, &DataOptions::default());
    assert!(message.contains("'city'") && message.contains("'kids', 'age'"), "{message}");
}

fn parquet_table() -> Vec<u8> {
    let schema =
        "message m { REQUIRED DOUBLE a; OPTIONAL DOUBLE b; REQUIRED BYTE_ARRAY label (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(
        &mut bytes,
        schema,
        Arc::new(WriterProperties::builder().build()),
    )
    .unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[1.0, 2.0], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[3.0], Some(&[1, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = ["x", "y"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
    bytes
}

#[test]
fn parquet_is_read_as_csv_is() {
    let data = read("a.parquet", &parquet_table(), &pair()).unwrap();
    let values = f32s(&data);
    assert_eq!(values[..3], [1.0, 3.0, 2.0]);
    assert!(values[3].is_nan());
    assert_eq!(data.labels().unwrap().values(), &LabelValues::Text(vec!["x".into(), "y".into()]));
}

#[test]
fn batches_cover_all_rows_once() {
    let data = read("a.npy", &floats("(5, 2)", &[0.0; 10]), &pair()).unwrap();
    assert_eq!(data.batches(2).collect::<Vec<_>>(), [0..2, 2..4, 4..5]);
    assert_eq!(data.batch(4..9)[0].1.shape(), [1, 2]);
    assert_eq!(data.batch(7..9)[0].1.shape(), [0, 2]);
}

/// A damaged file gives an error of one line, or data if the damage hit nothing that matters.
fn survives(name: &str, bytes: &[u8]) {
    if let Err(error) = read(name, bytes, &pair()) {
        let message = error.to_string();
        assert!(!message.contains('\n') && message.contains(name), "{message}");
    }
}

#[test]
fn truncated_files_are_refused() {
    let arrays = [("X", floats("(2, 2)", &[1.0; 4])), ("y", longs("(2,)", &[0, 1]))];
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let whole = npz(method, &arrays);
        for length in 0..whole.len() {
            assert!(read("a.npz", &whole[..length], &pair()).is_err(), "{length} bytes");
        }
    }
    for length in 0..arrays[0].1.len() {
        assert!(read("a.npy", &arrays[0].1[..length], &pair()).is_err(), "{length} bytes");
    }
    let table = parquet_table();
    for length in 0..table.len() {
        assert!(read("a.parquet", &table[..length], &pair()).is_err(), "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let arrays = [("X", floats("(2, 2)", &[1.0; 4])), ("y", npy("<U1", "False", "(2,)", &[65, 0, 0, 0, 66, 0, 0, 0]))];
        let files = [
            ("a.npz", stored(&arrays)),
            ("a.npz", npz(CompressionMethod::Deflated, &arrays)),
            ("a.npy", arrays[0].1.clone()),
            ("a.csv", b"a,b,y\n1,2,\"3\"\n4,5.5,6\n".to_vec()),
            ("a.parquet", parquet_table()),
        ];
        for (name, mut bytes) in files {
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            survives(name, &bytes);
        }
    }
}
