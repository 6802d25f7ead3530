//! Finding the weights of a model: the constant tensors that products, convolutions, embeddings
//! and recurrent layers read.

use std::collections::HashMap;

use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// A float constant of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The tensor's name.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Operators that read it, each once.
    pub read_by: Vec<String>,
    /// What it is.
    pub role: Role,
}

/// What a float constant is to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight: many products use each element.
    Weight(Axes),
    /// A bias of such an operator.
    Bias,
    /// Anything else.
    Other,
}

/// The axes of a weight that matter to its scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    /// The axis of output channels, each of which may have its own scale.
    pub channel: Option<usize>,
    /// The axis that the product sums over, along which groups are formed.
    pub reduction: Option<usize>,
}

/// Every float constant of the main graph, in the order in which nodes read them.
pub fn constants(graph: &GraphProto) -> Vec<Constant> {
    let index = Index::new(graph);
    let mut found: Vec<Constant> = Vec::new();
    let mut position: HashMap<&str, usize> = HashMap::new();
    for node in &graph.node {
        for (i, name) in node.input.iter().enumerate() {
            let Some(tensor) = index.initializer(name).filter(|t| is_float(t)) else { continue };
            let Ok(shape) = tensor.shape() else { continue };
            let role = role(node, i, shape.len());
            let at = *position.entry(name).or_insert_with(|| {
                found.push(Constant { tensor: name.clone(), shape, read_by: Vec::new(), role });
                found.len() - 1
            });
            let constant = &mut found[at];
            // A tied weight is scaled for its first reader.
            if !matches!(constant.role, Role::Weight(_)) && matches!(role, Role::Weight(_)) {
                constant.role = role;
            }
            if !constant.read_by.iter().any(|op| op == node.op_type()) {
                constant.read_by.push(node.op_type().to_string());
            }
        }
    }
    found
}

fn is_float(tensor: &TensorProto) -> bool {
    matches!(
        tensor.element_type(),
        Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16)
    )
}

fn role(node: &NodeProto, input: usize, rank: usize) -> Role {
    if !node.is_onnx() || rank == 0 {
        return Role::Other;
    }
    let axes = |channel: usize, reduction: usize| {
        let on = |axis: usize| (rank > 1 && axis < rank).then_some(axis);
        Role::Weight(Axes { channel: on(channel), reduction: on(reduction) })
    };
    let (rows, columns) = (rank.wrapping_sub(2), rank - 1);
    match (node.op_type(), input) {
        // X [.., n, k] W [.., k, m]: each column of W is an output channel.
        ("MatMul", 1) => axes(columns, rows),
        ("MatMul", 0) => axes(rows, columns),
        ("Gemm", 1) if node.int("transB", 0) == 0 => axes(1, 0),
        ("Gemm", 1) => axes(0, 1),
        ("Gemm", 0) if node.int("transA", 0) == 0 => axes(0, 1),
        ("Gemm", 0) => axes(1, 0),
        // Conv: [out, in / group, ..]. ConvTranspose: [in, out / group, ..].
        ("Conv", 1) => axes(0, 1),
        ("ConvTranspose", 1) => axes(1, 0),
        // An embedding: every row is looked up as a whole.
        ("Gather", 0) if rank > 1 && node.int("axis", 0) == 0 => axes(0, 1),
        // [directions, gates * hidden, in or hidden].
        ("LSTM" | "GRU" | "RNN", 1 | 2) => axes(1, 2),
        ("Gemm" | "Conv" | "ConvTranspose", 2) | ("LSTM" | "GRU" | "RNN", 3) => Role::Bias,
        ("Add", _) if rank <= 2 => Role::Bias,
        _ => Role::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_onnx::proto::AttributeProto;

    #[test]
    fn axes_follow_the_operator() {
        let cases = [
            (NodeProto::new("MatMul", &["x", "w"], &["y"]), 1, 2, (1, 0)),
            (NodeProto::new("MatMul", &["w", "x"], &["y"]), 0, 3, (1, 2)),
            (NodeProto::new("Gemm", &["x", "w"], &["y"]), 1, 2, (1, 0)),
            (
                NodeProto::new("Gemm", &["x", "w"], &["y"])
                    .with(AttributeProto::of_int("transB", 1)),
                1,
                2,
                (0, 1),
            ),
            (NodeProto::new("Conv", &["x", "w"], &["y"]), 1, 4, (0, 1)),
            (NodeProto::new("ConvTranspose", &["x", "w"], &["y"]), 1, 4, (1, 0)),
            (NodeProto::new("Gather", &["w", "i"], &["y"]), 0, 2, (0, 1)),
            (NodeProto::new("LSTM", &["x", "w", "r"], &["y"]), 2, 3, (1, 2)),
        ];
        for (node, input, rank, (channel, reduction)) in cases {
            let expected =
                Role::Weight(Axes { channel: Some(channel), reduction: Some(reduction) });
            assert_eq!(role(&node, input, rank), expected, "{}", node.op_type());
        }
        let vector = role(&NodeProto::new("MatMul", &["x", "w"], &["y"]), 1, 1);
        assert_eq!(vector, Role::Weight(Axes { channel: None, reduction: None }));
    }

    #[test]
    fn tied_weights_are_found_once() {
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Add", &["x", "w"], &["a"]),
                NodeProto::new("MatMul", &["a", "w"], &["b"]),
                NodeProto::new("MatMul", &["b", "w"], &["c"]),
            ],
            initializer: vec![TensorProto::from_f32("w", &[2, 2], &[1.0; 4])],
            ..GraphProto::default()
        };
        let found = constants(&graph);
        assert_eq!(found.len(), 1);
        assert!(matches!(found[0].role, Role::Weight(_)));
        assert_eq!(found[0].read_by, ["Add", "MatMul"]);
    }
}
