//! What a constant is to the operator that reads it.

use super::axes::{Along, Axes};
use super::norms::is_norm;
use super::products::{BiasPlace, ProductForm};
use super::{einsum, fused};
use crate::proto::NodeProto;

/// What an operator makes of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// A weight: it is multiplied, and the products are summed.
    Weight(Along),
    /// A table of which whole rows are looked up.
    Rows,
    /// A table that is looked up along another axis.
    Slices,
    /// What a product or a recurrent layer adds.
    Bias,
    /// What is added to elements.
    Summand,
    /// What multiplies elements.
    Factor,
    /// The scale, the shift or a statistic of a norm.
    OfNorm,
    /// What becomes floats by scales.
    Codes,
    /// The scale or the zero point of integers.
    Scale,
    /// Anything else.
    Other,
}

impl ReadAs {
    /// What the constant is that a node reads at a place.
    pub fn of(node: &NodeProto, input: usize) -> ReadAs {
        let weight =
            |channel, reduction| ReadAs::Weight(Along { channel: Some(channel), reduction });
        if is_norm(node) {
            return ReadAs::OfNorm;
        }
        if let Some(form) = ProductForm::of(node) {
            match input {
                1 => return ReadAs::Weight(form.weight.along()),
                _ if form.bias == BiasPlace::Input(input) => return ReadAs::Bias,
                _ => {}
            }
        }
        if let Some(along) = fused::weight(node, input).or_else(|| einsum::weight(node, input)) {
            return ReadAs::Weight(along);
        }
        match (node.op_type(), input) {
            _ if !node.is_onnx() => ReadAs::Other,
            // On the left side each row makes an output of its own.
            ("MatMul", 0) => weight(-2, -1),
            ("Gemm", 0) if node.int("transA", 0) == 0 => weight(0, 1),
            ("Gemm", 0) => weight(1, 0),
            ("Gather", 0) if node.int("axis", 0) == 0 => ReadAs::Rows,
            ("Gather", 0) => ReadAs::Slices,
            // [directions, gates * hidden, in or hidden].
            ("LSTM" | "GRU" | "RNN", 1 | 2) => weight(1, 2),
            ("LSTM" | "GRU" | "RNN", 3) => ReadAs::Bias,
            ("Add", _) => ReadAs::Summand,
            ("Mul", _) => ReadAs::Factor,
            ("DequantizeLinear", 0) => ReadAs::Codes,
            ("QuantizeLinear" | "DequantizeLinear", 1..) => ReadAs::Scale,
            _ => ReadAs::Other,
        }
    }

    /// The axes of a constant of so many that is a weight, or a table whose rows each are looked up as a whole.
    pub fn axes(self, rank: usize) -> Option<Axes> {
        match self {
            ReadAs::Weight(along) if rank > 0 => Some(along.axes(rank)),
            ReadAs::Rows if rank > 1 => Some(Axes { channel: Some(0), reduction: Some(1) }),
            _ => None,
        }
    }

    /// Whether parts of the constant are looked up.
    pub fn is_looked_up(self) -> bool {
        matches!(self, ReadAs::Rows | ReadAs::Slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AttributeProto;

    #[test]
    fn axes_follow_the_operator() {
        let turned = |name: &str| {
            NodeProto::new("Gemm", &["x", "w"], &["y"]).with(AttributeProto::of_int(name, 1))
        };
        let cases = [
            (NodeProto::new("MatMul", &["x", "w"], &["y"]), 1, 2, (1, 0)),
            (NodeProto::new("MatMul", &["x", "w"], &["y"]), 1, 3, (2, 1)),
            (NodeProto::new("MatMul", &["w", "x"], &["y"]), 0, 3, (1, 2)),
            (NodeProto::new("Gemm", &["x", "w"], &["y"]), 1, 2, (1, 0)),
            (turned("transB"), 1, 2, (0, 1)),
            (turned("transB"), 0, 2, (0, 1)),
            (turned("transA"), 0, 2, (1, 0)),
            (NodeProto::new("Conv", &["x", "w"], &["y"]), 1, 4, (0, 1)),
            (NodeProto::new("ConvTranspose", &["x", "w"], &["y"]), 1, 4, (1, 0)),
            (NodeProto::new("Gather", &["w", "i"], &["y"]), 0, 2, (0, 1)),
            (NodeProto::new("LSTM", &["x", "w", "r"], &["y"]), 2, 3, (1, 2)),
        ];
        for (node, input, rank, (channel, reduction)) in cases {
            let expected = Axes { channel: Some(channel), reduction: Some(reduction) };
            let axes = ReadAs::of(&node, input).axes(rank);
            assert_eq!(axes, Some(expected), "{} {input}", node.op_type());
        }
        let vector = ReadAs::of(&NodeProto::new("MatMul", &["x", "w"], &["y"]), 1).axes(1);
        assert_eq!(vector, Some(Axes { channel: None, reduction: None }));
    }

    #[test]
    fn what_is_no_weight_has_no_axes() {
        let cases = [
            ("Gemm", 2, ReadAs::Bias),
            ("GRU", 3, ReadAs::Bias),
            ("GRU", 5, ReadAs::Other),
            ("Conv", 0, ReadAs::Other),
            ("Add", 0, ReadAs::Summand),
            ("Mul", 1, ReadAs::Factor),
            ("LayerNormalization", 1, ReadAs::OfNorm),
            ("SkipLayerNormalization", 2, ReadAs::OfNorm),
            ("DequantizeLinear", 0, ReadAs::Codes),
            ("QuantizeLinear", 1, ReadAs::Scale),
        ];
        for (op, input, expected) in cases {
            let read = ReadAs::of(&NodeProto::new(op, &["x", "w"], &["y"]), input);
            assert_eq!(read, expected, "{op} {input}");
            assert_eq!(read.axes(2), None, "{op} {input}");
        }
        let gather = NodeProto::new("Gather", &["w", "i"], &["y"]);
        let slices = ReadAs::of(&gather.with(AttributeProto::of_int("axis", 1)), 0);
        assert_eq!((slices, slices.axes(2)), (ReadAs::Slices, None));
        assert!(slices.is_looked_up());
    }
}
