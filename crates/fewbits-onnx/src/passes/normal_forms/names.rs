//! Every node has a name, so that what fails can be told by it.

use crate::proto::GraphProto;

/// Gives nodes without a name that of their first output.
pub(super) fn name_nodes(graph: &mut GraphProto) {
    for node in &mut graph.node {
        if node.name().is_empty() {
            node.name = node.output.iter().find(|output| !output.is_empty()).cloned();
        }
    }
}
