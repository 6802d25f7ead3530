//! A part of the model that another executor runs.

use fewbits_onnx::Model;
use serde::{Deserialize, Serialize};

/// Nodes of the model that no operator here computes, as a model of their own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Subgraph {
    /// The model; its constants are inside.
    #[serde(with = "crate::stored::model")]
    pub model: Model,
    /// The names of its inputs, as the step lists the values.
    pub inputs: Vec<String>,
    /// The names of its outputs, as the step lists the values.
    pub outputs: Vec<String>,
    /// Whether every CPU gives the same bits.
    pub is_exact: bool,
}

impl PartialEq for Subgraph {
    fn eq(&self, other: &Subgraph) -> bool {
        let names = |subgraph: &Subgraph| (subgraph.inputs.clone(), subgraph.outputs.clone());
        names(self) == names(other)
            && self.is_exact == other.is_exact
            && self.model.to_bytes() == other.model.to_bytes()
    }
}

impl std::fmt::Debug for Subgraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes: Vec<&str> = self.model.graph().node.iter().map(|node| node.op_type()).collect();
        f.debug_struct("Subgraph")
            .field("nodes", &nodes)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("is_exact", &self.is_exact)
            .finish()
    }
}
