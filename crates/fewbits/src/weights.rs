//! Finding the weights of a model: the constant tensors that products, convolutions, embeddings
//! and recurrent layers read.

use std::collections::HashMap;

use fewbits_onnx::graph::Index;
use fewbits_onnx::passes::{einsum, unfuse};
use fewbits_onnx::proto::{AttributeProto, GraphProto, NodeProto};

use crate::plan::{ActivationUse, is_product};

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
    /// Each time that a node reads it as a weight.
    pub uses: Vec<Use>,
}

/// A place where a constant is read as a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The position of the node.
    pub node: usize,
    /// Which of its inputs the weight is.
    pub input: usize,
    /// The axes as this node sees them.
    pub axes: Axes,
    /// How the node multiplies.
    pub form: UseForm,
}

/// How a node multiplies by a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseForm {
    /// A product that runtimes compute on integers where its activation is quantized: the scales of
    /// the weight must lie along its channels.
    Integer,
    /// In float, whatever the axis of the scales.
    Float,
}

/// What a float constant is to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight: many products use each element. Its scales follow these axes.
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

impl Constant {
    /// The axes that the scales of a weight follow: those of its first product on integers, or of its
    /// first reader if there is none; none where it is no weight.
    pub fn axes(&self) -> Option<Axes> {
        match self.role {
            Role::Weight(axes) => Some(axes),
            Role::Bias | Role::Other => None,
        }
    }

    /// The axes that its scales follow beside such activations.
    pub fn axes_beside(&self, activations: ActivationUse) -> Option<Axes> {
        match activations {
            ActivationUse::Float => self.axes(),
            ActivationUse::Dynamic | ActivationUse::Static => self.axes_on_integers(),
        }
    }

    /// The axes that suit all products on integers: without a channel where these lie along
    /// different axes, since one set of scales cannot follow both.
    fn axes_on_integers(&self) -> Option<Axes> {
        let axes = self.axes()?;
        let mut on_integers = self.uses.iter().filter(|u| u.form == UseForm::Integer);
        let agree = on_integers.all(|u| u.axes.channel == axes.channel);
        Some(Axes { channel: axes.channel.filter(|_| agree), ..axes })
    }
}

/// Every float constant of the main graph, in the order in which nodes read them, those of subgraphs included.
pub fn constants(graph: &GraphProto) -> Vec<Constant> {
    let mut found =
        Found { index: Index::new(graph), constants: Vec::new(), place: HashMap::new() };
    for (at, node) in graph.node.iter().enumerate() {
        found.read(node, at, Depth::Main);
    }
    found.constants
}

/// The constants found so far.
struct Found<'a> {
    index: Index<'a>,
    constants: Vec<Constant>,
    place: HashMap<&'a str, usize>,
}

/// Where a node lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Main,
    /// In a subgraph of a node of the main graph.
    Inside,
}

impl<'a> Found<'a> {
    /// Adds what a node reads that is, or lies in, the node at a position of the main graph.
    fn read(&mut self, node: &'a NodeProto, at: usize, depth: Depth) {
        let is_scaled = node.is("QuantizeLinear") || node.is("DequantizeLinear");
        // Scales are parts of integers.
        let values = if is_scaled { 1 } else { node.input.len() };
        for (i, name) in node.input.iter().enumerate().take(values) {
            let tensor = self.index.initializer(name).filter(|t| t.is_float());
            let Some(shape) = tensor.and_then(|tensor| tensor.shape().ok()) else { continue };
            let role = role(node, i, shape.len());
            let place = *self.place.entry(name).or_insert_with(|| {
                self.constants.push(Constant {
                    tensor: name.clone(),
                    shape,
                    read_by: Vec::new(),
                    role,
                    uses: Vec::new(),
                });
                self.constants.len() - 1
            });
            let constant = &mut self.constants[place];
            if let Role::Weight(axes) = role {
                // What lies in a subgraph stays float.
                let on_integers = is_product(node) && i == 1 && depth == Depth::Main;
                let form = if on_integers { UseForm::Integer } else { UseForm::Float };
                // The axes are those of its first reader, but a product on integers goes first.
                let known = &constant.uses;
                let first_on_integers = form == UseForm::Integer
                    && known.iter().all(|known| known.form == UseForm::Float);
                if known.is_empty() || first_on_integers {
                    constant.role = role;
                }
                constant.uses.push(Use { node: at, input: i, axes, form });
            }
            let reader = match node.is_onnx() {
                true => node.op_type().to_string(),
                false => format!("{}.{}", node.domain(), node.op_type()),
            };
            if !constant.read_by.contains(&reader) {
                constant.read_by.push(reader);
            }
        }
        for graph in node.attribute.iter().flat_map(AttributeProto::subgraphs) {
            graph.node.iter().for_each(|node| self.read(node, at, Depth::Inside));
        }
    }
}

pub(crate) fn role(node: &NodeProto, input: usize, rank: usize) -> Role {
    if rank == 0 {
        return Role::Other;
    }
    let on = |axis: usize| (rank > 1 && axis < rank).then_some(axis);
    let axes = |channel: usize, reduction: usize| {
        Role::Weight(Axes { channel: on(channel), reduction: on(reduction) })
    };
    if let Some((channel, reduction)) = unfuse::weight_axes(node, input, rank) {
        return axes(channel, reduction);
    }
    if !node.is_onnx() {
        return Role::Other;
    }
    if let Some((channel, Some(reduction))) = einsum::axes_of(node, input) {
        return Role::Weight(Axes { channel: channel.and_then(on), reduction: on(reduction) });
    }
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
    use fewbits_onnx::proto::TensorProto;

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

    #[test]
    fn scales_follow_all_products_on_integers_or_none() {
        let transposed = |x: &str, y: &str| {
            NodeProto::new("Gemm", &[x, "w"], &[y]).with(AttributeProto::of_int("transB", 1))
        };
        let of = |nodes: Vec<NodeProto>| {
            let graph = GraphProto {
                node: nodes,
                initializer: vec![TensorProto::from_f32("w", &[2, 2], &[1.0; 4])],
                ..GraphProto::default()
            };
            constants(&graph).remove(0)
        };
        let axes =
            |channel: Option<usize>, reduction| Some(Axes { channel, reduction: Some(reduction) });
        let tied = of(vec![transposed("x", "a"), NodeProto::new("MatMul", &["a", "w"], &["b"])]);
        assert_eq!(tied.axes(), axes(Some(0), 1));
        assert_eq!(tied.axes_on_integers(), axes(None, 1));
        assert_eq!(tied.uses.len(), 2);
        assert_eq!((tied.uses[1].node, tied.uses[1].input), (1, 1));
        let twice = of(vec![transposed("x", "a"), transposed("a", "b")]);
        assert_eq!(twice.axes_on_integers(), axes(Some(0), 1));
        // A table is looked up in float: the product decides.
        let looked_up = of(vec![
            NodeProto::new("Gather", &["w", "i"], &["a"]),
            NodeProto::new("MatMul", &["a", "w"], &["b"]),
        ]);
        assert_eq!(looked_up.axes_on_integers(), axes(Some(1), 0));
    }
}
