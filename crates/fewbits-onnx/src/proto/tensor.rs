//! Tensors and their element types.

use bytes::Bytes;

use super::StringStringEntryProto;

/// Tensors A serialized tensor value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// The shape of the tensor.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// The data type of the tensor.
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    #[prost(message, optional, tag = "3")]
    pub segment: Option<Segment>,
    /// For float and complex64 values Complex64 tensors are encoded as a single array of floats,
    /// with the real components appearing in odd numbered positions, and the corresponding
    /// imaginary component appearing in the subsequent even numbered position.
    #[prost(float, repeated, packed = "true", tag = "4")]
    pub float_data: Vec<f32>,
    /// For int32, uint8, int8, uint16, int16, uint4, int4, uint2, int2, bool, (b)float16, float8,
    /// and float4: - (b)float16 and float8 values MUST be converted bit-wise into an unsigned
    /// integer representation before being written to the buffer.
    #[prost(int32, repeated, packed = "true", tag = "5")]
    pub int32_data: Vec<i32>,
    /// For strings.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub string_data: Vec<Bytes>,
    /// For int64.
    #[prost(int64, repeated, packed = "true", tag = "7")]
    pub int64_data: Vec<i64>,
    /// Optionally, a name for the tensor.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// A human-readable documentation for this tensor.
    #[prost(string, optional, tag = "12")]
    pub doc_string: Option<String>,
    /// Serializations can either use one of the fields above, or use this raw bytes field.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Data can be stored inside the protobuf file using type-specific fields or raw_data.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// If value not set, data is stored in raw_data (if set) otherwise in type-specified field.
    #[prost(enumeration = "DataLocation", optional, tag = "14")]
    pub data_location: Option<i32>,
    /// For double Complex128 tensors are encoded as a single array of doubles, with the real
    /// components appearing in odd numbered positions, and the corresponding imaginary component
    /// appearing in the subsequent even numbered position.
    #[prost(double, repeated, packed = "true", tag = "10")]
    pub double_data: Vec<f64>,
    /// For uint64 and uint32 values When this field is present, the data_type field MUST be
    /// UINT32 or UINT64
    #[prost(uint64, repeated, packed = "true", tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Named metadata values; keys should be distinct.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// For very large tensors, we may want to store them in chunks, in which case the following
/// fields will specify the segment that is stored in the current TensorProto.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Segment {
    #[prost(int64, optional, tag = "1")]
    pub begin: Option<i64>,
    #[prost(int64, optional, tag = "2")]
    pub end: Option<i64>,
}

/// DataType of the ONNX specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DataType {
    Undefined = 0,
    /// float
    Float = 1,
    /// uint8_t
    Uint8 = 2,
    /// int8_t
    Int8 = 3,
    /// uint16_t
    Uint16 = 4,
    /// int16_t
    Int16 = 5,
    /// int32_t
    Int32 = 6,
    /// int64_t
    Int64 = 7,
    /// string
    String = 8,
    /// bool
    Bool = 9,
    /// IEEE754 half-precision floating-point format (16 bits wide).
    Float16 = 10,
    Double = 11,
    Uint32 = 12,
    Uint64 = 13,
    /// complex with float32 real and imaginary components
    Complex64 = 14,
    /// complex with float64 real and imaginary components
    Complex128 = 15,
    /// Non-IEEE floating-point format based on IEEE754 single-precision floating-point number
    /// truncated to 16 bits.
    Bfloat16 = 16,
    /// float 8, mostly used for coefficients, supports nan, not inf
    Float8e4m3fn = 17,
    /// float 8, mostly used for coefficients, supports nan, not inf, no negative zero
    Float8e4m3fnuz = 18,
    /// follows IEEE 754, supports nan, inf, mostly used for gradients
    Float8e5m2 = 19,
    /// follows IEEE 754, supports nan, not inf, mostly used for gradients, no negative zero
    Float8e5m2fnuz = 20,
    /// Unsigned integer in range \[0, 15\]
    Uint4 = 21,
    /// Signed integer in range \[-8, 7\], using two's-complement representation
    Int4 = 22,
    /// 4-bit floating point data types
    Float4e2m1 = 23,
    /// E8M0 type used as the scale for microscaling (MX) formats:
    /// <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>
    Float8e8m0 = 24,
    /// Unsigned integer in range \[0, 3\]
    Uint2 = 25,
    /// Signed integer in range \[-2, 1\], using two's complement representation
    Int2 = 26,
    /// 6-bit floating point data types based on OCP MX spec FLOAT6E2M3: 1 sign, 2 exp, 3 mant
    /// FLOAT6E3M2: 1 sign, 3 exp, 2 mant
    Float6e2m3 = 27,
    Float6e3m2 = 28,
}

/// Location of the data for this tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DataLocation {
    Default = 0,
    External = 1,
}

/// A serialized sparse-tensor value
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseTensorProto {
    /// The sequence of non-default values are encoded as a tensor of shape \[NNZ\].
    #[prost(message, optional, tag = "1")]
    pub values: Option<TensorProto>,
    /// The indices of the non-default values, which may be stored in one of two formats.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<TensorProto>,
    /// The shape of the underlying dense-tensor: \[dim_1, dim_2, ...
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}
