//! What rten 0.27 is trusted with: what it would compute otherwise than ONNX says, in silence, is refused, and
//! so is what it would refuse itself only when it runs, without a name.
//!
//! Each line is shown by a model of ONNX's own conformance suite, or by one of ours.

use fewbits_onnx::passes::normal_forms::ALONG_ONE_AXIS;
use fewbits_onnx::proto::{AttributeProto, NodeProto};

/// The first node, those of subgraphs included, that rten would compute wrongly, and what of it.
pub(crate) fn first_distrusted(nodes: &[NodeProto], opset: i64) -> Option<(&NodeProto, String)> {
    nodes.iter().find_map(|node| match distrusted(node, opset) {
        Some(what) => Some((node, what)),
        None => {
            let mut inner = node.attribute.iter().flat_map(AttributeProto::subgraphs);
            inner.find_map(|graph| first_distrusted(&graph.node, opset))
        }
    })
}

/// What of a node rten would compute wrongly.
pub(crate) fn distrusted(node: &NodeProto, opset: i64) -> Option<String> {
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
        _ if !node.is_onnx() => None,
        "GRU" if node.int("linear_before_reset", 0) == 0 => {
            Some("GRU with linear_before_reset 0".to_string())
        }
        "LSTM" | "GRU" | "RNN" => given(4, "sequence_lens"),
        "ConvTranspose" if !node.ints("output_shape").is_empty() => {
            Some("ConvTranspose with output_shape".to_string())
        }
        "Resize" => is("mode", "nearest", &["cubic"])
            .or_else(|| {
                (node.int("antialias", 0) != 0).then(|| "Resize with antialias".to_string())
            })
            .or_else(|| is("keep_aspect_ratio_policy", "stretch", &["not_larger", "not_smaller"])),
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "LpPool" => {
            let axes = node.ints("kernel_shape").len();
            let volumes = (axes > 2).then(|| format!("{op} along {axes} axes"));
            volumes.or_else(|| {
                is("auto_pad", "NOTSET", &["SAME_LOWER"])
                    .map(|what| format!("{what} of images whose sizes are not known"))
            })
        }
        // It counts boxes of all classes and images together.
        "NonMaxSuppression" | "BitCast" => Some(op.to_string()),
        "SequenceInsert" => given(2, "a position"),
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
