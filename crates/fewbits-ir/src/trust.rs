//! What rten 0.27 is trusted with. What it would compute otherwise than ONNX says, in silence, is refused, and so is
//! what it would refuse itself only when it runs, without a name.
//!
//! Each line is shown by a model of ONNX's own conformance suite, or by one of ours.

use fewbits_onnx::passes::normal_forms::ALONG_ONE_AXIS;
use fewbits_onnx::proto::{AttributeProto, DataType, NodeProto};

/// The operators of rten that ONNX's conformance suite shows to be right, but for what [`distrusted`] finds in a
/// node; what is not here is refused.
#[rustfmt::skip]
const TRUSTED: [&str; 138] = [
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "Attention", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Concat",
    "ConcatFromSequence", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose",
    "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout",
    "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "HardSigmoid", "HardSwish",
    "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LSTM", "LayerNormalization",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "MatMul",
    "MatMulInteger", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not",
    "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "RMSNormalization", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "Resize", "ReverseSequence", "RotaryEmbedding", "Round", "Scatter", "ScatterElements",
    "ScatterND", "SequenceAt", "SequenceConstruct", "SequenceErase", "SequenceLength", "Shape",
    "Sigmoid", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "Split",
    "SplitToSequence", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
];

/// Those of other domains that tests of ours show to be right.
const TRUSTED_OF_MICROSOFT: [&str; 1] = ["MatMulNBits"];

/// The first node, those of subgraphs included, that rten would compute wrongly, and what of it.
pub fn first_distrusted(nodes: &[NodeProto], opset: i64) -> Option<(&NodeProto, String)> {
    nodes.iter().find_map(|node| match distrusted(node, opset) {
        Some(what) => Some((node, what)),
        None => {
            let mut inner = node.attribute.iter().flat_map(AttributeProto::subgraphs);
            inner.find_map(|graph| first_distrusted(&graph.node, opset))
        }
    })
}

/// What of a node rten would compute wrongly.
pub fn distrusted(node: &NodeProto, opset: i64) -> Option<String> {
    let op = node.op_type();
    let is = |name: &str, default: &str, wrong: &[&str]| {
        let value = node.string(name, default);
        wrong.contains(&value.as_str()).then(|| format!("{op} with {name} {value}"))
    };
    let given = |input: usize, name: &str| {
        let given = node.input.get(input).is_some_and(|name| !name.is_empty());
        given.then(|| format!("{op} with {name}"))
    };
    match op {
        _ if !node.is_onnx() => {
            let is_trusted = TRUSTED_OF_MICROSOFT.contains(&op);
            (!is_trusted).then(|| format!("{}.{op}", node.domain()))
        }
        _ if !TRUSTED.contains(&op) => Some(op.to_string()),
        // Of those that are known it is a comparison by now.
        "Cast" if node.int("to", 0) == DataType::Bool as i64 => {
            Some("Cast to bool of values whose type is not known".to_string())
        }
        "GRU" if node.int("linear_before_reset", 0) == 0 => {
            Some("GRU with linear_before_reset 0".to_string())
        }
        "LSTM" | "GRU" | "RNN" => given(4, "sequence_lens"),
        "ConvTranspose" if !node.ints("output_shape").is_empty() => {
            Some("ConvTranspose with output_shape".to_string())
        }
        "Resize" => {
            let flags = ["antialias", "exclude_outside"].into_iter();
            let flag = flags.filter(|name| node.int(name, 0) != 0).chain(
                // It knows the last two axes alone.
                node.attr("axes").map(|_| "axes"),
            );
            let ways = ["half_pixel_symmetric", "tf_crop_and_resize"];
            is("mode", "nearest", &["cubic"])
                .or_else(|| flag.map(|name| format!("Resize with {name}")).next())
                .or_else(|| {
                    is("keep_aspect_ratio_policy", "stretch", &["not_larger", "not_smaller"])
                })
                .or_else(|| is("coordinate_transformation_mode", "half_pixel", &ways))
        }
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "LpPool" => {
            let axes = node.ints("kernel_shape").len();
            let volumes = (axes > 2).then(|| format!("{op} along {axes} axes"));
            volumes.or_else(|| {
                is("auto_pad", "NOTSET", &["SAME_LOWER"])
                    .map(|what| format!("{what} of images whose sizes are not known"))
            })
        }
        "Softmax" | "LogSoftmax" | "Hardmax" if opset < ALONG_ONE_AXIS => {
            (node.int("axis", 1) != -1).then(|| format!("{op} of opset {opset}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted_is_proven() {
        let proven = include_str!("../../../tests/python/conformance/proven.txt");
        let proven: Vec<&str> = proven.lines().filter(|line| !line.starts_with('#')).collect();
        for op in TRUSTED {
            assert!(proven.contains(&op), "{op}: no set of the conformance suite shows it");
        }
        // It counts boxes of all classes and images together.
        let boxes = NodeProto::new("NonMaxSuppression", &["boxes", "scores"], &["y"]);
        assert_eq!(distrusted(&boxes, 17).as_deref(), Some("NonMaxSuppression"));
    }

    #[test]
    fn only_what_is_known_to_be_wrong_is_refused() {
        let text = AttributeProto::of_string;
        let lengths = NodeProto::new("LSTM", &["x", "w", "r", "b", "lengths"], &["y"]);
        for (node, opset, refused) in [
            (NodeProto::new("LSTM", &["x", "w", "r", "b", ""], &["y"]), 17, false),
            (lengths, 17, true),
            (NodeProto::new("GRU", &["x", "w", "r"], &["y"]), 17, true),
            (NodeProto::new("Resize", &["x"], &["y"]), 17, false),
            (NodeProto::new("Resize", &["x"], &["y"]).with(text("mode", "cubic")), 17, true),
            (
                NodeProto::new("Conv", &["x"], &["y"]).with(text("auto_pad", "SAME_UPPER")),
                17,
                false,
            ),
            (NodeProto::new("Conv", &["x"], &["y"]).with(text("auto_pad", "SAME_LOWER")), 17, true),
            (NodeProto::new("Softmax", &["x"], &["y"]), 12, true),
            (NodeProto::new("Softmax", &["x"], &["y"]), 13, false),
        ] {
            assert_eq!(distrusted(&node, opset).is_some(), refused, "{node:?}");
        }
    }
}
