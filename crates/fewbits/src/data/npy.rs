//! NumPy's `.npy` format: a header that is a Python literal, then the elements.
//!
//! Source: "A Simple File Format for NumPy Arrays", NEP 1, and `numpy.lib.format`. Read here
//! rather than by a library because a hostile header must not decide how much is allocated.

use std::io::{self, Read};

use fewbits_engine::{Tensor, Values};
use half::f16;

use super::error::shortened;

/// NumPy writes headers of some hundred bytes, and itself refuses ones past 10,000.
const LONGEST_HEADER_BYTES: usize = 1 << 16;
/// The longest single string read.
const LONGEST_STRING_BYTES: usize = 1 << 20;
/// Elements are decoded through a buffer of this size.
const CHUNK_BYTES: usize = 1 << 16;
/// Reserved up front at most; past it a vector grows as the elements really arrive.
const RESERVED_ELEMENTS: usize = 1 << 22;

/// Why an array cannot be read; the caller adds the file and the array's name.
#[derive(Debug)]
pub(super) enum NpyError {
    Damaged(String),
    Objects,
    ElementType(String),
    Value(String),
}

impl From<io::Error> for NpyError {
    fn from(error: io::Error) -> NpyError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => NpyError::Damaged("it ends too early".to_string()),
            _ => NpyError::Damaged(error.to_string()),
        }
    }
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, NpyError> {
    Err(NpyError::Damaged(reason.into()))
}

/// What a `.npy` header says.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    element: Element,
    item_bytes: usize,
    order: ByteOrder,
    layout: Layout,
    /// The shape, not yet compared with what is there.
    pub shape: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    Bool,
    Signed,
    Unsigned,
    Float,
    /// UTF-32, padded with zeros.
    Unicode,
    /// Bytes, padded with zeros.
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ByteOrder {
    Little,
    Big,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    RowMajor,
    /// The first axis varies fastest.
    Fortran,
}

/// Reads the header, leaving `reader` at the first element.
pub(super) fn read_header(reader: &mut impl Read) -> Result<Header, NpyError> {
    let mut magic = [0u8; 8];
    reader.read_exact(&mut magic)?;
    let length = match magic {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, 0] => {
            let mut bytes = [0u8; 2];
            reader.read_exact(&mut bytes)?;
            usize::from(u16::from_le_bytes(bytes))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, 0] => {
            let mut bytes = [0u8; 4];
            reader.read_exact(&mut bytes)?;
            u32::from_le_bytes(bytes) as usize
        }
        _ => return damaged("it does not begin as a NumPy array does"),
    };
    if length > LONGEST_HEADER_BYTES {
        return damaged(format!("its header claims {length} bytes"));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    // Version 1 and 2 headers are Latin-1; only field names, which are refused, leave ASCII.
    let text: String = text.iter().map(|&b| char::from(b)).collect();
    parse_header(&text)
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Result<Header, NpyError> {
    let (mut descr, mut layout, mut shape) = (None, None, None);
    let mut rest = match text.trim().strip_prefix('{') {
        Some(rest) => rest.trim_start(),
        None => return damaged("its header is not a Python dictionary"),
    };
    while !rest.starts_with('}') {
        let (key, after) = quoted(rest)?;
        let Some(after) = after.trim_start().strip_prefix(':') else {
            return damaged("its header lacks a colon");
        };
        let after = after.trim_start();
        rest = match key {
            "descr" => {
                if !after.starts_with(['\'', '"']) {
                    let structured = after.split(", 'fortran_order'").next().unwrap_or(after);
                    return Err(NpyError::ElementType(shortened(structured)));
                }
                let (value, after) = quoted(after)?;
                descr = Some(value);
                after
            }
            "fortran_order" => {
                let (value, after) = [("True", Layout::Fortran), ("False", Layout::RowMajor)]
                    .into_iter()
                    .find_map(|(word, layout)| Some((layout, after.strip_prefix(word)?)))
                    .ok_or_else(|| NpyError::Damaged("its axis order is unclear".to_string()))?;
                layout = Some(value);
                after
            }
            "shape" => {
                let inside = after.strip_prefix('(').and_then(|a| a.split_once(')'));
                let Some((inside, after)) = inside else { return damaged("its shape is no tuple") };
                shape = Some(parse_shape(inside)?);
                after
            }
            _ => return damaged("its header has an unknown key"),
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    match (descr, layout, shape) {
        (Some(descr), Some(layout), Some(shape)) => {
            let (element, item_bytes, order) = parse_descr(descr)?;
            Ok(Header { element, item_bytes, order, layout, shape })
        }
        _ => damaged("its header lacks the type, the axis order or the shape"),
    }
}

/// The Python string at the start of `text`, and what follows it.
fn quoted(text: &str) -> Result<(&str, &str), NpyError> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let found = quote.and_then(|q| text[1..].split_once(q));
    found.ok_or_else(|| NpyError::Damaged("its header is not a Python dictionary".to_string()))
}

fn parse_shape(inside: &str) -> Result<Vec<usize>, NpyError> {
    let sizes = inside.split(',').map(str::trim).filter(|s| !s.is_empty());
    // Python 2 wrote long integers as 3L.
    let sizes = sizes.map(|s| s.strip_suffix('L').unwrap_or(s).parse::<usize>());
    sizes
        .collect::<Result<_, _>>()
        .or_else(|_| damaged(format!("its shape is ({})", shortened(inside))))
}

fn parse_descr(descr: &str) -> Result<(Element, usize, ByteOrder), NpyError> {
    let refuse = || NpyError::ElementType(shortened(descr));
    let order = match descr.chars().next() {
        Some('<' | '|' | '=') => ByteOrder::Little,
        Some('>') => ByteOrder::Big,
        _ => return Err(refuse()),
    };
    let mut rest = descr[1..].chars();
    let kind = rest.next().ok_or_else(refuse)?;
    if kind == 'O' {
        return Err(NpyError::Objects);
    }
    let size: usize = rest.as_str().parse().map_err(|_| refuse())?;
    let (element, item_bytes) = match (kind, size) {
        ('b', 1) => (Element::Bool, 1),
        ('i', 1 | 2 | 4 | 8) => (Element::Signed, size),
        ('u', 1 | 2 | 4 | 8) => (Element::Unsigned, size),
        ('f', 2 | 4 | 8) => (Element::Float, size),
        ('S', 1..=LONGEST_STRING_BYTES) => (Element::Bytes, size),
        ('U', 1..) if size <= LONGEST_STRING_BYTES / 4 => (Element::Unicode, size * 4),
        _ => return Err(refuse()),
    };
    Ok((element, item_bytes, order))
}

impl Header {
    /// The bytes that the elements take, or `None` where that overflows.
    pub fn payload_bytes(&self) -> Option<u64> {
        let sizes = self.shape.iter().map(|&d| d as u64);
        sizes.chain([self.item_bytes as u64]).try_fold(1u64, u64::checked_mul)
    }

    /// Reads the elements of the first `limit` rows (all without one), row-major.
    ///
    /// The caller has compared [`payload_bytes`](Self::payload_bytes) with what is there.
    /// Elements that [`Values`] does not have are widened: float16 to float32, 16-bit integers
    /// and uint32 to the next wider signed type, uint64 to int64 where the values fit.
    pub fn read_rows(
        &self,
        reader: &mut impl Read,
        limit: Option<usize>,
    ) -> Result<Tensor, NpyError> {
        let mut shape = self.shape.clone();
        let rows = shape.first().copied().unwrap_or(1);
        let kept_rows = limit.map_or(rows, |l| l.min(rows));
        // In Fortran order the rows are interleaved, so all of them are read.
        if let (Layout::RowMajor, Some(rows)) = (self.layout, shape.first_mut()) {
            *rows = kept_rows;
        }
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let Some(elements) = elements else { return damaged(format!("its shape is {shape:?}")) };
        let values = self.read_values(reader, elements)?;
        let values = match self.layout {
            Layout::Fortran if shape.len() > 1 => row_major(&shape, values),
            _ => values,
        };
        let tensor = Tensor::new(shape, values).map_err(|e| NpyError::Damaged(e.to_string()))?;
        Ok(if tensor.rows() > kept_rows { tensor.slice_rows(0..kept_rows) } else { tensor })
    }

    fn read_values(&self, reader: &mut impl Read, elements: usize) -> Result<Values, NpyError> {
        /// Decodes numbers of one type, as which they are kept.
        macro_rules! numbers {
            ($from:ty => $to:ty) => {
                Values::from(self.decode(reader, elements, |bytes| {
                    // `decode` hands over items of exactly this size.
                    let bytes = bytes.try_into().unwrap_or_default();
                    let value = match self.order {
                        ByteOrder::Little => <$from>::from_le_bytes(bytes),
                        ByteOrder::Big => <$from>::from_be_bytes(bytes),
                    };
                    Ok(<$to>::from(value))
                })?)
            };
        }
        Ok(match (self.element, self.item_bytes) {
            (Element::Bool, _) => Values::from(self.decode(reader, elements, |b| Ok(b != [0]))?),
            (Element::Signed, 1) => numbers!(i8 => i8),
            (Element::Signed, 2) => numbers!(i16 => i32),
            (Element::Signed, 4) => numbers!(i32 => i32),
            (Element::Signed, _) => numbers!(i64 => i64),
            (Element::Unsigned, 1) => numbers!(u8 => u8),
            (Element::Unsigned, 2) => numbers!(u16 => i32),
            (Element::Unsigned, 4) => numbers!(u32 => i64),
            (Element::Unsigned, _) => Values::from(self.decode(reader, elements, |bytes| {
                let bytes = bytes.try_into().unwrap_or_default();
                let value = match self.order {
                    ByteOrder::Little => u64::from_le_bytes(bytes),
                    ByteOrder::Big => u64::from_be_bytes(bytes),
                };
                i64::try_from(value).map_err(|_| {
                    NpyError::Value(format!("holds {value}, past int64; save smaller integers"))
                })
            })?),
            (Element::Float, 2) => numbers!(f16 => f32),
            (Element::Float, 4) => numbers!(f32 => f32),
            (Element::Float, _) => numbers!(f64 => f64),
            (Element::Unicode, _) => {
                Values::from(self.decode(reader, elements, |b| self.unicode(b))?)
            }
            (Element::Bytes, _) => Values::from(self.decode(reader, elements, |bytes| {
                let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
                String::from_utf8(bytes[..end].to_vec()).map_err(|_| {
                    NpyError::Value(
                        "holds bytes that are not UTF-8; save it with astype('U')".into(),
                    )
                })
            })?),
        })
    }

    /// Calls `decode` with the bytes of each element, reading in chunks.
    fn decode<T>(
        &self,
        reader: &mut impl Read,
        elements: usize,
        decode: impl Fn(&[u8]) -> Result<T, NpyError>,
    ) -> Result<Vec<T>, NpyError> {
        let mut values = Vec::with_capacity(elements.min(RESERVED_ELEMENTS));
        let per_chunk = (CHUNK_BYTES / self.item_bytes).max(1);
        let mut chunk = vec![0; per_chunk.min(elements) * self.item_bytes];
        while values.len() < elements {
            let wanted = per_chunk.min(elements - values.len());
            let bytes = &mut chunk[..wanted * self.item_bytes];
            reader.read_exact(bytes)?;
            for item in bytes.chunks_exact(self.item_bytes) {
                values.push(decode(item)?);
            }
        }
        values.shrink_to_fit();
        Ok(values)
    }

    fn unicode(&self, bytes: &[u8]) -> Result<String, NpyError> {
        let mut points: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|b| match (self.order, b.try_into().unwrap_or_default()) {
                (ByteOrder::Little, b) => u32::from_le_bytes(b),
                (ByteOrder::Big, b) => u32::from_be_bytes(b),
            })
            .collect();
        while points.last() == Some(&0) {
            points.pop();
        }
        let text: Option<String> = points.into_iter().map(char::from_u32).collect();
        text.ok_or_else(|| NpyError::Damaged("it holds text that is not Unicode".to_string()))
    }
}

/// Elements in which the first axis varies fastest, with the last axis fastest instead.
fn row_major(shape: &[usize], values: Values) -> Values {
    match values {
        Values::F16(v) => transposed(shape, v).into(),
        Values::F32(v) => transposed(shape, v).into(),
        Values::F64(v) => transposed(shape, v).into(),
        Values::I64(v) => transposed(shape, v).into(),
        Values::I32(v) => transposed(shape, v).into(),
        Values::I8(v) => transposed(shape, v).into(),
        Values::U8(v) => transposed(shape, v).into(),
        Values::Bool(v) => transposed(shape, v).into(),
        Values::Str(v) => transposed(shape, v).into(),
    }
}

fn transposed<T: Clone>(shape: &[usize], values: Vec<T>) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &size in shape {
        strides.push(stride);
        stride *= size;
    }
    let mut out = Vec::with_capacity(values.len());
    let mut index = vec![0; shape.len()];
    let mut offset = 0;
    for _ in 0..values.len() {
        out.push(values[offset].clone());
        // Counts up with the last axis fastest, as an odometer does.
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}
