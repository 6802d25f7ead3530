//! Typed access to [`TensorProto`], whose elements may lie in `raw_data` or in a typed field.

use bytes::Bytes;
use half::{bf16, f16};

use crate::proto::{DataLocation, DataType, TensorProto};
use crate::{OnnxError, Result};

/// Bits that one element takes in `raw_data`, or `None` for strings.
pub fn bits_per_element(data_type: DataType) -> Option<u64> {
    use DataType::*;
    Some(match data_type {
        Undefined | String => return None,
        Uint2 | Int2 => 2,
        Uint4 | Int4 | Float4e2m1 => 4,
        Float6e2m3 | Float6e3m2 => 6,
        Uint8 | Int8 | Bool | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz
        | Float8e8m0 => 8,
        Uint16 | Int16 | Float16 | Bfloat16 => 16,
        Float | Int32 | Uint32 => 32,
        Double | Int64 | Uint64 | Complex64 => 64,
        Complex128 => 128,
    })
}

/// Bytes that `elements` of `data_type` take in `raw_data`; `None` for strings or on overflow.
pub fn payload_bytes(data_type: DataType, elements: u64) -> Option<u64> {
    Some(elements.checked_mul(bits_per_element(data_type)?)?.div_ceil(8))
}

fn proto_dims(dims: &[usize]) -> Vec<i64> {
    dims.iter().map(|&d| d as i64).collect()
}

fn raw(name: &str, dims: &[usize], data_type: DataType, bytes: Vec<u8>) -> TensorProto {
    debug_assert_eq!(
        payload_bytes(data_type, dims.iter().product::<usize>() as u64),
        Some(bytes.len() as u64),
        "payload of '{name}' must match its shape"
    );
    TensorProto {
        dims: proto_dims(dims),
        data_type: Some(data_type as i32),
        name: Some(name.to_string()),
        raw_data: Some(Bytes::from(bytes)),
        ..TensorProto::default()
    }
}

macro_rules! from_little_endian {
    ($($(#[$doc:meta])* $method:ident, $element:ty, $data_type:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// `values.len()` must be the product of `dims`.
        pub fn $method(name: &str, dims: &[usize], values: &[$element]) -> TensorProto {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            raw(name, dims, DataType::$data_type, bytes)
        }
    )*};
}

impl TensorProto {
    from_little_endian! {
        /// A FLOAT tensor.
        from_f32, f32, Float;
        /// A DOUBLE tensor.
        from_f64, f64, Double;
        /// An INT64 tensor.
        from_i64, i64, Int64;
        /// An INT32 tensor.
        from_i32, i32, Int32;
        /// A UINT8 tensor.
        from_u8, u8, Uint8;
        /// An INT8 tensor.
        from_i8, i8, Int8;
    }

    /// A tensor of any type from its little-endian payload, as `raw_data` holds it.
    pub fn from_raw(
        name: &str,
        dims: &[usize],
        data_type: DataType,
        bytes: Vec<u8>,
    ) -> TensorProto {
        raw(name, dims, data_type, bytes)
    }

    /// A number of a type of floats; none where the type is another.
    pub fn from_float(value: f32, data_type: DataType) -> Option<TensorProto> {
        let bytes = match data_type {
            DataType::Float => value.to_le_bytes().to_vec(),
            DataType::Double => f64::from(value).to_le_bytes().to_vec(),
            DataType::Float16 => f16::from_f32(value).to_le_bytes().to_vec(),
            DataType::Bfloat16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            _ => return None,
        };
        Some(raw("", &[], data_type, bytes))
    }

    /// A STRING tensor.
    pub fn from_strings<S: AsRef<str>>(name: &str, dims: &[usize], values: &[S]) -> TensorProto {
        TensorProto {
            dims: proto_dims(dims),
            data_type: Some(DataType::String as i32),
            name: Some(name.to_string()),
            string_data: values
                .iter()
                .map(|v| Bytes::copy_from_slice(v.as_ref().as_bytes()))
                .collect(),
            ..TensorProto::default()
        }
    }

    /// Whether its elements are floats of 16, 32 or 64 bits.
    pub fn is_float(&self) -> bool {
        matches!(
            self.element_type(),
            Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16)
        )
    }

    /// The element type.
    ///
    /// # Errors
    /// If ONNX has no type of that number.
    pub fn element_type(&self) -> Result<DataType> {
        let number = self.data_type();
        match DataType::try_from(number) {
            Ok(DataType::Undefined) | Err(_) => Err(OnnxError::UnknownDataType {
                tensor: self.name().to_string(),
                data_type: number,
            }),
            Ok(data_type) => Ok(data_type),
        }
    }

    /// The shape, checked to be non-negative.
    ///
    /// # Errors
    /// If a size is negative.
    pub fn shape(&self) -> Result<Vec<usize>> {
        let shape: Option<Vec<usize>> =
            self.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        shape.ok_or_else(|| self.impossible_shape())
    }

    /// The number of elements that the shape asks for.
    ///
    /// # Errors
    /// If a size is negative, or the elements are more than a file can hold.
    pub fn element_count(&self) -> Result<usize> {
        self.shape()?
            .iter()
            .try_fold(1usize, |product, &d| product.checked_mul(d))
            .filter(|&count| u64::try_from(count).is_ok_and(|c| c < 1 << 48))
            .ok_or_else(|| self.impossible_shape())
    }

    /// Checks that the payload has the length that shape and type ask for.
    ///
    /// External data must have been resolved before.
    ///
    /// # Errors
    /// If it has not, or its type or shape is none.
    pub fn check(&self) -> Result<()> {
        let data_type = self.element_type()?;
        let elements = self.element_count()? as u64;
        let wrong = |expected_bytes, actual_bytes| {
            Err(OnnxError::TensorLength {
                tensor: self.name().to_string(),
                shape: self.dims.clone(),
                data_type: format!("{data_type:?}"),
                expected_bytes,
                actual_bytes,
            })
        };
        if data_type == DataType::String {
            let held = self.string_data.len() as u64;
            return if held == elements { Ok(()) } else { wrong(elements, held) };
        }
        let expected = payload_bytes(data_type, elements).ok_or_else(|| self.impossible_shape())?;
        if let Some(raw) = &self.raw_data
            && !(raw.is_empty() && self.has_typed_data())
        {
            let held = raw.len() as u64;
            return if held == expected { Ok(()) } else { wrong(expected, held) };
        }
        // Typed fields: narrow types travel as int32, sub-byte types two or four to an entry.
        let (held, per_entry) = match data_type {
            DataType::Float => (self.float_data.len(), 1),
            DataType::Complex64 => (self.float_data.len() / 2, 1),
            DataType::Double => (self.double_data.len(), 1),
            DataType::Complex128 => (self.double_data.len() / 2, 1),
            DataType::Int64 => (self.int64_data.len(), 1),
            DataType::Uint32 | DataType::Uint64 => (self.uint64_data.len(), 1),
            DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => (self.int32_data.len(), 2),
            DataType::Uint2 | DataType::Int2 => (self.int32_data.len(), 4),
            _ => (self.int32_data.len(), 1),
        };
        let expected_entries = elements.div_ceil(per_entry);
        if held as u64 == expected_entries {
            Ok(())
        } else {
            let entry_bytes = expected.div_ceil(expected_entries.max(1));
            wrong(expected, held as u64 * entry_bytes)
        }
    }

    /// Whether the payload lies in another file.
    pub fn is_external(&self) -> bool {
        self.data_location() == DataLocation::External
    }

    /// The values of a FLOAT, DOUBLE, FLOAT16 or BFLOAT16 tensor as `f32`.
    ///
    /// # Errors
    /// If it is of another type or [damaged](TensorProto::check).
    pub fn floats(&self) -> Result<Vec<f32>> {
        self.check()?;
        let data_type = self.element_type()?;
        if self.has_typed_data() {
            return match data_type {
                DataType::Float => Ok(self.float_data.clone()),
                DataType::Double => Ok(self.double_data.iter().map(|&v| v as f32).collect()),
                DataType::Float16 => {
                    Ok(self.int32_data.iter().map(|&v| f16::from_bits(v as u16).to_f32()).collect())
                }
                DataType::Bfloat16 => Ok(self
                    .int32_data
                    .iter()
                    .map(|&v| bf16::from_bits(v as u16).to_f32())
                    .collect()),
                _ => Err(self.wrong_type("a float type")),
            };
        }
        let mut values = Vec::with_capacity(self.element_count()?);
        self.extend_floats(self.raw_data(), &mut values)?;
        Ok(values)
    }

    /// Appends the floats in `bytes`, a part of this tensor's `raw_data`.
    pub(crate) fn extend_floats(&self, bytes: &[u8], values: &mut Vec<f32>) -> Result<()> {
        match self.element_type()? {
            DataType::Float => values.extend(words(bytes, f32::from_le_bytes)),
            DataType::Double => values.extend(words(bytes, f64::from_le_bytes).map(|v| v as f32)),
            DataType::Float16 => values.extend(words(bytes, f16::from_le_bytes).map(f16::to_f32)),
            DataType::Bfloat16 => {
                values.extend(words(bytes, bf16::from_le_bytes).map(bf16::to_f32))
            }
            _ => return Err(self.wrong_type("a float type")),
        }
        Ok(())
    }

    /// The values of a DOUBLE or any narrower float tensor as `f64`.
    ///
    /// # Errors
    /// If it is of another type or [damaged](TensorProto::check).
    pub fn doubles(&self) -> Result<Vec<f64>> {
        if self.element_type()? != DataType::Double {
            return Ok(self.floats()?.into_iter().map(f64::from).collect());
        }
        self.check()?;
        Ok(if self.has_typed_data() {
            self.double_data.clone()
        } else {
            words(self.raw_data(), f64::from_le_bytes).collect()
        })
    }

    /// The values of any integer or BOOL tensor as `i64`.
    ///
    /// # Errors
    /// If it is of another type or [damaged](TensorProto::check).
    pub fn ints(&self) -> Result<Vec<i64>> {
        self.ints_as(|value| value)
    }

    /// The lower 16 bits of the values of any integer or BOOL tensor: all of those that have no more,
    /// such as quantized weights, in a quarter of the memory.
    ///
    /// # Errors
    /// If it is of another type or [damaged](TensorProto::check).
    pub fn shorts(&self) -> Result<Vec<i16>> {
        self.ints_as(|value| value as i16)
    }

    fn ints_as<T>(&self, convert: impl Fn(i64) -> T) -> Result<Vec<T>> {
        self.check()?;
        let data_type = self.element_type()?;
        let count = self.element_count()?;
        if let Some((bits, signed)) = sub_byte(data_type) {
            let bytes: Vec<u8> = if self.has_typed_data() {
                self.int32_data.iter().map(|&v| v as u8).collect()
            } else {
                self.raw_data().to_vec()
            };
            let per_byte = 8 / bits;
            let value = |i: usize| {
                let field =
                    i64::from(bytes[i / per_byte] >> ((i % per_byte) * bits)) & ((1 << bits) - 1);
                if signed && field >= 1 << (bits - 1) { field - (1 << bits) } else { field }
            };
            return Ok((0..count).map(value).map(convert).collect());
        }
        if self.has_typed_data() {
            return match data_type {
                DataType::Int64 => Ok(self.int64_data.iter().copied().map(convert).collect()),
                DataType::Uint32 | DataType::Uint64 => {
                    Ok(self.uint64_data.iter().map(|&v| v as i64).map(convert).collect())
                }
                DataType::Int32
                | DataType::Int16
                | DataType::Int8
                | DataType::Uint16
                | DataType::Uint8
                | DataType::Bool => {
                    Ok(self.int32_data.iter().map(|&v| i64::from(v)).map(convert).collect())
                }
                _ => Err(self.wrong_type("an integer type")),
            };
        }
        let bytes = self.raw_data();
        Ok(match data_type {
            DataType::Int64 => words(bytes, i64::from_le_bytes).map(convert).collect(),
            DataType::Uint64 => {
                words(bytes, u64::from_le_bytes).map(|v| v as i64).map(convert).collect()
            }
            DataType::Int32 => {
                words(bytes, i32::from_le_bytes).map(i64::from).map(convert).collect()
            }
            DataType::Uint32 => {
                words(bytes, u32::from_le_bytes).map(i64::from).map(convert).collect()
            }
            DataType::Int16 => {
                words(bytes, i16::from_le_bytes).map(i64::from).map(convert).collect()
            }
            DataType::Uint16 => {
                words(bytes, u16::from_le_bytes).map(i64::from).map(convert).collect()
            }
            DataType::Int8 => bytes.iter().map(|&v| i64::from(v as i8)).map(convert).collect(),
            DataType::Uint8 | DataType::Bool => {
                bytes.iter().map(|&v| i64::from(v)).map(convert).collect()
            }
            _ => return Err(self.wrong_type("an integer type")),
        })
    }

    /// The values of a STRING tensor; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// If it is of another type or [damaged](TensorProto::check).
    pub fn strings(&self) -> Result<Vec<String>> {
        self.check()?;
        if self.element_type()? != DataType::String {
            return Err(self.wrong_type("STRING"));
        }
        Ok(self.string_data.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect())
    }

    /// Bytes of the payload as stored, strings included.
    pub fn stored_bytes(&self) -> u64 {
        let typed = self.float_data.len() * 4
            + self.int32_data.len() * 4
            + self.int64_data.len() * 8
            + self.double_data.len() * 8
            + self.uint64_data.len() * 8
            + self.string_data.iter().map(|s| s.len()).sum::<usize>();
        (self.raw_data().len() + typed) as u64
    }

    fn has_typed_data(&self) -> bool {
        !(self.float_data.is_empty()
            && self.int32_data.is_empty()
            && self.int64_data.is_empty()
            && self.double_data.is_empty()
            && self.uint64_data.is_empty())
    }

    fn impossible_shape(&self) -> OnnxError {
        OnnxError::TensorShape { tensor: self.name().to_string(), shape: self.dims.clone() }
    }

    fn wrong_type(&self, expected: &'static str) -> OnnxError {
        OnnxError::TensorType {
            tensor: self.name().to_string(),
            data_type: DataType::try_from(self.data_type())
                .map_or_else(|_| self.data_type().to_string(), |t| format!("{t:?}")),
            expected,
        }
    }
}

/// Bits and signedness of the integer types that share a byte.
fn sub_byte(data_type: DataType) -> Option<(usize, bool)> {
    match data_type {
        DataType::Uint4 => Some((4, false)),
        DataType::Int4 => Some((4, true)),
        DataType::Uint2 => Some((2, false)),
        DataType::Int2 => Some((2, true)),
        _ => None,
    }
}

fn words<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    let (words, _) = bytes.as_chunks::<N>();
    words.iter().map(move |&word| read(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_and_raw_payloads_read_the_same() {
        let raw = TensorProto::from_f32("t", &[2], &[1.5, -2.0]);
        let typed = TensorProto { raw_data: None, float_data: vec![1.5, -2.0], ..raw.clone() };
        assert_eq!(raw.floats().unwrap(), typed.floats().unwrap());
        let half = TensorProto::from_raw("h", &[1], DataType::Float16, vec![0x00, 0x3e]);
        assert_eq!(half.floats().unwrap(), [1.5]);
    }

    #[test]
    fn four_bit_integers_read_low_nibble_first() {
        let signed = TensorProto::from_raw("t", &[3], DataType::Int4, vec![0xf1, 0x08]);
        assert_eq!(signed.ints().unwrap(), [1, -1, -8]);
        let unsigned = TensorProto::from_raw("t", &[3], DataType::Uint4, vec![0xf1, 0x08]);
        assert_eq!(unsigned.ints().unwrap(), [1, 15, 8]);
    }

    #[test]
    fn wrong_lengths_types_and_shapes_are_refused() {
        let mut tensor = TensorProto::from_f32("t", &[2], &[1.0, 2.0]);
        tensor.dims = vec![3];
        assert!(matches!(tensor.floats(), Err(OnnxError::TensorLength { .. })));
        tensor.dims = vec![-2];
        assert!(matches!(tensor.floats(), Err(OnnxError::TensorShape { .. })));
        tensor.dims = vec![i64::MAX, i64::MAX];
        assert!(matches!(tensor.floats(), Err(OnnxError::TensorShape { .. })));
        tensor.dims = vec![2];
        tensor.data_type = Some(99);
        assert!(matches!(tensor.floats(), Err(OnnxError::UnknownDataType { .. })));
        let ints = TensorProto::from_i64("i", &[1], &[7]);
        assert!(matches!(ints.floats(), Err(OnnxError::TensorType { .. })));
    }
}
