//! Outputs as numpy arrays in a zip archive.
//!
//! The header of format version 1.0 is written here, since a string array needs its own.

use std::io::{self, BufWriter, Seek, Write};

use fewbits_engine::{Tensor, Values};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The length of magic, version and header is a multiple of this.
const ALIGNMENT_BYTES: usize = 64;

pub(super) fn write(file: &mut (impl Write + Seek), arrays: &[(&str, Tensor)]) -> io::Result<()> {
    let mut archive = ZipWriter::new(BufWriter::new(file));
    for (name, tensor) in arrays {
        // No time: the same outputs give the same bytes.
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(true);
        archive.start_file(format!("{name}.npy"), options)?;
        write_npy(&mut archive, tensor)?;
    }
    archive.finish()?.flush()
}

fn write_npy(out: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    let (descr, payload) = payload(tensor.values());
    let dims: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let unpadded = 10 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT_BYTES) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(&payload)
}

/// numpy's name of the element type, and the elements.
fn payload(values: &Values) -> (String, Vec<u8>) {
    macro_rules! little_endian {
        ($descr:literal, $v:expr) => {
            ($descr.to_string(), $v.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
    }
    match values {
        Values::F16(v) => little_endian!("<f2", v),
        Values::F32(v) => little_endian!("<f4", v),
        Values::F64(v) => little_endian!("<f8", v),
        Values::I64(v) => little_endian!("<i8", v),
        Values::I32(v) => little_endian!("<i4", v),
        Values::I8(v) => little_endian!("|i1", v),
        Values::U8(v) => ("|u1".to_string(), v.clone()),
        Values::Bool(v) => ("|b1".to_string(), v.iter().map(|&x| u8::from(x)).collect()),
        Values::Str(v) => {
            // Fixed-width UCS-4, padded with zeros.
            let width = v.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            let padded = |s: &String| {
                let mut codes: Vec<u32> = s.chars().map(u32::from).collect();
                codes.resize(width, 0);
                codes.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
            };
            (format!("<U{width}"), v.iter().flat_map(padded).collect())
        }
    }
}
