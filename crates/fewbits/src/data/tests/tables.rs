//! `.csv` and `.parquet`: which column is what, and cells that are not what they should be.

use std::sync::Arc;

use ::parquet::data_type as physical;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;

fn csv(text: &str, inputs: &[ValueSpec]) -> Result<Dataset, DataError> {
    read("csv", text.as_bytes(), inputs)
}

#[test]
fn all_columns_but_the_label_are_features() {
    for text in [
        "a,b,y\n1,2.5,0\n-3,4e2,1\n",
        "y,a,b\n0,1,2.5\n1,-3,4e2\n",
        "a,b,species\n1,2.5,0\n-3,4e2,1\n",
        "a,label,b\r\n\" 1\",0,2.5\r\n-3,1,4e2",
        // Spreadsheets begin the file with a byte order mark.
        "\u{feff}a, b, y\n1,2.5,0\n-3,4e2,1\n",
    ] {
        let data = csv(text, &floats(2)).unwrap_or_else(|e| panic!("{text}: {e}"));
        check_first(&data, &[2, 2], vec![1f32, 2.5, -3.0, 400.0]);
        assert_eq!(labels(&data), &LabelValues::Class(vec![0, 1]), "{text}");
    }
    let without = csv("a,b\n1,2\n", &floats(2)).unwrap();
    assert_eq!((without.labels(), without.rows()), (None, 1));
    // As many columns as the model takes: none of them is a label, whatever it is called.
    assert_eq!(csv("a,y\n1,2\n", &floats(2)).unwrap().labels(), None);
    let asked = read_with("csv", b"a,kind,b\n1,7,2\n", &floats(2), &label("kind")).unwrap();
    assert_eq!(labels(&asked), &LabelValues::Class(vec![7]));
    let missing = read_with("csv", b"a,b,y\n1,7,2\n", &floats(2), &label("kind"));
    refused(missing, &["no label 'kind'", "the columns 'a', 'b', 'y'"]);
    let free = [spec("x", DataType::Float, &[None, None])];
    let data = csv("a,b,c,target\n1,2,3,4\n", &free).unwrap();
    check_first(&data, &[1, 3], vec![1f32, 2.0, 3.0]);
}

#[test]
fn labels_are_of_the_first_type_that_holds_them_all() {
    let of = |cells: [&str; 3]| {
        let text = format!("a,b,y\n1,2,{}\n1,2,{}\n1,2,{}\n", cells[0], cells[1], cells[2]);
        csv(&text, &floats(2)).unwrap().labels().unwrap().values().clone()
    };
    assert_eq!(of(["0", " 1 ", "-2"]), LabelValues::Class(vec![0, 1, -2]));
    assert_eq!(of(["True", "False", "true"]), LabelValues::Class(vec![1, 0, 1]));
    assert_eq!(of(["0", "1.5", "2"]), LabelValues::Number(vec![0.0, 1.5, 2.0]));
    assert_eq!(of(["cat", " dog", "cat"]), LabelValues::Text(words(&["cat", "dog", "cat"])));
    assert_eq!(of(["1", "dog", "2"]), LabelValues::Text(words(&["1", "dog", "2"])));
    assert_eq!(of(["1.5", "2", "dog"]), LabelValues::Text(words(&["1.5", "2", "dog"])));
}

#[test]
fn a_missing_label_is_named_by_its_row() {
    for missing in ["", " ", "nan", "NaN"] {
        let read = csv(&format!("a,b,y\n1,2,0\n1,2,{missing}\n"), &floats(2));
        let error = refused(read, &["label 'y'", "at row 2"]);
        assert!(matches!(error, DataError::LabelMissing { .. }));
    }
}

#[test]
fn cells_are_numbers_or_missing() {
    let data = csv("a,b\n,True\nnan,False\n", &floats(2)).unwrap();
    let Values::F32(values) = first(&data).into_parts().1 else { panic!() };
    assert!(values[0].is_nan() && values[2].is_nan());
    assert_eq!((values[1], values[3]), (1.0, 0.0));
    let error = refused(
        csv("a,b\n1,2\n1,many\n", &floats(2)),
        &["row 2", "column 'b'", "'many' is not a number"],
    );
    assert!(matches!(error, DataError::Cell { .. }));
    let ids = [spec("x", DataType::Int64, &[None, Some(2)])];
    check_first(&csv("a,b\n1,2.0\n", &ids).unwrap(), &[1, 2], vec![1i64, 2]);
    refused(csv("a,b\n1,2.5\n", &ids), &["row 1", "'2.5' is not an integer"]);
    refused(csv("a,b\n1,\n", &ids), &["'' is not an integer"]);
    let narrow = [spec("x", DataType::Int32, &[None, Some(2)])];
    refused(csv("a,b\n1,3000000000\n", &narrow), &["holds 3000000000"]);
    let text = [spec("x", DataType::String, &[None, Some(2)])];
    check_first(&csv("a,b\n1,\n", &text).unwrap(), &[1, 2], words(&["1", ""]));
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let wide = refused(
        csv("a,b,c,d\n1,2,3,4\n", &floats(2)),
        &["4 feature columns do not fit input 'x' of shape [?, 2]", "'a', 'b', 'c', 'd'"],
    );
    assert!(matches!(wide, DataError::Columns { .. }));
    refused(csv("a\n1\n", &floats(2)), &["1 feature columns"]);
    let no_header = refused(csv("1,2\n3,4\n", &floats(2)), &["a header row"]);
    assert!(matches!(no_header, DataError::NoHeader { .. }));
    for empty in ["", "a,b\n", "a,b"] {
        let error = refused(csv(empty, &floats(2)), &["the table"]);
        assert!(matches!(error, DataError::Empty { .. }), "{empty}: {error}");
    }
    refused(csv("a,b\n1,2\n3\n", &floats(2)), &["row 2", "1 fields where the header has 2"]);
    refused(read("csv", b"a,b\n1,\xff\n", &floats(2)), &["row 1", "not UTF-8"]);
    refused(
        csv("\u{7}a,b\n1,2\n", &[spec("x", DataType::Int64, &[None, Some(3)])]),
        &["2 feature"],
    );
}

#[test]
fn a_limit_stops_before_later_rows_are_read() {
    let text = b"a,b,y\n1,2,0\n3,4,1\nmany,none,\n";
    let data = read_with("csv", text, &floats(2), &limit(2)).unwrap();
    assert_eq!((data.rows(), labels(&data)), (2, &LabelValues::Class(vec![0, 1])));
    refused(read_with("csv", text, &floats(2), &limit(0)), &["no data"]);
}

#[test]
fn several_inputs_are_columns_of_their_names() {
    let inputs = [
        spec("age", DataType::Float, &[None, Some(1)]),
        spec("city", DataType::String, &[None, Some(1)]),
        spec("visits", DataType::Int64, &[None]),
    ];
    let text = "city,unused,visits,age,y\nBern,0,3,41.5,1\nRoma,0,4,,0\n";
    let data = csv(text, &inputs).unwrap();
    let batch = data.batch(0..1);
    let expected = [
        ("age".to_string(), Tensor::new(vec![1, 1], vec![41.5f32]).unwrap()),
        ("city".to_string(), Tensor::new(vec![1, 1], words(&["Bern"])).unwrap()),
        ("visits".to_string(), Tensor::new(vec![1], vec![3i64]).unwrap()),
    ];
    assert_eq!(batch, expected);
    assert_eq!(labels(&data), &LabelValues::Class(vec![1, 0]));
    refused(csv("city,age\nBern,3\n", &inputs), &["input 'visits'", "one .npz file"]);
    // One input of a column's name takes that column alone.
    let one = csv(text, &inputs[1..2]).unwrap();
    check_first(&one, &[2, 1], words(&["Bern", "Roma"]));
}

#[test]
fn columns_become_images_and_pixels_are_normalized() {
    let image = [spec("x", DataType::Float, &[None, Some(1), Some(2), Some(2)])];
    let text = b"label,p1,p2,p3,p4\n7,0,255,51,102\n";
    let data = read_with("csv", text, &image, &normalize("0.5,0.5")).unwrap();
    check_first(&data, &[1, 1, 2, 2], vec![-1f32, 1.0, -0.6, -0.2]);
    assert_eq!(labels(&data), &LabelValues::Class(vec![7]));
    let halves = read_with("csv", b"a,b\n1,0.5\n", &floats(2), &normalize("0.5,0.5"));
    refused(halves, &["'0.5' is not an integer"]);
}

/// A table of two float columns, a label of text, and a null.
pub(super) fn parquet_file() -> Vec<u8> {
    let schema = "message table {
        optional float a; required int64 b; required binary y (UTF8);
    }";
    written(schema, |mut columns| {
        let mut column = columns.next_column().unwrap().unwrap();
        let floats = column.typed::<physical::FloatType>();
        floats.write_batch(&[1.5, -2.0], Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<physical::Int64Type>().write_batch(&[10, 20, 30], None, None).unwrap();
        column.close().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        let text = ["cat", "dog", "cat"].map(physical::ByteArray::from);
        column.typed::<physical::ByteArrayType>().write_batch(&text, None, None).unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    })
}

type RowGroup<'a> = ::parquet::file::writer::SerializedRowGroupWriter<'a, Vec<u8>>;

fn written(schema: &str, fill: impl FnOnce(RowGroup<'_>)) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    fill(writer.next_row_group().unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn parquet_columns_are_read_as_those_of_a_csv() {
    let file = parquet_file();
    let data = read("parquet", &file, &floats(2)).unwrap();
    let Values::F32(values) = first(&data).into_parts().1 else { panic!() };
    assert_eq!([&values[..2], &values[3..]].concat(), [1.5, 10.0, 20.0, -2.0, 30.0]);
    assert!(values[2].is_nan());
    assert_eq!(labels(&data), &LabelValues::Text(words(&["cat", "dog", "cat"])));
    let one = read_with("parquet", &file, &floats(2), &limit(1)).unwrap();
    check_first(&one, &[1, 2], vec![1.5f32, 10.0]);
    let inputs = [
        spec("b", DataType::Int64, &[None, Some(1)]),
        spec("y", DataType::String, &[None, Some(1)]),
    ];
    let data = read("parquet", &file, &inputs).unwrap();
    check_first(&data, &[3, 1], vec![10i64, 20, 30]);
    assert_eq!(data.batch(0..1)[1].1, Tensor::new(vec![1, 1], words(&["cat"])).unwrap());
    let ids = [spec("x", DataType::Int64, &[None, Some(2)])];
    refused(read("parquet", &file, &ids), &["row 1", "column 'a'", "'1.5' is not an integer"]);
    refused(read("parquet", &file, &floats(5)), &["2 feature columns", "'a', 'b', 'y'"]);
}

#[test]
fn parquet_columns_that_are_not_plain_are_refused() {
    let empty = written("message table { required float a; required float b; }", |mut columns| {
        while let Some(column) = columns.next_column().unwrap() {
            column.close().unwrap();
        }
        columns.close().unwrap();
    });
    refused(read("parquet", &empty, &floats(2)), &["no data"]);
    for (schema, says) in [
        ("message t { required group a { required float b; } }", "'a' has the type nested"),
        ("message t { required int96 a; }", "'a' has the type timestamp"),
    ] {
        let file = written(schema, |mut columns| {
            while let Some(column) = columns.next_column().unwrap() {
                column.close().unwrap();
            }
            columns.close().unwrap();
        });
        let error = refused(read("parquet", &file, &floats(1)), &[says]);
        assert!(matches!(error, DataError::ElementType { .. }));
    }
    refused(read("parquet", b"not parquet at all", &floats(1)), &["damaged"]);
}
