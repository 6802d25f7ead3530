//! `Dropout` at inference is its input.

use std::collections::HashSet;

use crate::graph::Index;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto};

/// Makes an `Identity` of every Dropout that is not known to train and whose mask nobody reads.
pub(super) fn drop_inference(graph: &mut GraphProto) {
    let index = Index::new(graph);
    let is_read = |name: &str| !index.consumers(name).is_empty() || index.is_output(name);
    let inner = read_in_subgraphs(graph);
    let mut found = Vec::new();
    for (position, node) in graph.node.iter().enumerate().filter(|(_, node)| node.is("Dropout")) {
        let mask = node.output.get(1).filter(|mask| !mask.is_empty());
        let mask_is_read = mask.is_some_and(|mask| is_read(mask) || inner.contains(mask.as_str()));
        if !trains(&index, node) && !mask_is_read {
            found.push(position);
        }
    }
    for position in found {
        let node = &mut graph.node[position];
        let name = node.name.clone();
        *node =
            NodeProto { name, ..NodeProto::new("Identity", &[&node.input[0]], &[&node.output[0]]) };
    }
}

/// Whether a Dropout may be one that trains: its third input is no constant `false`.
fn trains(index: &Index, node: &NodeProto) -> bool {
    let Some(mode) = node.given_input(2) else { return false };
    let constant =
        index.initializer(mode).filter(|t| matches!(t.element_type(), Ok(DataType::Bool)));
    constant
        .and_then(|tensor| tensor.ints().ok())
        .is_none_or(|values| values.iter().any(|&v| v != 0))
}

fn read_in_subgraphs(graph: &GraphProto) -> HashSet<&str> {
    let mut read = HashSet::new();
    for inner in graph.node.iter().flat_map(|n| &n.attribute).flat_map(AttributeProto::subgraphs) {
        inner.for_each_use(&mut |name| {
            read.insert(name);
        });
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TensorProto, ValueInfoProto};

    fn op_of(node: NodeProto) -> String {
        let flag =
            |name: &str, value: u8| TensorProto::from_raw(name, &[], DataType::Bool, vec![value]);
        let mut graph = GraphProto {
            node: vec![node, NodeProto::new("Not", &["read"], &["z"])],
            initializer: vec![flag("on", 1), flag("off", 0)],
            output: vec![ValueInfoProto::tensor("y", 1, &[None])],
            ..GraphProto::default()
        };
        drop_inference(&mut graph);
        graph.node[0].op_type().to_string()
    }

    #[test]
    fn only_what_trains_or_gives_a_mask_stays() {
        for (inputs, outputs, expected) in [
            (&["x"][..], &["y"][..], "Identity"),
            (&["x", "ratio"], &["y", "unread"], "Identity"),
            (&["x", "", "off"], &["y"], "Identity"),
            (&["x", "ratio", "on"], &["y"], "Dropout"),
            (&["x", "ratio", "computed"], &["y"], "Dropout"),
            (&["x"], &["y", "read"], "Dropout"),
        ] {
            assert_eq!(op_of(NodeProto::new("Dropout", inputs, outputs)), expected, "{inputs:?}");
        }
    }
}
