//! A graph of an older operator set becomes one of a newer set that computes the same.
//!
//! Between opsets 6 and 23 most operators only gained element types. Those whose inputs, outputs,
//! attributes or defaults changed are in `CHANGES`, one line a change; every version in between
//! is applied in turn, so that a line only knows the version before it. To add one: a line in the
//! table, a function in `rules.rs`, a model in `tests/python/test_passes.py`.

mod rules;
mod step;

use std::collections::HashSet;

use self::rules::*;
use self::step::{Step, Surroundings};
use crate::facts::Facts;
use crate::graph::Names;
use crate::proto::{GraphProto, NodeProto, OperatorSetIdProto};
use crate::{Model, OnnxError, Result, ir_version_of_opset};

/// The oldest opset that can be upgraded: the one before broadcasting as it is today.
pub const OLDEST_OPSET: i64 = 6;
/// The newest opset that can be upgraded to.
pub const NEWEST_OPSET: i64 = 23;
/// The lowest IR version whose initializers need not be inputs of the graph.
const FREE_INITIALIZERS_IR: i64 = 4;

/// Rewrites one node of the version before; pushes what takes its place, or says why it cannot.
type Convert = fn(NodeProto, &mut Step) -> std::result::Result<(), String>;

/// What changed: the version, the operators, and what makes an older node a node of that version.
const CHANGES: &[(i64, &[&str], Convert)] = &[
    (7, BROADCASTING, broadcasting_becomes_implicit),
    (7, &["BatchNormalization", "Dropout"], inference_becomes_implicit),
    (7, &["GRU", "LSTM", "RNN"], outputs_become_optional),
    (7, &["Gemm"], gemm_broadcasts),
    (7, &["PRelu"], slopes_are_broadcast),
    (7, &["Upsample"], upsample_scales_become_a_list),
    (9, &["BatchNormalization"], batch_norm_loses_spatial),
    (9, &["Scan"], scan_loses_batch),
    (9, &["Upsample"], upsample_scales_become_input),
    (10, &["Dropout"], dropout_mask_becomes_bool),
    (10, &["Slice"], slice_bounds_become_inputs),
    (10, &["TopK"], topk_count_becomes_input),
    (10, &["Upsample"], upsample_becomes_resize),
    (11, &["Clip"], clip_bounds_become_inputs),
    (11, &["Pad"], pads_become_inputs),
    (11, &["Resize"], resize_names_its_coordinates),
    (11, &["Scatter"], scatter_becomes_scatter_elements),
    (12, &["Dropout"], dropout_ratio_becomes_input),
    (13, &["Softmax", "LogSoftmax", "Hardmax"], softmax_keeps_its_axes),
    (13, &["ReduceSum", "Squeeze", "Unsqueeze"], axes_become_input),
    (13, &["Resize"], resize_region_becomes_optional),
    (13, &["Split"], split_sizes_become_input),
    (14, &["BatchNormalization"], batch_norm_loses_statistics),
    (16, &["RoiAlign"], roi_align_names_its_coordinates),
    (18, REDUCTIONS, axes_become_input),
    (18, &["Split"], split_counts_outputs),
    (20, &["DFT"], dft_axis_becomes_input),
    (20, &["GridSample"], grid_sample_renames_modes),
    (21, &["GroupNormalization"], group_norm_scales_channels),
];

const BROADCASTING: &[&str] =
    &["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"];

const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

/// Every change that [`upgrade_opset`] makes or refuses to make: the operator and the version.
pub fn changes() -> impl Iterator<Item = (&'static str, i64)> {
    CHANGES.iter().flat_map(|&(version, ops, _)| ops.iter().map(move |&op| (op, version)))
}

/// Brings the default operator set of `model` to version `to`, subgraphs included.
///
/// A model of that version or a newer one stays as it is, but for repeated imports of one domain,
/// of which one is left. The IR version rises to the one that carries the opset; from IR 4 on an
/// initializer that is also an input is a default that a caller may replace, which it was not
/// meant to be before, so those inputs go.
///
/// # Errors
/// If `to` or the model's version is out of range, or a node cannot be expressed in the newer
/// version; the model is not changed then.
pub fn upgrade_opset(model: &mut Model, to: i64) -> Result<()> {
    let from = model.opset();
    let refused = |reason: String| Err(OnnxError::Opset { from, to, reason });
    if to > NEWEST_OPSET {
        return refused(format!("the newest one known is {NEWEST_OPSET}; ask for that or less"));
    }
    if from >= to {
        settle_imports(model, from);
        return Ok(());
    }
    if from < OLDEST_OPSET && uses_default_domain(model.graph()) {
        return refused(format!("export the model with opset {OLDEST_OPSET} or newer"));
    }
    if let Some(node) = changed_in_function(model, from, to) {
        return Err(node);
    }
    let mut upgraded = model.clone();
    free_initializers(&mut upgraded, to);
    let mut names = Names::new(upgraded.graph());
    let mut surroundings = Surroundings::of(upgraded.graph());
    for version in from.max(OLDEST_OPSET) + 1..=to {
        let graph = upgraded.graph_mut();
        upgrade_graph(graph, version, &mut surroundings, &mut names, &[])?;
    }
    drop_unused(upgraded.graph_mut(), surroundings.created());
    for function in &mut upgraded.proto_mut().functions {
        let default = function.opset_import.iter_mut().filter(|o| o.is_default());
        default.for_each(|o| o.version = Some(o.version().max(to)));
    }
    settle_imports(&mut upgraded, to);
    *model = upgraded;
    Ok(())
}

/// Makes the nodes of version `version - 1` nodes of `version`.
fn upgrade_graph(
    graph: &mut GraphProto,
    version: i64,
    surroundings: &mut Surroundings,
    names: &mut Names,
    outer: &[&Facts],
) -> Result<()> {
    let facts = Facts::of(graph);
    let scopes: Vec<&Facts> = outer.iter().copied().chain([&facts]).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut constants = Vec::new();
    for mut node in std::mem::take(&mut graph.node) {
        for attribute in &mut node.attribute {
            for subgraph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                upgrade_graph(subgraph, version, surroundings, names, &scopes)?;
            }
        }
        let Some(convert) = change(&node, version) else {
            nodes.push(node);
            continue;
        };
        let (label, op) = (node.label().to_string(), node.op_type().to_string());
        let mut step = Step::new(surroundings, names, &scopes);
        convert(node, &mut step).map_err(|reason| OnnxError::Node {
            node: label,
            op,
            reason: format!("it has no equal in opset {version}: {reason}"),
        })?;
        let (mut made, mut added) = step.into_parts();
        nodes.append(&mut made);
        constants.append(&mut added);
    }
    graph.node = nodes;
    graph.initializer.append(&mut constants);
    Ok(())
}

fn change(node: &NodeProto, version: i64) -> Option<Convert> {
    let (_, _, convert) = CHANGES.iter().find(|(changed, ops, _)| {
        *changed == version && node.is_onnx() && ops.contains(&node.op_type())
    })?;
    Some(*convert)
}

/// The first node in a function of the model that would have to be rewritten.
fn changed_in_function(model: &Model, from: i64, to: i64) -> Option<OnnxError> {
    let bodies = model.proto().functions.iter().flat_map(|f| &f.node);
    let node = bodies.into_iter().find(|n| (from + 1..=to).any(|v| change(n, v).is_some()))?;
    Some(OnnxError::Node {
        node: node.label().to_string(),
        op: node.op_type().to_string(),
        reason: "it lies in a function of the model; inline the functions before the upgrade"
            .into(),
    })
}

fn uses_default_domain(graph: &GraphProto) -> bool {
    graph
        .node
        .iter()
        .any(|n| n.is_onnx() || n.attribute.iter().any(|a| a.subgraphs().any(uses_default_domain)))
}

/// One import a domain, the default one with `version`.
fn settle_imports(model: &mut Model, version: i64) {
    let mut kept: Vec<OperatorSetIdProto> = Vec::new();
    for mut import in std::mem::take(&mut model.proto_mut().opset_import) {
        if import.is_default() {
            import = OperatorSetIdProto { domain: Some(String::new()), version: Some(version) };
        }
        match kept.iter_mut().find(|k| k.domain() == import.domain()) {
            Some(first) => first.version = Some(first.version().max(import.version())),
            None => kept.push(import),
        }
    }
    if !kept.iter().any(OperatorSetIdProto::is_default) && version > 0 {
        kept.push(OperatorSetIdProto { domain: Some(String::new()), version: Some(version) });
    }
    model.proto_mut().opset_import = kept;
}

/// Raises the IR version to that of `opset`, and lets initializers be constants.
fn free_initializers(model: &mut Model, opset: i64) {
    let before = model.proto().ir_version();
    let needed = ir_version_of_opset(opset).max(FREE_INITIALIZERS_IR);
    model.proto_mut().ir_version = Some(before.max(needed));
    if before < FREE_INITIALIZERS_IR {
        let graph = model.graph_mut();
        graph.input = graph.required_inputs().cloned().collect();
    }
}

/// Drops what one version added and a later one no longer reads.
fn drop_unused(graph: &mut GraphProto, created: &HashSet<String>) {
    let mut read = HashSet::new();
    graph.for_each_use(&mut |name| {
        read.insert(name.to_string());
    });
    graph.initializer.retain(|t| read.contains(t.name()) || !created.contains(t.name()));
    for attribute in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
        for subgraph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            drop_unused(subgraph, created);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, DataType, TensorProto, ValueInfoProto};

    fn model(nodes: Vec<NodeProto>, opset: i64) -> Model {
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(3), Some(4)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, None, None])],
            ..GraphProto::default()
        };
        Model::from_graph(graph, opset)
    }

    fn ops(model: &Model) -> Vec<&str> {
        model.graph().node.iter().map(NodeProto::op_type).collect()
    }

    #[test]
    fn versions_and_imports_are_settled() {
        let mut m = model(vec![NodeProto::new("Relu", &["x"], &["y"])], 9);
        m.proto_mut()
            .opset_import
            .push(OperatorSetIdProto { domain: Some("ai.onnx".into()), version: Some(9) });
        upgrade_opset(&mut m, 21).unwrap();
        assert_eq!((m.opset(), m.proto().opset_import.len(), m.proto().ir_version()), (21, 1, 10));
        upgrade_opset(&mut m, 13).unwrap();
        assert_eq!(m.opset(), 21, "never downwards");
        assert!(matches!(upgrade_opset(&mut m, 24), Err(OnnxError::Opset { .. })));
    }

    #[test]
    fn what_has_no_equal_is_named_and_nothing_changes() {
        let clip =
            NodeProto::new("Clip", &["x"], &["t"]).with(AttributeProto::of_float("min", 0.0));
        let norm = NodeProto::new("BatchNormalization", &["t", "a", "b", "c", "d"], &["y"])
            .with(AttributeProto::of_int("spatial", 0));
        let mut m = model(vec![clip, norm], 7);
        let before = m.proto().clone();
        let error = upgrade_opset(&mut m, 13).unwrap_err().to_string();
        assert!(error.contains("node 'y' (BatchNormalization)"), "{error}");
        assert_eq!(*m.proto(), before);
        let mut old = model(vec![NodeProto::new("Relu", &["x"], &["y"])], 5);
        assert!(matches!(upgrade_opset(&mut old, 13), Err(OnnxError::Opset { .. })));
    }

    #[test]
    fn operands_are_lined_up_with_the_axis_they_were_for() {
        let add = |axis: Option<i64>| {
            let node = NodeProto::new("Add", &["x", "b"], &["y"])
                .with(AttributeProto::of_int("broadcast", 1));
            let node = match axis {
                Some(axis) => node.with(AttributeProto::of_int("axis", axis)),
                None => node,
            };
            let mut m = model(vec![node], 6);
            let bias = TensorProto::from_f32("b", &[3], &[1.0, 2.0, 3.0]);
            m.graph_mut().initializer.push(bias);
            upgrade_opset(&mut m, 13).unwrap();
            ops(&m).join(" ")
        };
        assert_eq!(add(Some(1)), "Unsqueeze Add");
        assert_eq!(add(Some(2)), "Add");
        assert_eq!(add(None), "Add");
    }

    #[test]
    fn what_trains_is_refused() {
        let norm = |is_test: i64| {
            let node = NodeProto::new("BatchNormalization", &["x", "a", "b", "c", "d"], &["y"]);
            model(vec![node.with(AttributeProto::of_int("is_test", is_test))], 6)
        };
        assert!(upgrade_opset(&mut norm(1), 13).is_ok());
        assert!(upgrade_opset(&mut norm(0), 13).is_err());
    }

    #[test]
    fn softmax_is_flattened_only_where_that_differs() {
        let softmax = |axis| {
            vec![
                NodeProto::new("Softmax", &["x"], &["y"])
                    .with(AttributeProto::of_int("axis", axis)),
            ]
        };
        let mut last = model(softmax(2), 11);
        upgrade_opset(&mut last, 13).unwrap();
        assert_eq!(ops(&last), ["Softmax"]);
        let mut middle = model(softmax(1), 11);
        upgrade_opset(&mut middle, 13).unwrap();
        assert_eq!(ops(&middle), ["Shape", "Flatten", "Softmax", "Reshape"]);
    }

    #[test]
    fn subgraphs_follow_and_initializers_become_constants() {
        let squeeze =
            NodeProto::new("Squeeze", &["x"], &["s"]).with(AttributeProto::of_ints("axes", &[0]));
        let body = || GraphProto {
            node: vec![squeeze.clone()],
            output: vec![ValueInfoProto::tensor("s", 1, &[None, None])],
            ..GraphProto::default()
        };
        let branch =
            |name: &str| AttributeProto { g: Some(body()), ..AttributeProto::of_int(name, 0) };
        let choose = NodeProto::new("If", &["c"], &["y"])
            .with(branch("then_branch"))
            .with(branch("else_branch"));
        let mut m = model(vec![choose], 8);
        let graph = m.graph_mut();
        graph.input.push(ValueInfoProto::tensor("c", 9, &[]));
        graph.initializer.push(TensorProto::from_raw("c", &[], DataType::Bool, vec![1]));
        upgrade_opset(&mut m, 13).unwrap();
        assert_eq!(m.graph().input.len(), 1);
        let inner = m.graph().node[0].attribute[1].g.as_ref().unwrap();
        assert_eq!(inner.node[0].input.len(), 2);
        assert_eq!(inner.initializer[0].ints().unwrap(), [0]);
    }

    #[test]
    fn upsampling_passes_through_every_version() {
        let upsample = NodeProto::new("Upsample", &["x"], &["y"])
            .with(AttributeProto::of_floats("scales", &[1.0, 1.0, 2.0]));
        let mut m = model(vec![upsample], 7);
        upgrade_opset(&mut m, 13).unwrap();
        let node = &m.graph().node[0];
        assert_eq!((node.op_type(), node.input[1].as_str()), ("Resize", ""));
        assert_eq!(node.string("nearest_mode", ""), "floor");
        assert_eq!(m.graph().initializer.len(), 1, "the region of opset 11 is gone again");
    }

    #[test]
    fn the_table_is_in_order() {
        let order: Vec<i64> = CHANGES.iter().map(|(version, ..)| *version).collect();
        assert!(order.is_sorted());
        let unique: HashSet<_> = changes().collect();
        assert_eq!(unique.len(), changes().count());
    }
}
