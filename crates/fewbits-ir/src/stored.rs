//! How what serde cannot write by itself is stored, so that it is read back the same to the bit.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fewbits_onnx::Model;
use fewbits_onnx::proto::DataType;
use fewbits_quant::{Encoding, Granularity, Layout, PackedInts, QTensor, QuantParams};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::tensor::{Tensor, Values};

/// Bytes as base64.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Bytes(String);

impl Bytes {
    fn new(bytes: &[u8]) -> Bytes {
        Bytes(STANDARD.encode(bytes))
    }

    fn read<E: Error>(&self) -> Result<Vec<u8>, E> {
        STANDARD.decode(&self.0).map_err(|e| E::custom(format!("no base64: {e}")))
    }
}

/// Numbers of `N` bytes each, the lowest byte first.
fn numbers<T, const N: usize, E: Error>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, E> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(E::custom(format!("{} bytes are no numbers of {N}", bytes.len())));
    }
    Ok(chunks.iter().map(|&chunk| number(chunk)).collect())
}

/// Numbers of four bytes, for each column of a product or each channel.
pub(crate) mod per_column {
    use super::*;

    /// A number that is stored as its four bytes.
    pub trait Number: Copy {
        fn bytes(self) -> [u8; 4];
        fn of(bytes: [u8; 4]) -> Self;
    }

    impl Number for f32 {
        fn bytes(self) -> [u8; 4] {
            self.to_le_bytes()
        }

        fn of(bytes: [u8; 4]) -> f32 {
            f32::from_le_bytes(bytes)
        }
    }

    impl Number for i32 {
        fn bytes(self) -> [u8; 4] {
            self.to_le_bytes()
        }

        fn of(bytes: [u8; 4]) -> i32 {
            i32::from_le_bytes(bytes)
        }
    }

    /// Writes numbers.
    pub fn serialize<T: Number, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.bytes()).collect();
        Bytes::new(&bytes).serialize(to)
    }

    /// Reads numbers.
    pub fn deserialize<'de, T: Number, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        numbers(&Bytes::deserialize(from)?.read()?, T::of)
    }

    /// The same for numbers that may be absent.
    pub mod optional {
        use super::*;

        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct Column<T: Number>(#[serde(with = "super")] Vec<T>);

        /// Writes numbers, if there are any.
        pub fn serialize<T: Number, S: Serializer>(
            values: &Option<Vec<T>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            values.clone().map(Column).serialize(to)
        }

        /// Reads numbers, if there are any.
        pub fn deserialize<'de, T: Number, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Vec<T>>, D::Error> {
            Ok(Option::<Column<T>>::deserialize(from)?.map(|column| column.0))
        }
    }
}

/// The 256 bytes of a table.
pub(crate) mod table {
    use super::*;

    /// Writes a table.
    pub fn serialize<S: Serializer>(table: &[u8; 256], to: S) -> Result<S::Ok, S::Error> {
        Bytes::new(table).serialize(to)
    }

    /// Reads a table.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[u8; 256]>, D::Error> {
        let bytes = Bytes::deserialize(from)?.read()?;
        let table = <[u8; 256]>::try_from(bytes.as_slice());
        Ok(Box::new(table.map_err(|_| D::Error::custom("a table does not have 256 bytes"))?))
    }
}

/// An element type, by its number in ONNX.
pub(crate) mod data_type {
    use super::*;

    /// Writes an element type.
    pub fn serialize<S: Serializer>(data_type: &DataType, to: S) -> Result<S::Ok, S::Error> {
        (*data_type as i32).serialize(to)
    }

    /// Reads an element type.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DataType, D::Error> {
        DataType::try_from(i32::deserialize(from)?).map_err(D::Error::custom)
    }

    /// The same for one that may not be known.
    pub mod optional {
        use super::*;

        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct Known(#[serde(with = "super")] DataType);

        /// Writes an element type, if it is known.
        pub fn serialize<S: Serializer>(
            data_type: &Option<DataType>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            data_type.map(Known).serialize(to)
        }

        /// Reads an element type, if it is known.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<DataType>, D::Error> {
            Ok(Option::<Known>::deserialize(from)?.map(|known| known.0))
        }
    }
}

/// A model, as its ONNX bytes.
pub(crate) mod model {
    use super::*;

    /// Writes a model.
    pub fn serialize<S: Serializer>(model: &Model, to: S) -> Result<S::Ok, S::Error> {
        Bytes::new(&model.to_bytes()).serialize(to)
    }

    /// Reads a model.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Model, D::Error> {
        Model::from_bytes(Bytes::deserialize(from)?.read()?.into()).map_err(D::Error::custom)
    }
}

/// A quantized tensor that several steps may share.
pub(crate) mod qtensor {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Parts {
        shape: Vec<usize>,
        granularity: Granularity,
        width: u8,
        encoding: Encoding,
        codes: Bytes,
        scale: Bytes,
        zero_point: Vec<u8>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        coded_scales: Option<Box<Parts>>,
    }

    impl Parts {
        fn of(tensor: &QTensor) -> Parts {
            let (layout, codes) = (tensor.layout(), tensor.codes());
            let scale: Vec<u8> =
                tensor.params().scale.iter().flat_map(|s| s.to_le_bytes()).collect();
            Parts {
                shape: layout.shape().to_vec(),
                granularity: layout.granularity(),
                width: codes.width(),
                encoding: codes.encoding(),
                codes: Bytes::new(codes.bytes()),
                scale: Bytes::new(&scale),
                zero_point: tensor.params().zero_point.clone(),
                coded_scales: tensor.coded_scales().map(|coded| Box::new(Parts::of(coded))),
            }
        }

        fn joined<E: Error>(self) -> Result<QTensor, E> {
            let layout = Layout::new(&self.shape, self.granularity).map_err(E::custom)?;
            let elements = layout.elements();
            let codes =
                PackedInts::from_bytes(self.codes.read()?, elements, self.width, self.encoding);
            let codes = codes.ok_or_else(|| E::custom("codes do not fill a quantized tensor"))?;
            let tensor = match self.coded_scales {
                Some(coded) => {
                    QTensor::with_coded_scales(layout, coded.joined()?, self.zero_point, codes)
                }
                None => {
                    let scale = numbers(&self.scale.read()?, f32::from_le_bytes)?;
                    QTensor::new(layout, QuantParams { scale, zero_point: self.zero_point }, codes)
                }
            };
            tensor.ok_or_else(|| E::custom("scales do not fit a quantized tensor"))
        }
    }

    /// Writes a quantized tensor.
    pub fn serialize<S: Serializer>(tensor: &Arc<QTensor>, to: S) -> Result<S::Ok, S::Error> {
        Parts::of(tensor).serialize(to)
    }

    /// Reads a quantized tensor.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<QTensor>, D::Error> {
        Ok(Arc::new(Parts::deserialize(from)?.joined()?))
    }
}

#[derive(Serialize, Deserialize)]
struct TensorParts {
    shape: Vec<usize>,
    #[serde(with = "data_type")]
    data_type: DataType,
    #[serde(flatten)]
    elements: Elements,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Elements {
    Bytes(Bytes),
    Strings(Vec<String>),
}

impl Serialize for Tensor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        fn all<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Elements {
            let bytes: Vec<u8> = values.iter().flat_map(|&value| bytes(value)).collect();
            Elements::Bytes(Bytes::new(&bytes))
        }
        let elements = match self.values() {
            Values::F16(v) => all(v, half::f16::to_le_bytes),
            Values::F32(v) => all(v, f32::to_le_bytes),
            Values::F64(v) => all(v, f64::to_le_bytes),
            Values::I64(v) => all(v, i64::to_le_bytes),
            Values::I32(v) => all(v, i32::to_le_bytes),
            Values::I8(v) => all(v, i8::to_le_bytes),
            Values::U8(v) => Elements::Bytes(Bytes::new(v)),
            Values::Bool(v) => all(v, |x| [u8::from(x)]),
            Values::Str(v) => Elements::Strings(v.clone()),
        };
        let (shape, data_type) = (self.shape().to_vec(), self.data_type());
        TensorParts { shape, data_type, elements }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Tensor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Tensor, D::Error> {
        let TensorParts { shape, data_type, elements } = TensorParts::deserialize(from)?;
        let bytes = match elements {
            Elements::Bytes(bytes) => bytes.read()?,
            Elements::Strings(strings) => {
                return Tensor::new(shape, strings).map_err(D::Error::custom);
            }
        };
        let values = match data_type {
            DataType::Float16 => numbers(&bytes, half::f16::from_le_bytes)?.into(),
            DataType::Float => numbers(&bytes, f32::from_le_bytes)?.into(),
            DataType::Double => numbers(&bytes, f64::from_le_bytes)?.into(),
            DataType::Int64 => numbers(&bytes, i64::from_le_bytes)?.into(),
            DataType::Int32 => numbers(&bytes, i32::from_le_bytes)?.into(),
            DataType::Int8 => numbers(&bytes, i8::from_le_bytes)?.into(),
            DataType::Uint8 => Values::U8(bytes),
            DataType::Bool => Values::Bool(bytes.iter().map(|&x| x != 0).collect()),
            other => return Err(D::Error::custom(format!("no tensors of {other:?}"))),
        };
        Tensor::new(shape, values).map_err(D::Error::custom)
    }
}
