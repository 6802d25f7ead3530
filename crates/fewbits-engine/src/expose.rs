//! Values inside a graph as further outputs.

use fewbits_onnx::Model;
use fewbits_onnx::proto::ValueInfoProto;

use crate::{Result, RuntimeError};

/// A copy of the model with values inside the graph as further outputs.
pub(crate) fn expose(model: &Model, intermediates: &[String]) -> Result<Model> {
    let mut model = model.clone();
    for name in intermediates {
        let graph = model.graph_mut();
        if !graph.node.iter().any(|n| n.output.contains(name)) {
            return Err(RuntimeError::Input {
                input: name.clone(),
                reason: "the model has no such value; inspect lists those it has".into(),
            });
        }
        if !graph.is_output(name) {
            graph.output.push(ValueInfoProto { name: Some(name.clone()), ..Default::default() });
        }
    }
    Ok(model)
}
