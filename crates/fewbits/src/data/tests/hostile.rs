//! Damaged files are refused in one line or read; they never panic, whatever the damage.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

fn valid_npy() -> Vec<u8> {
    npy_f32("(3, 2)", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
}

fn arrays() -> Vec<(&'static str, Vec<u8>)> {
    vec![("x", valid_npy()), ("y", npy("|S1", "True", "(3,)", b"abc"))]
}

/// A stored and a deflated `.npz`, and a `.npy`.
static VALID: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    vec![
        ("npz", stored(&arrays())),
        ("npz", npz(CompressionMethod::Deflated, &arrays())),
        ("npy", valid_npy()),
    ]
});

#[test]
fn every_truncation_is_refused() {
    for (extension, bytes) in VALID.iter() {
        assert_eq!(read(extension, bytes, &floats(2)).unwrap().rows(), 3);
        for length in 0..bytes.len() {
            // Without its last rows a file is damaged even where none of them is asked for.
            refused(read(extension, &bytes[..length], &floats(2)), &[]);
        }
    }
}

#[test]
fn every_truncation_of_a_parquet_file_is_refused() {
    let bytes = tables::parquet_file();
    for length in 0..bytes.len() {
        refused(read("parquet", &bytes[..length], &floats(2)), &[]);
    }
}

#[test]
fn a_deflated_entry_cannot_claim_more_than_deflate_makes() {
    let mut bytes = npz(CompressionMethod::Deflated, &[("x", valid_npy())]);
    let honest = (valid_npy().len() as u32).to_le_bytes();
    let at = bytes.windows(4).rposition(|w| w == honest).unwrap();
    bytes[at..at + 4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    refused(read("npz", &bytes, &floats(2)), &["cannot unpack to the 2147483647 claimed"]);
}

#[test]
fn a_stored_entry_that_changed_is_refused_by_its_checksum() {
    let mut bytes = stored(&[("x", valid_npy())]);
    let payload = 6f32.to_le_bytes();
    let at = bytes.windows(4).position(|w| w == payload).unwrap();
    bytes[at] ^= 1;
    refused(read("npz", &bytes, &floats(2)), &["checksum"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn flipped_bytes_never_panic(
        file in 0..3usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
        limited in prop::option::of(0..4usize),
    ) {
        let (extension, bytes) = &VALID[file];
        let mut bytes = bytes.clone();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        let options = DataOptions { limit: limited, ..DataOptions::default() };
        if let Ok(data) = read_with(extension, &bytes, &floats(2), &options) {
            prop_assert!(data.rows() <= 3);
            let all = first(&data);
            prop_assert_eq!(all.shape(), &[data.rows(), 2]);
        }
    }

    #[test]
    fn headers_of_any_text_never_panic(text in "\\PC{0,40}", middle in "[(){}'\",:<>|0-9a-zL \n]{0,40}") {
        for text in [text, format!("{{'descr': {middle}"), format!("{{'shape': ({middle}")] {
            let length = (text.len() as u16).to_le_bytes();
            let file = [b"\x93NUMPY\x01\x00".as_slice(), &length, text.as_bytes()].concat();
            refused(read("npy", &file, &floats(2)), &[]);
        }
    }

    #[test]
    fn flipped_bytes_of_a_table_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
    ) {
        let mut bytes = b"a,b,y\n1,2.5,0\n3,-4,1\n".to_vec();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        let _ = read("csv", &bytes, &floats(2));
    }
}
