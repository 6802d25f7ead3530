//! What an array holds: element types, orders, headers.

use half::f16;

use super::*;

/// Reads a `.npy` of two rows for a model that takes `data_type`.
#[track_caller]
fn check_type(descr: &str, payload: &[u8], takes: DataType, expected: impl Into<Values>) {
    let inputs = [spec("x", takes, &[None])];
    let data = read("npy", &npy(descr, "False", "(2,)", payload), &inputs)
        .unwrap_or_else(|e| panic!("{descr}: {e}"));
    check_first(&data, &[2], expected);
}

#[test]
fn every_element_type_of_numpy_is_read() {
    use DataType::*;
    let halves = [f16::from_f32(1.5), f16::from_f32(-2.0)];
    check_type("<f2", &bytes_of(&halves, f16::to_le_bytes), Float, vec![1.5f32, -2.0]);
    check_type("<f4", &bytes_of(&[1.5, -2.0], f32::to_le_bytes), Float, vec![1.5f32, -2.0]);
    check_type("<f8", &bytes_of(&[1.5, -2.0], f64::to_le_bytes), Double, vec![1.5f64, -2.0]);
    check_type("|i1", &[5, 0x80], Int8, vec![5i8, -128]);
    check_type("<i2", &bytes_of(&[5, -300], i16::to_le_bytes), Int32, vec![5i32, -300]);
    check_type("<i4", &bytes_of(&[5, -70_000], i32::to_le_bytes), Int32, vec![5i32, -70_000]);
    check_type("<i8", &bytes_of(&[5, i64::MIN], i64::to_le_bytes), Int64, vec![5, i64::MIN]);
    check_type("|u1", &[5, 255], Uint8, vec![5u8, 255]);
    check_type("<u2", &bytes_of(&[5, 65_535], u16::to_le_bytes), Int32, vec![5i32, 65_535]);
    check_type(
        "<u4",
        &bytes_of(&[5, u32::MAX], u32::to_le_bytes),
        Int64,
        vec![5, 4_294_967_295i64],
    );
    check_type("<u8", &bytes_of(&[5, 1 << 62], u64::to_le_bytes), Int64, vec![5, 1i64 << 62]);
    check_type("|b1", &[0, 1], Bool, vec![false, true]);
    check_type("|b1", &[0, 1], Float, vec![0f32, 1.0]);
    check_type("|S3", b"a\0\0abc", String, words(&["a", "abc"]));
    let text: Vec<u32> = "éxb\0".chars().map(u32::from).collect();
    check_type("<U2", &bytes_of(&text, u32::to_le_bytes), String, words(&["éx", "b"]));
}

#[test]
fn big_endian_arrays_are_read() {
    use DataType::*;
    let halves = [f16::from_f32(1.5), f16::from_f32(-2.0)];
    check_type(">f2", &bytes_of(&halves, f16::to_be_bytes), Float, vec![1.5f32, -2.0]);
    check_type(">f4", &bytes_of(&[1.5, -2.0], f32::to_be_bytes), Float, vec![1.5f32, -2.0]);
    check_type(">f8", &bytes_of(&[1.5, -2.0], f64::to_be_bytes), Double, vec![1.5f64, -2.0]);
    check_type(">i2", &bytes_of(&[5, -300], i16::to_be_bytes), Int32, vec![5i32, -300]);
    check_type(">i8", &bytes_of(&[5, -300], i64::to_be_bytes), Int64, vec![5i64, -300]);
    check_type(
        ">u4",
        &bytes_of(&[5, u32::MAX], u32::to_be_bytes),
        Int64,
        vec![5, 4_294_967_295i64],
    );
    check_type(">u8", &bytes_of(&[5, 300], u64::to_be_bytes), Int64, vec![5i64, 300]);
    let text: Vec<u32> = "éxb\0".chars().map(u32::from).collect();
    check_type(">U2", &bytes_of(&text, u32::to_be_bytes), String, words(&["éx", "b"]));
}

#[test]
fn numbers_are_cast_to_the_inputs_type() {
    use DataType::*;
    check_type("<f8", &bytes_of(&[1.5, -2.0], f64::to_le_bytes), Float, vec![1.5f32, -2.0]);
    check_type("<i8", &bytes_of(&[3, -2], i64::to_le_bytes), Float, vec![3f32, -2.0]);
    check_type("<f4", &bytes_of(&[3.0, -2.0], f32::to_le_bytes), Int64, vec![3i64, -2]);
    check_type("|u1", &[3, 200], Float, vec![3f32, 200.0]);
    check_type("|u1", &[3, 200], Double, vec![3f64, 200.0]);
}

#[test]
fn a_cast_that_would_make_another_number_is_refused() {
    let cases: [(&str, Vec<u8>, DataType, &str); 6] = [
        ("<f4", bytes_of(&[1.0, 1.5], f32::to_le_bytes), DataType::Int64, "holds 1.5"),
        ("<f4", bytes_of(&[1.0, f32::NAN], f32::to_le_bytes), DataType::Int32, "holds NaN"),
        ("<i8", bytes_of(&[1, 1 << 31], i64::to_le_bytes), DataType::Int32, "holds 2147483648"),
        ("<i4", bytes_of(&[1, 200], i32::to_le_bytes), DataType::Int8, "holds 200"),
        ("|i1", vec![1, 0xff], DataType::Uint8, "holds -1"),
        // 2⁶³ is one past the largest int64.
        (
            "<f8",
            bytes_of(&[1.0, 2f64.powi(63)], f64::to_le_bytes),
            DataType::Int64,
            "holds 9223372036854776000",
        ),
    ];
    for (descr, payload, takes, says) in cases {
        let inputs = [spec("x", takes, &[None])];
        let read = read("npy", &npy(descr, "False", "(2,)", &payload), &inputs);
        let error = refused(read, &[says, "cannot take"]);
        assert!(matches!(error, DataError::Value { .. }), "{error:?}");
    }
    let past = npy("<u8", "False", "(2,)", &bytes_of(&[5, u64::MAX], u64::to_le_bytes));
    refused(read("npy", &past, &[spec("x", DataType::Int64, &[None])]), &["past int64"]);
    let text = npy("|S1", "False", "(2,)", b"ab");
    refused(read("npy", &text, &[spec("x", DataType::Float, &[None])]), &["String", "takes Float"]);
    let untyped = ValueSpec { name: "x".into(), data_type: None, dims: None, row_axis: Some(0) };
    refused(read("npy", &npy_f32("(1,)", &[1.0]), &[untyped]), &["takes Undefined"]);
}

#[test]
fn fortran_order_is_turned_row_major() {
    // np.asfortranarray(np.arange(24).reshape(2, 3, 4)) holds element [i, j, k] = 12i + 4j + k at
    // i + 2j + 6k.
    let mut payload = vec![0f32; 24];
    for at in 0..24 {
        let (i, j, k) = (at / 12, at / 4 % 3, at % 4);
        payload[i + 2 * j + 6 * k] = at as f32;
    }
    let file = npy("<f4", "True", "(2, 3, 4)", &bytes_of(&payload, f32::to_le_bytes));
    let inputs = [spec("x", DataType::Float, &[None, Some(3), Some(4)])];
    let expected: Vec<f32> = (0..24).map(|x| x as f32).collect();
    check_first(&read("npy", &file, &inputs).unwrap(), &[2, 3, 4], expected.clone());
    let one = read_with("npy", &file, &inputs, &limit(1)).unwrap();
    check_first(&one, &[1, 3, 4], expected[..12].to_vec());
    // A vector is the same in both orders.
    let vector = npy("|u1", "True", "(3,)", &[1, 2, 3]);
    let inputs = [spec("x", DataType::Uint8, &[None])];
    check_first(&read("npy", &vector, &inputs).unwrap(), &[3], vec![1u8, 2, 3]);
    let text = npy("|S1", "True", "(2, 2)", b"acbd");
    let inputs = [spec("x", DataType::String, &[None, Some(2)])];
    let expected = words(&["a", "b", "c", "d"]);
    check_first(&read("npy", &text, &inputs).unwrap(), &[2, 2], expected);
}

#[test]
fn longer_headers_of_versions_2_and_3_are_read() {
    let one = npy_f32("(1, 2)", &[1.0, 2.0]);
    for version in [2, 3] {
        let length = u32::from(u16::from_le_bytes([one[8], one[9]])).to_le_bytes();
        let file = [b"\x93NUMPY".as_slice(), &[version, 0], &length, &one[10..]].concat();
        check_first(&read("npy", &file, &floats(2)).unwrap(), &[1, 2], vec![1f32, 2.0]);
        let lying = [b"\x93NUMPY".as_slice(), &[version, 0], &[0xff; 4], &one[10..]].concat();
        refused(read("npy", &lying, &floats(2)), &["its header claims 4294967295 bytes"]);
    }
    // As Python 2 wrote it, and in another order of keys.
    let header = b"{\"shape\": (1L, 2L), \"fortran_order\": False, \"descr\": \"<f4\"}";
    let length = [header.len() as u8, 0];
    let file = [b"\x93NUMPY\x01\x00".as_slice(), &length, header, &one[one.len() - 8..]].concat();
    check_first(&read("npy", &file, &floats(2)).unwrap(), &[1, 2], vec![1f32, 2.0]);
}

#[test]
fn python_objects_and_other_types_are_refused_with_a_way_out() {
    let object = refused(
        read("npy", &npy("|O", "False", "(2,)", b"\x80\x04pickled"), &floats(2)),
        &["'data' holds Python objects", "astype('float32')"],
    );
    assert!(matches!(object, DataError::Objects { .. }));
    for descr in ["<c8", "<M8[ns]", "<f16", "|V4", "<i3", "<U0", "x", ""] {
        let read = read("npy", &npy(descr, "False", "(2,)", &[0; 64]), &floats(2));
        let error = refused(read, &[descr]);
        assert!(matches!(error, DataError::ElementType { .. }), "{descr}: {error}");
    }
    // Headers are Latin-1, so each of these two bytes is a character.
    refused(read("npy", &npy("é4", "False", "(2,)", &[0; 64]), &floats(2)), &["type Ã©4"]);
    let record = b"{'descr': [('a', '<f4'),\n('b', '<i8')], 'fortran_order': False, 'shape': (2,)}";
    let length = [record.len() as u8, 0];
    let file = [b"\x93NUMPY\x01\x00".as_slice(), &length, record].concat();
    refused(read("npy", &file, &floats(2)), &["[('a', '<f4'),"]);
    let scalar = npy_f32("()", &[1.0]);
    refused(read("npy", &scalar, &floats(2)), &["is a single number"]);
    let not_utf8 = npy("|S1", "False", "(1,)", &[0xff]);
    refused(read("npy", &not_utf8, &floats(1)), &["not UTF-8"]);
    let surrogate = npy("<U1", "False", "(1,)", &0xd800u32.to_le_bytes());
    refused(read("npy", &surrogate, &floats(1)), &["not Unicode"]);
}

#[test]
fn headers_that_lie_about_the_size_are_refused_before_allocating() {
    let shapes =
        ["(1000000000000, 2)", "(18446744073709551615, 2)", "(18446744073709551616, 2)", "(-1, 2)"];
    for shape in shapes {
        let error = refused(read("npy", &npy_f32(shape, &[1.0, 2.0]), &floats(2)), &["its shape"]);
        assert!(matches!(error, DataError::Damaged { .. }), "{error:?}");
        let zip = npz(CompressionMethod::Deflated, &[("x", npy_f32(shape, &[1.0, 2.0]))]);
        refused(read("npz", &zip, &floats(2)), &["its shape"]);
    }
    let huge_text = npy("<U99999999999", "False", "(1,)", &[0; 64]);
    refused(read("npy", &huge_text, &floats(1)), &["<U99999999999"]);
    let longer = npy_f32("(1, 2)", &[1.0, 2.0, 3.0]);
    refused(read("npy", &longer, &floats(2)), &["longer than its shape says"]);
}
