//! Multi-device annotations: carried through unchanged.

/// DeviceConfigurationProto describes a multi-device configuration for a model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceConfigurationProto {
    /// This field MUST be present for this version of the IR.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// This field MUST be present for this version of the IR.
    #[prost(int32, optional, tag = "2")]
    pub num_devices: Option<i32>,
    /// Optional names of the devices.
    #[prost(string, repeated, tag = "3")]
    pub device: Vec<String>,
}

/// Multi-device configuration proto for NodeProto.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeDeviceConfigurationProto {
    /// This field MUST be present for this version of the IR.
    #[prost(string, optional, tag = "1")]
    pub configuration_id: Option<String>,
    /// Sharding spec for the node.
    #[prost(message, repeated, tag = "2")]
    pub sharding_spec: Vec<ShardingSpecProto>,
    /// Pipeline stage of this node.
    #[prost(int32, optional, tag = "3")]
    pub pipeline_stage: Option<i32>,
}

/// ShardingSpecProto: This describes the sharding spec for a specific input or output tensor
/// of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShardingSpecProto {
    /// This field MUST be present for this version of the IR.
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// The following is the list of devices across which the logical tensor is sharded or
    /// replicated.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub device: Vec<i64>,
    /// Each element v in above field devices may represent either a device or a set of devices
    /// (when we want the same shard/tensor to be replicated across a subset of devices), as
    /// indicated by the following optional map.
    #[prost(message, repeated, tag = "3")]
    pub index_to_device_group_map: Vec<IntIntListEntryProto>,
    /// The following is the sharded-shape of the tensor, consisting of the sharding-spec for each
    /// axis of the tensor.
    #[prost(message, repeated, tag = "4")]
    pub sharded_dim: Vec<ShardedDimProto>,
}

/// ShardedDimProto: This describes the sharding spec for a single axis of a sharded tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ShardedDimProto {
    /// This field MUST be present for this version of the IR.
    #[prost(int64, optional, tag = "1")]
    pub axis: Option<i64>,
    /// Describes how the tensor on the provided axis is sharded.
    #[prost(message, repeated, tag = "2")]
    pub simple_sharding: Vec<SimpleShardedDimProto>,
}

/// SimpleShardedDimProto: Indicates that N blocks are divided into M shards.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SimpleShardedDimProto {
    #[prost(oneof = "ShardDim", tags = "1, 2")]
    pub dim: Option<ShardDim>,
    /// This field MUST be present for this version of the IR.
    #[prost(int64, optional, tag = "3")]
    pub num_shards: Option<i64>,
}

/// The alternatives of [`SimpleShardedDimProto`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ShardDim {
    #[prost(int64, tag = "1")]
    DimValue(i64),
    #[prost(string, tag = "2")]
    DimParam(String),
}

/// IntIntListEntryProto follows the pattern for cross-proto-version maps.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IntIntListEntryProto {
    #[prost(int64, optional, tag = "1")]
    pub key: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub value: Vec<i64>,
}
