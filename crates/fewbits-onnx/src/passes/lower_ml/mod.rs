//! `ai.onnx.ml` operators become standard ones, so that every later pass sees one kind of graph:
//! a linear model is a `MatMul` with a weight, a label is an `ArgMax`.
//!
//! The outputs are those of ONNX Runtime for the original: where the specification leaves room
//! (ties, rows of zeros, transforms of a single score) its behaviour is followed, and the file
//! of each operator says so. What standard operators cannot express is left as it is, and named.

mod array_feature_extractor;
mod binarizer;
mod emit;
mod feature_vectorizer;
mod imputer;
mod label_encoder;
mod linear_classifier;
mod linear_regressor;
mod normalizer;
mod one_hot_encoder;
mod scaler;
mod tables;
mod zip_map;

pub use self::linear_classifier::logistic_classifier;

use self::emit::{Emit, Surroundings};
use super::cleanup;
use crate::equal_initializers::share_equal_initializers;
use crate::facts::Facts;
use crate::graph::Names;
use crate::proto::{GraphProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use crate::{MODEL_DOMAIN_ML, Model, Result};

/// The default operator set given to a model that imports none: old enough for every runtime in
/// use, new enough for all that lowering emits but comparisons of strings.
const DEFAULT_OPSET: i64 = 13;
/// The lowest IR version that carries [`DEFAULT_OPSET`].
const DEFAULT_OPSET_IR: i64 = 7;
/// The lowest IR version whose initializers need not be inputs of the graph.
const FREE_INITIALIZERS_IR: i64 = 4;
/// Broadcasting, `Where` and `IsNaN` as they are used here.
const OLDEST_OPSET: i64 = 9;

/// What [`lower_ml`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lowered {
    /// The nodes that standard operators replace now, as `name (operator)`.
    pub lowered: Vec<String>,
    /// The nodes left as they were.
    pub kept: Vec<KeptNode>,
}

/// An `ai.onnx.ml` node that was left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptNode {
    /// The node's name, or its first output.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why it stays, and the way out where there is one.
    pub why: String,
}

/// Replaces every `ai.onnx.ml` operator of the main graph that standard operators can express.
///
/// Names, types and shapes of the graph's outputs stay, but for `ZipMap`: its output becomes the
/// plain tensor of probabilities `[N, classes]`. A model without `ai.onnx.ml` nodes is not
/// touched.
///
/// # Errors
/// If an attribute or a tensor of such an operator is damaged, by the name of its node.
pub fn lower_ml(model: &mut Model) -> Result<Lowered> {
    let mut report = Lowered::default();
    if !uses_ml(model.graph()) {
        return Ok(report);
    }
    let opset = match model.opset() {
        0 => DEFAULT_OPSET,
        version => version,
    };
    let surroundings = Surroundings::new(model.graph(), opset);
    let mut names = Names::new(model.graph());
    let graph = model.graph_mut();
    let mut done: Vec<NodeProto> = Vec::with_capacity(graph.node.len() + 8);
    for node in std::mem::take(&mut graph.node) {
        if node.domain() != MODEL_DOMAIN_ML {
            name_kept_in_subgraphs(&node, &mut report.kept);
            done.push(node);
            continue;
        }
        let mut emit = Emit::new(&surroundings, &mut names, &done);
        match lower_node(&node, &mut emit) {
            Ok(()) => {
                let (mut nodes, mut constants, plain_outputs) = emit.into_parts();
                done.append(&mut nodes);
                graph.initializer.append(&mut constants);
                for value in plain_outputs {
                    replace_output(graph, value);
                }
                report.lowered.push(format!("{} ({})", node.label(), node.op_type()));
            }
            Err(why) => {
                report.kept.push(kept(&node, why));
                done.push(node);
            }
        }
    }
    graph.node = done;
    if !report.lowered.is_empty() {
        tables::gather_last(graph, &mut names)?;
        casts_to_identities(graph);
        share_equal_initializers(graph);
        cleanup::cleanup(graph);
        settle_versions(model, opset);
    }
    drop_repeated_imports(model);
    Ok(report)
}

fn lower_node(node: &NodeProto, emit: &mut Emit) -> std::result::Result<(), String> {
    emit.need(OLDEST_OPSET, "lowering")?;
    match node.op_type() {
        "ArrayFeatureExtractor" => array_feature_extractor::lower(node, emit),
        "Binarizer" => binarizer::lower(node, emit),
        "FeatureVectorizer" => feature_vectorizer::lower(node, emit),
        "Imputer" => imputer::lower(node, emit),
        "LabelEncoder" => label_encoder::lower(node, emit),
        "LinearClassifier" => linear_classifier::lower(node, emit),
        "LinearRegressor" => linear_regressor::lower(node, emit),
        "Normalizer" => normalizer::lower(node, emit),
        "OneHotEncoder" => one_hot_encoder::lower(node, emit),
        "Scaler" => scaler::lower(node, emit),
        "ZipMap" => zip_map::lower(node, emit),
        _ => Err("no standard operators express it".to_string()),
    }
}

fn kept(node: &NodeProto, why: String) -> KeptNode {
    KeptNode { node: node.label().to_string(), op: node.op_type().to_string(), why }
}

fn name_kept_in_subgraphs(node: &NodeProto, kept_nodes: &mut Vec<KeptNode>) {
    for graph in node.attribute.iter().flat_map(|a| a.subgraphs()) {
        for inner in &graph.node {
            if inner.domain() == MODEL_DOMAIN_ML {
                let why = format!("it lies in a subgraph of '{}'", node.label());
                kept_nodes.push(kept(inner, why));
            }
            name_kept_in_subgraphs(inner, kept_nodes);
        }
    }
}

/// Makes an `Identity` of every `Cast` to the type that a value has already, as converters write
/// them behind labels; the clean-up drops it.
fn casts_to_identities(graph: &mut GraphProto) {
    let facts = Facts::of(graph);
    for node in graph.node.iter_mut().filter(|n| n.is("Cast") && n.input.len() == 1) {
        if facts.data_type(&node.input[0]).is_some_and(|t| t as i64 == node.int("to", 0)) {
            node.op_type = Some("Identity".into());
            node.attribute.clear();
        }
    }
}

fn replace_output(graph: &mut GraphProto, value: ValueInfoProto) {
    for output in graph.output.iter_mut().filter(|o| o.name() == value.name()) {
        *output = value.clone();
    }
    graph.value_info.retain(|v| v.name() != value.name());
}

fn uses_ml(graph: &GraphProto) -> bool {
    graph.node.iter().any(|n| {
        n.domain() == MODEL_DOMAIN_ML || n.attribute.iter().any(|a| a.subgraphs().any(uses_ml))
    })
}

/// No import of a domain that is no longer used, one of the default domain, and an IR version
/// that allows what lowering added.
fn settle_versions(model: &mut Model, opset: i64) {
    let functions = &model.proto().functions;
    let function_imports_ml =
        functions.iter().any(|f| f.opset_import.iter().any(|o| o.domain() == MODEL_DOMAIN_ML));
    let keeps_ml = uses_ml(model.graph()) || function_imports_ml;
    let had_default = model.opset() != 0;
    let proto = model.proto_mut();
    proto.opset_import.retain(|o| o.domain() != MODEL_DOMAIN_ML || keeps_ml);
    let mut lowest_ir = FREE_INITIALIZERS_IR;
    if !had_default {
        lowest_ir = DEFAULT_OPSET_IR;
        proto
            .opset_import
            .push(OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) });
    }
    proto.ir_version = Some(proto.ir_version().max(lowest_ir));
}

/// Leaves one import for each domain, with the highest version that is given.
fn drop_repeated_imports(model: &mut Model) {
    fn domain(import: &OperatorSetIdProto) -> &str {
        // Two names of the default domain.
        if import.domain() == "ai.onnx" { "" } else { import.domain() }
    }
    let mut kept: Vec<OperatorSetIdProto> = Vec::new();
    for import in std::mem::take(&mut model.proto_mut().opset_import) {
        match kept.iter_mut().find(|k| domain(k) == domain(&import)) {
            Some(first) => first.version = Some(first.version().max(import.version())),
            None => kept.push(import),
        }
    }
    model.proto_mut().opset_import = kept;
}

#[cfg(test)]
mod tests {
    use super::emit::testing::{ml, model};
    use super::*;
    use crate::proto::AttributeProto;

    #[test]
    fn a_model_without_ml_operators_is_not_touched() {
        let mut m = model(vec![NodeProto::new("Identity", &["x"], &["y"])], 17);
        let before = m.proto().clone();
        assert_eq!(lower_ml(&mut m).unwrap(), Lowered::default());
        assert_eq!(*m.proto(), before);
    }

    #[test]
    fn what_cannot_be_lowered_is_left_and_named() {
        let mut m = model(vec![ml("TreeEnsembleRegressor", &["x"], &["y"])], 17);
        let report = lower_ml(&mut m).unwrap();
        assert!(report.lowered.is_empty());
        assert_eq!(report.kept[0].node, "y");
        assert_eq!(report.kept[0].op, "TreeEnsembleRegressor");
        assert_eq!(m.graph().node.len(), 1);
        assert!(m.proto().opset_import.iter().any(|o| o.domain() == MODEL_DOMAIN_ML));
    }

    #[test]
    fn imports_are_settled() {
        let binarizer = || vec![ml("Binarizer", &["x"], &["y"])];
        let mut m = model(binarizer(), 17);
        let import = m.proto().opset_import[0].clone();
        m.proto_mut().opset_import.push(import);
        lower_ml(&mut m).unwrap();
        assert_eq!(m.proto().opset_import.len(), 1);
        assert_eq!(m.opset(), 17);

        let mut m = model(binarizer(), 17);
        m.proto_mut().opset_import.retain(|o| o.domain() == MODEL_DOMAIN_ML);
        m.proto_mut().ir_version = Some(3);
        lower_ml(&mut m).unwrap();
        assert_eq!(m.opset(), DEFAULT_OPSET);
        assert_eq!(m.proto().ir_version(), DEFAULT_OPSET_IR);

        let mut m = model(binarizer(), 8);
        let report = lower_ml(&mut m).unwrap();
        assert!(report.kept[0].why.contains("opset 9"), "{}", report.kept[0].why);
    }

    #[test]
    fn casts_of_labels_to_their_own_type_go() {
        let classifier = ml("LinearClassifier", &["x"], &["label", "p"])
            .with(AttributeProto::of_floats("coefficients", &[1.0; 4]))
            .with(AttributeProto::of_floats("intercepts", &[1.0; 2]))
            .with(AttributeProto::of_ints("classlabels_ints", &[0, 1]));
        let to_int64 = AttributeProto::of_int("to", 7);
        let cast = NodeProto::new("Cast", &["label"], &["y"]).with(to_int64);
        let mut m = model(vec![classifier, cast], 17);
        lower_ml(&mut m).unwrap();
        let ops: Vec<&str> = m.graph().node.iter().map(|n| n.op_type()).collect();
        assert_eq!(ops, ["MatMul", "Add", "ArgMax"]);
    }

    #[test]
    fn nodes_of_subgraphs_are_named() {
        let inner =
            GraphProto { node: vec![ml("Scaler", &["a"], &["b"])], ..GraphProto::default() };
        let branch = AttributeProto {
            name: Some("then_branch".into()),
            g: Some(inner),
            ..AttributeProto::default()
        };
        let mut m = model(vec![NodeProto::new("If", &["x"], &["y"]).with(branch)], 17);
        assert_eq!(lower_ml(&mut m).unwrap().kept[0].op, "Scaler");
    }
}
