//! Where a model holds its constants, and how many bytes they take.

use crate::Model;
use crate::proto::{
    AttributeProto, DataType, GraphProto, NodeProto, SparseTensorProto, TensorProto,
};

/// What holds a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The initializers of the main graph.
    Initializers,
    /// Attributes of its nodes.
    Nodes,
    /// Graphs inside its nodes.
    Subgraphs,
    /// Functions of the model.
    Functions,
}

/// A constant, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What holds it.
    pub holder: Holder,
    /// The type of its elements, if it is one of ONNX's.
    pub data_type: Option<DataType>,
    /// The bytes of its elements.
    pub bytes: u64,
}

impl Model {
    /// Every constant of the model: initializers, tensors in attributes, and the lists of floats in the attributes of
    /// classical models.
    pub fn stored(&self) -> Vec<Stored> {
        let mut found = Found { holder: Holder::Initializers, stored: Vec::new() };
        found.graph(self.graph(), Holder::Nodes);
        for function in &self.proto().functions {
            found.holder = Holder::Functions;
            found.nodes(&function.node, Holder::Functions);
        }
        found.stored
    }

    /// The bytes of all of them.
    pub fn weight_bytes(&self) -> u64 {
        self.stored().iter().map(|stored| stored.bytes).sum()
    }
}

struct Found {
    holder: Holder,
    stored: Vec<Stored>,
}

impl Found {
    /// Adds those of a graph; its nodes are of `nodes`.
    fn graph(&mut self, graph: &GraphProto, nodes: Holder) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph.sparse_initializer.iter().for_each(|sparse| self.sparse(sparse));
        self.holder = nodes;
        self.nodes(&graph.node, if nodes == Holder::Nodes { Holder::Subgraphs } else { nodes });
    }

    /// Adds those of nodes; graphs inside are of `inside`.
    fn nodes(&mut self, nodes: &[NodeProto], inside: Holder) {
        for attribute in nodes.iter().flat_map(|node| &node.attribute) {
            attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
            let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            sparse.for_each(|sparse| self.sparse(sparse));
            if !attribute.floats.is_empty() {
                let bytes = 4 * attribute.floats.len() as u64;
                self.add(Some(DataType::Float), bytes);
            }
            self.subgraphs(attribute, inside);
        }
    }

    fn subgraphs(&mut self, attribute: &AttributeProto, inside: Holder) {
        let outside = self.holder;
        for graph in attribute.subgraphs() {
            self.holder = inside;
            self.graph(graph, inside);
        }
        self.holder = outside;
    }

    fn sparse(&mut self, sparse: &SparseTensorProto) {
        sparse.values.iter().chain(&sparse.indices).for_each(|tensor| self.tensor(tensor));
    }

    fn tensor(&mut self, tensor: &TensorProto) {
        self.add(tensor.element_type().ok(), tensor.stored_bytes());
    }

    fn add(&mut self, data_type: Option<DataType>, bytes: u64) {
        self.stored.push(Stored { holder: self.holder, data_type, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::FunctionProto;

    #[test]
    fn every_constant_is_found_once_where_it_lies() {
        let tensor =
            |name: &str, size: usize| TensorProto::from_f32(name, &[size], &vec![1.0; size]);
        let constant = |size: usize| {
            NodeProto::new("Constant", &[], &["c"])
                .with(AttributeProto::of_tensor("value", tensor("", size)))
        };
        let inner = GraphProto {
            node: vec![constant(3)],
            initializer: vec![tensor("i", 4)],
            ..GraphProto::default()
        };
        let branch = AttributeProto { g: Some(inner), ..AttributeProto::of_int("then_branch", 0) };
        let graph = GraphProto {
            node: vec![
                NodeProto::new("If", &["c"], &["y"]).with(branch.clone()),
                constant(2),
                NodeProto::new("Scaler", &["x"], &["s"])
                    .with(AttributeProto::of_floats("scale", &[1.0; 5])),
            ],
            initializer: vec![tensor("w", 1)],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, 17);
        let node = vec![constant(6), NodeProto::new("If", &["c"], &["y"]).with(branch)];
        model.proto_mut().functions.push(FunctionProto { node, ..FunctionProto::default() });
        let floats = |holder: Holder| {
            let found = model.stored();
            let of = found.iter().filter(|stored| stored.holder == holder);
            of.map(|stored| stored.bytes / 4).collect::<Vec<_>>()
        };
        assert_eq!(floats(Holder::Initializers), [1]);
        assert_eq!(floats(Holder::Nodes), [2, 5]);
        assert_eq!(floats(Holder::Subgraphs), [4, 3]);
        assert_eq!(floats(Holder::Functions), [6, 4, 3]);
        assert_eq!(model.weight_bytes(), 4 * 28);
    }
}
