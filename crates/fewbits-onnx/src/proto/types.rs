//! Value types, shapes and the small records shared by all messages.

/// Types The standard ONNX data types.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    #[prost(oneof = "TypeValue", tags = "1, 4, 5, 9, 8, 7")]
    pub value: Option<TypeValue>,
    /// An optional denotation can be used to denote the whole type with a standard semantic
    /// description as to what is stored inside.
    #[prost(string, optional, tag = "6")]
    pub denotation: Option<String>,
}

/// The alternatives of [`TypeProto`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TypeValue {
    /// The type of a tensor.
    #[prost(message, tag = "1")]
    TensorType(TensorType),
    /// The type of a sequence.
    #[prost(message, tag = "4")]
    SequenceType(SequenceType),
    /// The type of a map.
    #[prost(message, tag = "5")]
    MapType(MapType),
    /// The type of an optional.
    #[prost(message, tag = "9")]
    OptionalType(OptionalType),
    /// Type of the sparse tensor
    #[prost(message, tag = "8")]
    SparseTensorType(SparseTensorType),
    #[prost(message, tag = "7")]
    OpaqueType(OpaqueType),
}

/// TensorType of the ONNX specification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorType {
    /// This field MUST NOT have the value of UNDEFINED This field MUST have a valid
    /// TensorProto.DataType value This field MUST be present for this version of the IR.
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// repeated T
#[derive(Clone, PartialEq, prost::Message)]
pub struct SequenceType {
    /// The type and optional shape of each element of the sequence.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// map\<K,V>
#[derive(Clone, PartialEq, prost::Message)]
pub struct MapType {
    /// This field MUST have a valid TensorProto.DataType value This field MUST be present for
    /// this version of the IR.
    #[prost(int32, optional, tag = "1")]
    pub key_type: Option<i32>,
    /// This field MUST be present for this version of the IR.
    #[prost(message, optional, boxed, tag = "2")]
    pub value_type: Option<Box<TypeProto>>,
}

/// wrapper for Tensor, Sequence, or Map
#[derive(Clone, PartialEq, prost::Message)]
pub struct OptionalType {
    /// The type and optional shape of the element wrapped.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// SparseTensorType of the ONNX specification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseTensorType {
    /// This field MUST NOT have the value of UNDEFINED This field MUST have a valid
    /// TensorProto.DataType value This field MUST be present for this version of the IR.
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// OpaqueType of the ONNX specification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpaqueType {
    /// When missing, the domain is the same as the model's.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// The name is optional but significant when provided.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}

/// Defines a tensor shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// Dimension of the ONNX specification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    #[prost(oneof = "DimValue", tags = "1, 2")]
    pub value: Option<DimValue>,
    /// Standard denotation can optionally be used to denote tensor dimensions with standard
    /// semantic descriptions to ensure that operations are applied to the correct axis of a
    /// tensor.
    #[prost(string, optional, tag = "3")]
    pub denotation: Option<String>,
}

/// The alternatives of [`Dimension`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum DimValue {
    #[prost(int64, tag = "1")]
    DimValue(i64),
    /// namespace Shape
    #[prost(string, tag = "2")]
    DimParam(String),
}

/// Defines information on value, including the name, the type, and the shape of the value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfoProto {
    /// This field MUST be present in this version of the IR.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// This field MUST be present in this version of the IR for inputs and outputs of the
    /// top-level graph.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    /// A human-readable documentation for this value.
    #[prost(string, optional, tag = "3")]
    pub doc_string: Option<String>,
    /// Named metadata values; keys should be distinct.
    #[prost(message, repeated, tag = "4")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// StringStringEntryProto follows the pattern for cross-proto-version maps.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntryProto {
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// TensorAnnotation of the ONNX specification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorAnnotation {
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// \<key, value> pairs to annotate tensor specified by \<tensor_name> above.
    #[prost(message, repeated, tag = "2")]
    pub quant_parameter_tensor_names: Vec<StringStringEntryProto>,
}
