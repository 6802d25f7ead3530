//! The products of a model whose weights may become integers.

use std::collections::HashSet;

use fewbits_onnx::facts::{ProductForm, WeightLies};
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{DataType, GraphProto, NodeProto};

/// A `Conv`, `Gemm` or `MatMul` of an activation and a FLOAT constant that nothing else reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The position of its node.
    pub node: usize,
    /// The activation that it reads.
    pub value: String,
    /// The constant.
    pub weight: String,
    /// The constant's shape.
    pub shape: Vec<usize>,
    /// How the constant lies.
    pub kind: ProductKind,
}

/// The axis of an activation's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelAxis {
    /// Axis 1.
    Second,
    /// The last one.
    Last,
}

impl ChannelAxis {
    /// Counts it from 0, for an activation of `rank` axes.
    pub fn of(self, rank: usize) -> Option<usize> {
        match self {
            ChannelAxis::Second => (rank >= 2).then_some(1),
            ChannelAxis::Last => rank.checked_sub(1),
        }
    }
}

/// Tells whether `node` multiplies an activation, its first input, by the weight that it reads second, in a
/// form that runtimes compute on integers.
pub fn is_product(node: &NodeProto) -> bool {
    ProductForm::on_integers(node).is_some()
}

/// How the weight of a product lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductKind {
    /// `[in, out]`; the activation's channels are its last axis.
    Columns,
    /// `[out, in]`; the activation's channels are its last axis.
    Rows,
    /// `[out, in / groups, taps..]`; the activation's channels are axis 1.
    Convolution {
        /// Parts that the channels are divided into.
        groups: usize,
    },
}

impl Product {
    /// Reads a node; `None` if it is no such product.
    pub fn of(graph: &GraphProto, index: &Index, node: usize) -> Option<Product> {
        let position = node;
        let node: &NodeProto = &graph.node[node];
        let form = ProductForm::on_integers(node)?;
        let (value, weight) = (node.input.first()?, node.input.get(1)?);
        let tensor = index.initializer(weight)?;
        let sole = index.consumers(weight).len() == 1 && !index.is_output(weight);
        let replaceable = graph.input.iter().any(|i| i.name() == weight);
        let is_float = tensor.element_type().ok()? == DataType::Float;
        if !sole || replaceable || !is_float || index.initializer(value).is_some() {
            return None;
        }
        let shape = tensor.shape().ok()?;
        let kind = match (form.weight, shape.len()) {
            (WeightLies::Convolution, 3..) => {
                let groups = usize::try_from(node.int("group", 1)).ok().filter(|&g| g > 0)?;
                (shape[0] % groups == 0).then_some(ProductKind::Convolution { groups })?
            }
            (WeightLies::Columns, 2) => ProductKind::Columns,
            (WeightLies::Rows, 2) => ProductKind::Rows,
            _ => return None,
        };
        if shape.contains(&0) {
            return None;
        }
        let (value, weight) = (value.clone(), weight.clone());
        Some(Product { node: position, value, weight, shape, kind })
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.shape[self.output_axis()]
    }

    /// Channels of the activation.
    pub fn inputs(&self) -> usize {
        self.groups() * self.inputs_per_output()
    }

    /// Channels of the activation that one output channel reads.
    pub fn inputs_per_output(&self) -> usize {
        match self.kind {
            ProductKind::Columns => self.shape[0],
            _ => self.shape[1],
        }
    }

    /// Elements of the weight for each pair of an input and an output channel.
    pub fn taps(&self) -> usize {
        self.shape[2..].iter().product()
    }

    /// Parts that the channels are divided into; 1 but for grouped convolutions.
    pub fn groups(&self) -> usize {
        match self.kind {
            ProductKind::Convolution { groups } => groups,
            _ => 1,
        }
    }

    /// The weight's axis of output channels.
    pub fn output_axis(&self) -> usize {
        match self.kind {
            ProductKind::Columns => 1,
            _ => 0,
        }
    }

    /// The axis of the activation's channels.
    pub fn channel_axis(&self) -> ChannelAxis {
        match self.kind {
            ProductKind::Convolution { .. } => ChannelAxis::Second,
            _ => ChannelAxis::Last,
        }
    }

    /// The input channel that is number `i` of those that output channel `output` reads.
    pub fn input_of(&self, output: usize, i: usize) -> usize {
        output / (self.outputs() / self.groups()) * self.inputs_per_output() + i
    }

    /// Where in the weight the elements of an output channel and its input number `i` lie.
    pub fn elements(&self, output: usize, i: usize) -> std::ops::Range<usize> {
        let start = match self.kind {
            ProductKind::Columns => i * self.shape[1] + output,
            _ => (output * self.shape[1] + i) * self.taps(),
        };
        start..start + self.taps()
    }

    /// How a factor for each input channel is spelled on one axis of the weight: the axis and its
    /// factors. `None` for convolutions in groups of more than one channel, which have no such
    /// axis.
    pub fn along_inputs(&self, factors: &[f32]) -> Option<(usize, Vec<f32>)> {
        match self.kind {
            ProductKind::Columns => Some((0, factors.to_vec())),
            _ if self.groups() == 1 => Some((1, factors.to_vec())),
            _ if self.inputs_per_output() == 1 => {
                Some((0, (0..self.outputs()).map(|o| factors[self.input_of(o, 0)]).collect()))
            }
            _ => None,
        }
    }
}

/// The products whose weights are among `quantized`.
pub fn products(graph: &GraphProto, index: &Index, quantized: &HashSet<&str>) -> Vec<Product> {
    (0..graph.node.len())
        .filter_map(|node| Product::of(graph, index, node))
        .filter(|product| quantized.contains(product.weight.as_str()))
        .collect()
}

/// `name`, if it is a vector constant of `length` elements that one node alone reads.
pub(crate) fn own_vector(
    graph: &GraphProto,
    index: &Index,
    name: &str,
    length: usize,
) -> Option<String> {
    let tensor = index.initializer(name)?;
    let is_float = tensor.element_type().ok()? == DataType::Float;
    let replaceable = graph.input.iter().any(|i| i.name() == name);
    let sole = index.consumers(name).len() == 1 && !index.is_output(name);
    let fits = tensor.dims == [i64::try_from(length).ok()?];
    (is_float && fits && sole && !replaceable).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbits_onnx::proto::{AttributeProto, TensorProto};

    fn product(node: NodeProto, shape: &[usize]) -> Option<Product> {
        let zeros = vec![0.0; shape.iter().product()];
        let graph = GraphProto {
            node: vec![node],
            initializer: vec![TensorProto::from_f32("w", shape, &zeros)],
            ..GraphProto::default()
        };
        Product::of(&graph, &Index::new(&graph), 0)
    }

    #[test]
    fn channels_are_found_in_every_arrangement() {
        let matmul = product(NodeProto::new("MatMul", &["x", "w"], &["y"]), &[3, 5]).unwrap();
        assert_eq!((matmul.inputs(), matmul.outputs(), matmul.elements(4, 2)), (3, 5, 14..15));
        assert_eq!(matmul.along_inputs(&[1.0, 2.0, 3.0]), Some((0, vec![1.0, 2.0, 3.0])));
        let gemm = NodeProto::new("Gemm", &["x", "w"], &["y"]);
        let gemm = product(gemm.with(AttributeProto::of_int("transB", 1)), &[5, 3]).unwrap();
        assert_eq!((gemm.inputs(), gemm.outputs(), gemm.elements(4, 2)), (3, 5, 14..15));
        let grouped = |groups: i64, shape: &[usize]| {
            let conv = NodeProto::new("Conv", &["x", "w"], &["y"]);
            product(conv.with(AttributeProto::of_int("group", groups)), shape).unwrap()
        };
        let depthwise = grouped(2, &[4, 1, 3, 3]);
        assert_eq!((depthwise.inputs(), depthwise.taps(), depthwise.input_of(3, 0)), (2, 9, 1));
        assert_eq!(depthwise.along_inputs(&[1.0, 2.0]), Some((0, vec![1.0, 1.0, 2.0, 2.0])));
        let groups = grouped(2, &[4, 3, 1, 1]);
        assert_eq!((groups.inputs(), groups.input_of(2, 1)), (6, 4));
        assert_eq!(groups.along_inputs(&[1.0; 6]), None);
        assert_eq!(product(NodeProto::new("MatMul", &["x", "w"], &["y"]), &[2, 3, 5]), None);
        assert_eq!(product(NodeProto::new("Add", &["x", "w"], &["y"]), &[3, 5]), None);
    }
}
