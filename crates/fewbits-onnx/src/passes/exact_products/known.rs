//! What is known of the values of a graph before it runs, as far as products of bytes ask.

use std::collections::HashMap;

use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// Constants of bytes, and the ranks of values.
#[derive(Clone, Default)]
pub(super) struct Known {
    constants: HashMap<String, TensorProto>,
    ranks: HashMap<String, usize>,
}

impl Known {
    /// This, and what a graph inside says.
    pub fn with_graph(&self, graph: &GraphProto) -> Known {
        let mut known = self.clone();
        for info in graph.input.iter().chain(&graph.value_info) {
            // Of a value that is fed, an initializer is but the default.
            known.constants.remove(info.name());
            if let Some(dims) = info.dims() {
                known.ranks.insert(info.name().to_string(), dims.len());
            }
        }
        let fed = |tensor: &TensorProto| graph.input.iter().any(|i| i.name() == tensor.name());
        for tensor in graph.initializer.iter().filter(|t| is_of_bytes(t) && !fed(t)) {
            known.constants.insert(tensor.name().to_string(), tensor.clone());
        }
        known
    }

    /// This, and the constants among the nodes.
    pub fn with_constant_nodes(&self, nodes: &[NodeProto]) -> Known {
        let mut known = self.clone();
        for node in nodes.iter().filter(|n| n.is("Constant")) {
            if let (Some(tensor), [output]) = (node.tensor("value"), node.output.as_slice())
                && is_of_bytes(tensor)
            {
                known.constants.insert(output.clone(), tensor.clone());
            }
        }
        known
    }

    /// The constant `name`, if its elements are bytes.
    pub fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.constants.get(name)
    }

    pub fn rank(&self, name: &str) -> Option<usize> {
        let constant = || self.constant(name).map(|t| t.dims.len());
        self.ranks.get(name).copied().or_else(constant)
    }
}

fn is_of_bytes(tensor: &TensorProto) -> bool {
    matches!(tensor.element_type(), Ok(DataType::Uint8 | DataType::Int8))
}
