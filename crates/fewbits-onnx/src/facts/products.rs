//! Products: how the weight of one lies, where its bias is, and whether runtimes compute it on integers.

use super::axes::{Along, Axes};
use crate::graph::Index;
use crate::proto::{GraphProto, NodeProto};

/// What is known of a node that multiplies what it reads first by what it reads second, and sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductForm {
    /// How the second factor lies, mostly a weight.
    pub weight: WeightLies,
    /// Where the bias is.
    pub bias: BiasPlace,
    /// Whether runtimes compute it on integers.
    pub on_integers: OnIntegers,
}

/// How the weight of a product lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLies {
    /// `[.., in, out]`; the activation's channels are its last axis.
    Columns,
    /// `[out, in]`; the activation's channels are its last axis.
    Rows,
    /// `[out, in / groups, taps..]`; the activation's channels are axis 1.
    Convolution,
    /// `[in, out / groups, taps..]`; the activation's channels are axis 1.
    TransposedConvolution,
}

/// Where the bias of a product is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasPlace {
    /// An input of its own, which may be absent.
    Input(usize),
    /// A constant that an addition behind the product reads.
    AddBehind,
}

/// Whether runtimes compute a product on integers of its activation, its first input, and of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIntegers {
    /// They do.
    Yes,
    /// They would, but this one scales what it multiplies or adds, or transposes its activation.
    Altered,
    /// There is no such form.
    Never,
}

impl ProductForm {
    /// The form of a node, if it is a product.
    pub fn of(node: &NodeProto) -> Option<ProductForm> {
        use BiasPlace::{AddBehind, Input};
        use OnIntegers::{Altered, Never, Yes};
        use WeightLies::{Columns, Convolution, Rows, TransposedConvolution};
        let (weight, bias, on_integers) = match node.op_type() {
            _ if !node.is_onnx() => return None,
            "MatMul" => (Columns, AddBehind, Yes),
            "Gemm" => {
                let weight = if node.int("transB", 0) == 0 { Columns } else { Rows };
                let is_plain = node.int("transA", 0) == 0
                    && node.float("alpha", 1.0) == 1.0
                    && node.float("beta", 1.0) == 1.0;
                (weight, Input(2), if is_plain { Yes } else { Altered })
            }
            "Conv" => (Convolution, Input(2), Yes),
            "ConvTranspose" => (TransposedConvolution, Input(2), Never),
            _ => return None,
        };
        Some(ProductForm { weight, bias, on_integers })
    }

    /// The same, if runtimes compute it on integers.
    pub fn on_integers(node: &NodeProto) -> Option<ProductForm> {
        ProductForm::of(node).filter(|form| form.on_integers == OnIntegers::Yes)
    }
}

impl WeightLies {
    /// Whether a window moves over the activation.
    pub fn is_convolution(self) -> bool {
        matches!(self, WeightLies::Convolution | WeightLies::TransposedConvolution)
    }

    /// The axes of a weight of so many.
    pub fn axes(self, rank: usize) -> Axes {
        self.along().axes(rank)
    }

    pub(super) fn along(self) -> Along {
        let (channel, reduction) = match self {
            WeightLies::Columns => (-1, -2),
            WeightLies::Rows | WeightLies::Convolution => (0, 1),
            WeightLies::TransposedConvolution => (1, 0),
        };
        Along { channel: Some(channel), reduction }
    }
}

/// The node that adds the bias of the product at a position, and the place of the bias among its inputs.
pub fn bias_of(graph: &GraphProto, index: &Index, product: usize) -> Option<(usize, usize)> {
    let node = &graph.node[product];
    match ProductForm::of(node)?.bias {
        BiasPlace::Input(place) => {
            let bias = node.input.get(place).filter(|bias| !bias.is_empty());
            bias.map(|_| (product, place))
        }
        BiasPlace::AddBehind => bias_behind(graph, index, node),
    }
}

/// The addition behind a product without a bias that nothing else reads, and the place of what is added among its
/// inputs: onnxruntime makes a `Gemm` of both.
pub fn bias_behind(graph: &GraphProto, index: &Index, node: &NodeProto) -> Option<(usize, usize)> {
    let form = ProductForm::of(node).filter(|form| form.bias == BiasPlace::AddBehind);
    let product = node.output.first().filter(|_| form.is_some())?;
    let [add] = *index.consumers(product) else { return None };
    let reader = Some(&graph.node[add]).filter(|reader| reader.is("Add"))?;
    let place = reader.input.iter().position(|input| input != product)?;
    (!index.is_output(product)).then_some((add, place))
}

/// Whether a node is a convolution of any kind: those of other domains and of integers are called so, too.
pub fn convolves(node: &NodeProto) -> bool {
    node.op_type().contains("Conv")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AttributeProto;

    #[test]
    fn a_product_on_integers_multiplies_its_activation_as_it_is() {
        let gemm = NodeProto::new("Gemm", &["x", "w", "b"], &["y"]);
        let of = |attribute| ProductForm::of(&gemm.clone().with(attribute)).unwrap();
        let plain = ProductForm::of(&gemm).unwrap();
        assert_eq!((plain.weight, plain.on_integers), (WeightLies::Columns, OnIntegers::Yes));
        let turned = of(AttributeProto::of_int("transB", 1));
        assert_eq!((turned.weight, turned.on_integers), (WeightLies::Rows, OnIntegers::Yes));
        for altered in [AttributeProto::of_int("transA", 1), AttributeProto::of_float("alpha", 0.5)]
        {
            assert_eq!(of(altered).on_integers, OnIntegers::Altered);
        }
        let back = NodeProto::new("ConvTranspose", &["x", "w"], &["y"]);
        assert!(ProductForm::of(&back).is_some() && ProductForm::on_integers(&back).is_none());
        let foreign = NodeProto { domain: Some("x".into()), ..gemm };
        assert_eq!(ProductForm::of(&foreign), None);
    }

    #[test]
    fn a_bias_is_an_input_or_is_added_behind() {
        let node = |op, inputs: &[&str], output| NodeProto::new(op, inputs, &[output]);
        let graph = GraphProto {
            node: vec![
                node("MatMul", &["x", "w"], "p"),
                node("Add", &["b", "p"], "y"),
                node("Gemm", &["y", "w", "b"], "z"),
                node("Gemm", &["z", "w", ""], "u"),
                node("Add", &["u", "b"], "v"),
            ],
            ..GraphProto::default()
        };
        let index = Index::new(&graph);
        let found = [0, 1, 2, 3].map(|product| bias_of(&graph, &index, product));
        assert_eq!(found, [Some((1, 0)), None, Some((2, 2)), None]);
    }
}
