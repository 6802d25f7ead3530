//! Finding the weights of a model: the constant tensors that products, convolutions, embeddings
//! and recurrent layers read.

use std::collections::HashMap;

pub use fewbits_onnx::facts::Axes;
use fewbits_onnx::facts::ReadAs;
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{AttributeProto, GraphProto, NodeProto};

use super::is_product;

/// A float constant of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// The tensor's name.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Operators that read it, each once.
    pub read_by: Vec<String>,
    /// What these make of it, each once.
    pub read_as: Vec<ReadAs>,
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

impl Constant {
    /// The axes that the scales of a weight follow: those of its first product on integers, or of its
    /// first reader if there is none; none where it is no weight.
    pub fn axes(&self) -> Option<Axes> {
        match self.role {
            Role::Weight(axes) => Some(axes),
            Role::Bias | Role::Other => None,
        }
    }

    /// Whether it is a weight that only look-ups read.
    pub fn is_table(&self) -> bool {
        self.axes().is_some() && self.read_as.iter().all(|read_as| read_as.is_looked_up())
    }

    /// The axes that suit all products on integers: without a channel where these lie along
    /// different axes, since one set of scales cannot follow both.
    pub fn axes_on_integers(&self) -> Option<Axes> {
        let axes = self.axes()?;
        let mut on_integers = self.uses.iter().filter(|u| u.form == UseForm::Integer);
        let agree = on_integers.all(|u| u.axes.channel == axes.channel);
        Some(Axes { channel: axes.channel.filter(|_| agree), ..axes })
    }
}

impl Role {
    /// That of a constant of so many axes that is read so.
    fn of(read_as: ReadAs, rank: usize) -> Role {
        match (read_as.axes(rank), read_as, rank) {
            (Some(axes), ..) => Role::Weight(axes),
            (None, ReadAs::Bias, 1..) | (None, ReadAs::Summand, 1 | 2) => Role::Bias,
            _ => Role::Other,
        }
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
        for (i, name) in node.input.iter().enumerate() {
            let read_as = ReadAs::of(node, i);
            if read_as == ReadAs::Scale {
                // A part of integers.
                continue;
            }
            let tensor = self.index.initializer(name).filter(|t| t.is_float());
            let Some(shape) = tensor.and_then(|tensor| tensor.shape().ok()) else { continue };
            let role = Role::of(read_as, shape.len());
            let place = *self.place.entry(name).or_insert_with(|| {
                self.constants.push(Constant {
                    tensor: name.clone(),
                    shape,
                    read_by: Vec::new(),
                    read_as: Vec::new(),
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
            if !constant.read_as.contains(&read_as) {
                constant.read_as.push(read_as);
            }
        }
        for graph in node.attribute.iter().flat_map(AttributeProto::subgraphs) {
            graph.node.iter().for_each(|node| self.read(node, at, Depth::Inside));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_onnx::proto::TensorProto;

    #[test]
    fn a_row_that_is_added_is_a_bias() {
        let of = |rank| Role::of(ReadAs::Summand, rank);
        assert_eq!([0, 1, 2, 3].map(of), [Role::Other, Role::Bias, Role::Bias, Role::Other]);
        assert_eq!([0, 3].map(|rank| Role::of(ReadAs::Bias, rank)), [Role::Other, Role::Bias]);
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
