mod arrays;
mod hostile;
mod inputs;
mod rows;
mod tables;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use fewbits_engine::{Tensor, Values};
use fewbits_onnx::proto::DataType;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

/// A `.npy` file as NumPy writes it: the header padded with spaces to a multiple of 64 bytes.
fn npy(descr: &str, order: &str, shape: &str, payload: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    let used = 10 + header.len() + 1;
    header.push_str(&" ".repeat(used.next_multiple_of(64) - used));
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), payload].concat()
}

fn bytes_of<T: Copy, const N: usize>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&x| to(x)).collect()
}

fn npy_f32(shape: &str, values: &[f32]) -> Vec<u8> {
    npy("<f4", "False", shape, &bytes_of(values, f32::to_le_bytes))
}

fn npy_i64(shape: &str, values: &[i64]) -> Vec<u8> {
    npy("<i8", "False", shape, &bytes_of(values, i64::to_le_bytes))
}

/// A `.npz` file. NumPy marks every entry as one that may pass 4 GB, so this does too.
fn npz(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method).large_file(true);
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn stored(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    npz(CompressionMethod::Stored, arrays)
}

fn spec(name: &str, data_type: DataType, dims: &[Option<usize>]) -> ValueSpec {
    ValueSpec {
        name: name.to_string(),
        data_type: Some(data_type),
        dims: Some(dims.to_vec()),
        row_axis: Some(0),
    }
}

/// An input `x` of `width` floats a row.
fn floats(width: usize) -> Vec<ValueSpec> {
    vec![spec("x", DataType::Float, &[None, Some(width)])]
}

/// Reads `bytes` as a file whose name has `extension`.
fn read_with(
    extension: &str,
    bytes: &[u8],
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<Dataset, DataError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(format!("data.{extension}"));
    fs::write(&path, bytes).unwrap();
    let read = Dataset::read(&path, inputs, options);
    if let Err(error) = &read {
        let message = error.to_string();
        assert!(!message.contains(char::is_control), "more than one line: {message:?}");
        let of_option = matches!(error, DataError::Constant { .. } | DataError::Normalize { .. });
        assert!(of_option || message.contains("data."), "the file is not named: {message}");
    }
    read
}

fn read(extension: &str, bytes: &[u8], inputs: &[ValueSpec]) -> Result<Dataset, DataError> {
    read_with(extension, bytes, inputs, &DataOptions::default())
}

/// The error, which must contain each of `says`.
#[track_caller]
fn refused(read: Result<Dataset, DataError>, says: &[&str]) -> DataError {
    let error = read.expect_err("the file is refused");
    let message = error.to_string();
    for part in says {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    error
}

/// All rows of the first input.
fn first(data: &Dataset) -> Tensor {
    data.batch(0..data.rows()).remove(0).1
}

#[track_caller]
fn check_first(data: &Dataset, shape: &[usize], values: impl Into<Values>) {
    assert_eq!(first(data), Tensor::new(shape.to_vec(), values).unwrap());
}

fn labels(data: &Dataset) -> &LabelValues {
    data.labels().expect("the file has labels").values()
}

fn limit(rows: usize) -> DataOptions {
    DataOptions { limit: Some(rows), ..DataOptions::default() }
}

fn label(name: &str) -> DataOptions {
    DataOptions { label: Some(name.to_string()), ..DataOptions::default() }
}

fn normalize(text: &str) -> DataOptions {
    DataOptions { normalize: Some(text.parse().unwrap()), ..DataOptions::default() }
}

fn words(values: &[&str]) -> Vec<String> {
    values.iter().map(|s| s.to_string()).collect()
}

#[test]
fn an_unknown_extension_is_refused_before_the_file_is_opened() {
    for name in ["data.txt", "data", "data.npz.bak"] {
        let read = Dataset::read(Path::new(name), &floats(2), &DataOptions::default());
        assert!(matches!(read, Err(DataError::Extension { .. })), "{name}");
    }
    refused(read("xlsx", b"", &floats(2)), &[".npz, .npy, .csv or .parquet"]);
    let upper = read("NPY", &npy_f32("(1, 2)", &[1.0, 2.0]), &floats(2)).unwrap();
    check_first(&upper, &[1, 2], vec![1f32, 2.0]);
}

#[test]
fn a_missing_file_is_named() {
    for extension in ["npz", "npy", "csv", "parquet"] {
        let path = format!("no_such_folder/data.{extension}");
        let read = Dataset::read(Path::new(&path), &floats(2), &DataOptions::default());
        let error = refused(read, &[&path, "cannot read"]);
        assert!(matches!(error, DataError::Read { .. }));
    }
}

#[test]
fn the_shared_hostile_files_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/hostile");
    for file in [
        "data_bad_checksum.npz",
        "data_empty.csv",
        "data_empty.npz",
        "data_fewer_labels.npz",
        "data_header_only.csv",
        "data_no_rows.npz",
        "data_object.npz",
        "data_ragged.csv",
        "data_text.csv",
        "data_truncated.npz",
        "data_wide.npz",
    ] {
        let path = folder.join(file);
        assert!(path.exists(), "{file}");
        let read = Dataset::read(&path, &floats(20), &DataOptions::default());
        refused(read, &[file]);
    }
    let unlabelled =
        Dataset::read(&folder.join("data_no_label.npz"), &floats(20), &DataOptions::default());
    assert_eq!(unlabelled.unwrap().labels(), None);
}

#[test]
fn files_that_numpy_wrote_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let digits = folder.join("digits/test.npz");
    let data = Dataset::read(&digits, &floats(64), &DataOptions::default()).unwrap();
    assert_eq!((data.rows(), data.path()), (450, digits.as_path()));
    // np.load(…)["X"][0, :3] and ["y"][:3]
    let Values::F32(values) = first(&data).slice_rows(0..1).into_parts().1 else { panic!() };
    assert_eq!(values[..3], [0.0, 0.0, 8.0]);
    let LabelValues::Class(classes) = labels(&data) else { panic!() };
    assert_eq!(classes[..3], [1, 0, 9]);
}
