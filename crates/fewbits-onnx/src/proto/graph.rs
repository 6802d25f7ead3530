//! The model, its graphs, nodes and attributes.

use bytes::Bytes;

use super::*;

/// Models ModelProto is a top-level file/container format for bundling a ML model and
/// associating its computation graph with metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProto {
    /// The version of the IR this model targets.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// The OperatorSets this model relies on.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The name of the framework or tool used to generate this model.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// The version of the framework or tool used to generate this model.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// Domain name of the model.
    #[prost(string, optional, tag = "4")]
    pub domain: Option<String>,
    /// The version of the graph encoded.
    #[prost(int64, optional, tag = "5")]
    pub model_version: Option<i64>,
    /// A human-readable documentation for this model.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// The parameterized graph that is evaluated to execute the model.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Named metadata values; keys should be distinct.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// Training-specific information.
    #[prost(message, repeated, tag = "20")]
    pub training_info: Vec<TrainingInfoProto>,
    /// A list of function protos local to the model.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
    /// Describes different target configurations for a multi-device use case.
    #[prost(message, repeated, tag = "26")]
    pub configuration: Vec<DeviceConfigurationProto>,
}

/// Graphs A graph defines the computational logic of a model and is comprised of a
/// parameterized list of nodes that form a directed acyclic graph based on their inputs and
/// outputs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GraphProto {
    /// The nodes in the graph, sorted topologically.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// The name of the graph.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// A list of named tensor values, used to specify constant inputs of the graph.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Initializers (see above) stored in sparse format.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensorProto>,
    /// A human-readable documentation for this graph.
    #[prost(string, optional, tag = "10")]
    pub doc_string: Option<String>,
    /// The inputs and outputs of the graph.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Information for the values in the graph.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
    /// This field carries information to indicate the mapping among a tensor and its quantization
    /// parameter tensors.
    #[prost(message, repeated, tag = "14")]
    pub quantization_annotation: Vec<TensorAnnotation>,
    /// Named metadata values; keys should be distinct.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// Nodes Computation graphs are made up of a DAG of nodes, which represent what is commonly
/// called a "layer" or "pipeline stage" in machine learning frameworks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeProto {
    /// namespace Value
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// namespace Value
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// An optional identifier for this node in a graph.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// The symbolic identifier of the Operator to execute.
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// The domain of the OperatorSet that specifies the operator named by op_type.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
    /// Overload identifier, used only to map this to a model-local function.
    #[prost(string, optional, tag = "8")]
    pub overload: Option<String>,
    /// Additional named attributes.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// A human-readable documentation for this node.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// Named metadata values; keys should be distinct.
    #[prost(message, repeated, tag = "9")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// Configuration of multi-device annotations.
    #[prost(message, repeated, tag = "10")]
    pub device_configurations: Vec<NodeDeviceConfigurationProto>,
}

/// Attributes A named attribute containing either singular float, integer, string, graph, and
/// tensor values, or repeated float, integer, string, graph, and tensor values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// The name field MUST be present for this version of the IR.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// if ref_attr_name is not empty, ref_attr_name is the attribute name in parent function.
    #[prost(string, optional, tag = "21")]
    pub ref_attr_name: Option<String>,
    /// A human-readable documentation for this attribute.
    #[prost(string, optional, tag = "13")]
    pub doc_string: Option<String>,
    /// The type field MUST be present for this version of the IR.
    #[prost(enumeration = "AttributeType", optional, tag = "20")]
    pub r#type: Option<i32>,
    /// Exactly ONE of the following fields must be present for this version of the IR
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// int
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// UTF-8 string
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    /// tensor value
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    /// graph
    #[prost(message, optional, tag = "6")]
    pub g: Option<GraphProto>,
    /// sparse tensor value
    #[prost(message, optional, tag = "22")]
    pub sparse_tensor: Option<SparseTensorProto>,
    /// Do not use field below, it's deprecated.
    #[prost(message, optional, tag = "14")]
    pub tp: Option<TypeProto>,
    /// list of floats
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// list of ints
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// list of UTF-8 strings
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
    /// list of tensors
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<TensorProto>,
    /// list of graph
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// list of sparse tensors
    #[prost(message, repeated, tag = "23")]
    pub sparse_tensors: Vec<SparseTensorProto>,
    /// list of type protos
    #[prost(message, repeated, tag = "15")]
    pub type_protos: Vec<TypeProto>,
}

/// Note: this enum is structurally identical to the OpSchema::AttrType enum defined in
/// schema.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AttributeType {
    Undefined = 0,
    Float = 1,
    Int = 2,
    String = 3,
    Tensor = 4,
    Graph = 5,
    SparseTensor = 11,
    TypeProto = 13,
    Floats = 6,
    Ints = 7,
    Strings = 8,
    Tensors = 9,
    Graphs = 10,
    SparseTensors = 12,
    TypeProtos = 14,
}

/// FunctionProto of the ONNX specification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FunctionProto {
    /// The name of the function, similar to op_type in NodeProto.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The inputs and outputs of the function.
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    /// The attribute parameters of the function.
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    /// The attribute protos of the function.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// The nodes in the function.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    /// A human-readable documentation for this function.
    #[prost(string, optional, tag = "8")]
    pub doc_string: Option<String>,
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The domain which this function belongs to.
    #[prost(string, optional, tag = "10")]
    pub domain: Option<String>,
    /// The overload identifier of the function.
    #[prost(string, optional, tag = "13")]
    pub overload: Option<String>,
    /// Information for the values in the function.
    #[prost(message, repeated, tag = "12")]
    pub value_info: Vec<ValueInfoProto>,
    /// Named metadata values; keys should be distinct.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// Operator Sets OperatorSets are uniquely identified by a (domain, opset_version) pair.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetIdProto {
    /// The domain of the operator set being identified.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// The version of the operator set being identified.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// Training information TrainingInfoProto stores information for training a model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrainingInfoProto {
    /// This field describes a graph to compute the initial tensors upon starting the training
    /// process.
    #[prost(message, optional, tag = "1")]
    pub initialization: Option<GraphProto>,
    /// This field represents a training algorithm step.
    #[prost(message, optional, tag = "2")]
    pub algorithm: Option<GraphProto>,
    /// This field specifies the bindings from the outputs of "initialization" to some
    /// initializers in "ModelProto.graph.initializer" and the "algorithm.initializer" in the same
    /// TrainingInfoProto.
    #[prost(message, repeated, tag = "3")]
    pub initialization_binding: Vec<StringStringEntryProto>,
    /// Gradient-based training is usually an iterative procedure.
    #[prost(message, repeated, tag = "4")]
    pub update_binding: Vec<StringStringEntryProto>,
}
