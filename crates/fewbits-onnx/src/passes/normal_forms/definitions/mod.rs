//! Operators that executors lack, as the arithmetic that ONNX defines them by.
//!
//! Each is a function that adds the nodes, or says by `None` that it does not know enough of this one.

mod activations;
mod attention;
mod layout;
mod loops;
mod losses;
mod masks;
mod norms;
mod recurrences;
mod signals;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::{HashMap, HashSet};

use crate::facts::{Dims, ElementTypes};
use crate::graph::Names;
use crate::passes::constants::constants_to_initializers;
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Adds the nodes that give what an operator gives.
type Define = fn(&NodeProto, &Known, &mut Emit) -> Option<()>;

const DEFINITIONS: &[(&str, Define)] = &[
    ("Attention", attention::attention),
    ("AveragePool", volumes::pool),
    ("BlackmanWindow", signals::window),
    ("CausalConvWithState", signals::causal_convolution),
    ("Celu", activations::celu),
    ("Compress", layout::compress),
    ("Conv", volumes::convolution),
    ("Dropout", masks::dropout),
    ("GroupNormalization", norms::group),
    ("GRU", recurrences::layer),
    ("HammingWindow", signals::window),
    ("HannWindow", signals::window),
    ("Hardmax", activations::hardmax),
    ("IsInf", masks::is_infinite),
    ("LpPool", volumes::pool),
    ("LRN", norms::local_response),
    ("LSTM", recurrences::layer),
    ("MaxPool", volumes::pool),
    ("MeanVarianceNormalization", norms::mean_variance),
    ("Mish", activations::mish),
    ("NegativeLogLikelihoodLoss", losses::negative_log_likelihood),
    ("OneHot", masks::one_hot),
    ("Pad", layout::pad),
    ("RNN", recurrences::layer),
    ("Scan", loops::scan),
    ("Selu", activations::selu),
    ("Shrink", activations::shrink),
    ("SoftmaxCrossEntropyLoss", losses::cross_entropy),
    ("SpaceToDepth", layout::space_to_depth),
    ("SwiGLU", activations::swiglu),
    ("ThresholdedRelu", activations::thresholded_relu),
];

/// Writes out every operator of the table that enough is known of; returns how many.
pub(super) fn write_out(
    graph: &mut GraphProto,
    opset: i64,
    types: &ElementTypes,
    sizes: &HashMap<String, Dims>,
) -> usize {
    if !graph.node.iter().any(|node| DEFINITIONS.iter().any(|(op, _)| node.is(op))) {
        return 0;
    }
    let mut written = 0;
    let mut names = Names::new(graph);
    let replaceable: HashSet<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    let constants = graph.initializer.iter().filter(|t| !replaceable.contains(t.name()));
    let constants = constants.map(|tensor| (tensor.name(), tensor)).collect();
    let known = Known { opset, types, sizes, constants };
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let define = DEFINITIONS.iter().find(|(op, _)| node.is(op));
        let mut emit = Emit::new(&node, "form", &mut names);
        match define.and_then(|(_, define)| define(&node, &known, &mut emit)) {
            Some(()) => {
                written += 1;
                nodes.append(&mut emit.into_nodes());
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
    if written > 0 {
        constants_to_initializers(graph);
    }
    written
}

/// What is known of the graph around a node.
pub(super) struct Known<'a> {
    pub opset: i64,
    types: &'a ElementTypes,
    sizes: &'a HashMap<String, Dims>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

impl Known<'_> {
    /// The element type of a value.
    pub fn data_type(&self, value: &str) -> Option<DataType> {
        self.types.get(value).copied()
    }

    /// The sizes of the axes of a value.
    pub fn dims(&self, value: &str) -> Option<&Dims> {
        self.sizes.get(value)
    }

    /// The number of axes of a value.
    pub fn rank(&self, value: &str) -> Option<i64> {
        i64::try_from(self.dims(value)?.len()).ok()
    }

    /// A constant, if it is one and no caller can replace it.
    pub fn constant(&self, value: &str) -> Option<&TensorProto> {
        self.constants.get(value).copied()
    }

    /// The integers of a constant.
    pub fn ints(&self, value: &str) -> Option<Vec<i64>> {
        self.constant(value)?.ints().ok()
    }

    /// Adds a number of the type of `like`, if that is known to be one of floats.
    pub fn number(&self, value: f32, like: &str, emit: &mut Emit) -> Option<String> {
        let data_type = self.data_type(like)?;
        matches!(data_type, DataType::Float | DataType::Float16).then_some(())?;
        Some(emit.constant(TensorProto::from_float(value, data_type)?))
    }

    /// Adds an integer of the type of `like`.
    pub fn integer(&self, value: i64, like: &str, emit: &mut Emit) -> Option<String> {
        match self.data_type(like)? {
            DataType::Int64 => Some(emit.index(value)),
            DataType::Int32 => Some(emit.int32(i32::try_from(value).ok()?)),
            _ => None,
        }
    }
}

/// The attribute of a node along one axis.
fn along(axis: i64) -> Vec<AttributeProto> {
    vec![AttributeProto::of_int("axis", axis)]
}
