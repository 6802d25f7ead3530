//! Operators that onnxruntime's optimizer fuses become those of ONNX that they were made of.
//!
//! A model that was saved by it holds operators of `com.microsoft`, which no other runtime has. Split, their weights
//! are found where those of every model are, activations between them can become integers, and our executor computes
//! them; onnxruntime fuses them again when it loads the file. What each computes is said by onnxruntime's
//! ContribOperators.md. To add one: a line in `splitter`, a case in `tests/python/test_unfuse.py`.

mod attention;
mod elementwise;
mod embedding;
mod emit;
mod norms;
mod products;

use self::emit::{Emit, Why};
use super::lower_ml::KeptNode;
use super::upgrade_opset::upgrade_opset;
use crate::MICROSOFT;
use crate::Model;
use crate::facts::Facts;
use crate::graph::Names;
use crate::proto::NodeProto;

/// The domain of operators on channels in blocks, as many as the registers of a CPU hold.
const LAID_OUT: &str = "com.microsoft.nchwc";

/// The operator set that is written, or a newer one.
const OPSET: i64 = 13;

/// Splits every such node of the main graph; returns those of a known operator that stay, and why.
///
/// Values that are outputs of the nodes keep their names.
pub fn unfuse(model: &mut Model) -> Vec<KeptNode> {
    if !model.graph().node.iter().any(is_fused) {
        return Vec::new();
    }
    if model.opset() < OPSET {
        // What cannot be upgraded stays, and each node says so.
        let _ = upgrade_opset(model, OPSET);
    }
    loop {
        // Of what is split here the next ones' types and sizes follow.
        let (split, kept) = unfuse_once(model);
        if kept.is_empty() || split == 0 {
            return kept;
        }
    }
}

/// Whether a node is of an operator that [`unfuse`] knows.
fn is_fused(node: &NodeProto) -> bool {
    splitter(node).is_some()
}

type Split = fn(&NodeProto, &mut Emit) -> Result<(), Why>;

fn splitter(node: &NodeProto) -> Option<Split> {
    // It has the domain of ONNX in files of onnxruntime, and is none of ONNX's.
    if node.is("SimplifiedLayerNormalization") {
        return Some(norms::simplified);
    }
    if node.domain() != MICROSOFT {
        return None;
    }
    Some(match node.op_type() {
        "Attention" => attention::of_weights,
        "BiasGelu" => elementwise::bias_gelu,
        "EmbedLayerNormalization" => embedding::with_norm,
        "FastGelu" => elementwise::fast_gelu,
        "FusedConv" => products::conv,
        "FusedGemm" => products::gemm,
        "FusedMatMul" | "TransposeMatMul" => products::mat_mul,
        "Gelu" => elementwise::gelu,
        "MultiHeadAttention" => attention::of_heads,
        "QuickGelu" => elementwise::quick_gelu,
        "SkipLayerNormalization" => norms::skip,
        "SkipSimplifiedLayerNormalization" => norms::skip_simplified,
        _ => return None,
    })
}

/// Why the weights of an operator of a foreign domain stay as they are, and what would help.
pub fn why_unknown(domain: &str, op: &str) -> String {
    match domain == LAID_OUT {
        true => format!(
            "{domain}.{op} reads it, in blocks that onnxruntime laid out for one kind of CPU: save the model with \
             ORT_ENABLE_EXTENDED or less"
        ),
        false => format!(
            "{domain}.{op} reads it, of which fewbits does not know what it computes: export the model without it"
        ),
    }
}

/// Splits what can be from what is known now; returns how many nodes, and those that stay.
fn unfuse_once(model: &mut Model) -> (usize, Vec<KeptNode>) {
    let opset = model.opset();
    let graph = model.graph();
    let mut names = Names::new(graph);
    let facts = Facts::of(graph);
    let (types, sizes) = (facts.types(), facts.sizes());
    let (mut nodes, mut constants) = (Vec::with_capacity(graph.node.len()), Vec::new());
    let (mut count, mut kept) = (0, Vec::new());
    for node in &graph.node {
        let Some(split) = splitter(node) else {
            nodes.push(node.clone());
            continue;
        };
        let mut emit = Emit::new(node, opset, &mut names, types, sizes);
        let done = match opset < OPSET {
            true => Err(format!("opset {OPSET} is needed; export the model with a newer opset")),
            false => split(node, &mut emit),
        };
        match done {
            Ok(()) => {
                let (mut made, mut added) = emit.into_parts();
                nodes.append(&mut made);
                constants.append(&mut added);
                count += 1;
            }
            Err(why) => {
                let (name, op) = (node.label().to_string(), node.op_type().to_string());
                kept.push(KeptNode { node: name, op, why });
                nodes.push(node.clone());
            }
        }
    }
    let graph = model.graph_mut();
    graph.node = nodes;
    graph.initializer.append(&mut constants);
    (count, kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, GraphProto, TensorProto, ValueInfoProto};

    fn fused(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto { domain: Some(MICROSOFT.into()), ..NodeProto::new(op, inputs, outputs) }
    }

    fn model(nodes: Vec<NodeProto>, opset: i64) -> Model {
        let weight = |name: &str, dims: &[usize]| {
            TensorProto::from_f32(name, dims, &vec![0.5; dims.iter().product()])
        };
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(3), Some(8)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, None, None])],
            initializer: vec![
                weight("w", &[8, 8]),
                weight("qkv", &[8, 24]),
                weight("b", &[8]),
                weight("b3", &[24]),
            ],
            ..GraphProto::default()
        };
        Model::from_graph(graph, opset)
    }

    fn ops(model: &Model) -> Vec<&str> {
        model.graph().node.iter().map(NodeProto::op_type).collect()
    }

    #[test]
    fn what_follows_from_what_is_split_is_split_too() {
        // The number of axes of 's' is known only when the norm before it is ONNX's.
        let nodes = vec![
            fused("SkipLayerNormalization", &["x", "x", "b", "b"], &["s"]),
            fused("FusedMatMul", &["s", "x"], &["t"]).with(AttributeProto::of_int("transB", 1)),
            fused("FusedMatMul", &["t", "s"], &["y"]).with(AttributeProto::of_float("alpha", 0.5)),
        ];
        let mut m = model(nodes, 17);
        assert_eq!(unfuse(&mut m), []);
        let expected = ["Add", "LayerNormalization", "Transpose", "MatMul", "MatMul", "Mul"];
        assert_eq!(ops(&m), expected);
        assert_eq!(m.graph().node.last().unwrap().output, ["y"]);
    }

    #[test]
    fn an_attention_is_a_product_of_its_weight() {
        let attention = fused("Attention", &["x", "qkv", "b3"], &["y"])
            .with(AttributeProto::of_int("num_heads", 2));
        let mut m = model(vec![attention], 13);
        assert_eq!(unfuse(&mut m), []);
        let weighted = m.graph().node.iter().find(|node| node.input.contains(&"qkv".to_string()));
        assert!(weighted.unwrap().is("MatMul"));
        assert!(m.graph().node.iter().all(|node| node.is_onnx()));
    }

    #[test]
    fn operators_on_blocks_are_told_from_unknown_ones() {
        assert!(why_unknown(LAID_OUT, "Conv").contains("ORT_ENABLE_EXTENDED"));
        assert!(why_unknown("own", "Conv").starts_with("own.Conv reads it, of which"));
    }

    #[test]
    fn what_is_not_known_stays_and_says_why() {
        let past = fused("Attention", &["x", "qkv", "b3", "", "past"], &["y", "present"])
            .with(AttributeProto::of_int("num_heads", 2));
        let conv = fused("FusedConv", &["x", "w"], &["y"])
            .with(AttributeProto::of_string("activation", "Mystery"));
        for (node, why) in [(past, "past"), (conv, "Mystery")] {
            let mut m = model(vec![node], 17);
            let before = m.proto().clone();
            let kept = unfuse(&mut m);
            assert!(kept[0].why.contains(why), "{}", kept[0].why);
            assert_eq!(*m.proto(), before);
        }
        // The type of what a foreign operator gives is not known, nor is that of a constant beside it.
        let mut m =
            model(vec![fused("Mystery", &["x"], &["t"]), fused("QuickGelu", &["t"], &["y"])], 17);
        assert!(unfuse(&mut m)[0].why.contains("type"));
    }
}
