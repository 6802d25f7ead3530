//! Nodes that are left to another executor, as a model of their own.

use std::collections::{BTreeSet, HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::facts::is_exact;
use fewbits_onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::lower::Lowering;
use crate::op::{Op, Subgraph};
use crate::program::{Backend, Step, ValueId};

/// Nodes as a model of their own, with the constant nodes that they read.
pub(crate) fn fallback(
    model: &Model,
    lowering: &Lowering,
    constant: &HashSet<usize>,
    mut nodes: Vec<usize>,
    is_read_later: impl Fn(&ValueId) -> bool,
) -> Step {
    let graph = model.graph();
    let label = graph.node[nodes[0]].label().to_string();
    let what = names_of(graph, &nodes);
    let (count, why) = (nodes.len(), lowering.why(&nodes));
    let is_exact = nodes.iter().all(|&n| is_exact(&graph.node[n]));
    let own: HashSet<usize> = nodes.iter().copied().collect();
    // The constant nodes that these read, and those read by them.
    let producer: HashMap<&str, usize> = constant
        .iter()
        .flat_map(|&n| graph.node[n].output.iter().map(move |o| (o.as_str(), n)))
        .collect();
    let mut seen: HashSet<usize> = own.clone();
    let mut open = nodes.clone();
    while let Some(position) = open.pop() {
        graph.node[position].for_each_use(&mut |name| {
            if let Some(&needed) = producer.get(name)
                && seen.insert(needed)
            {
                nodes.push(needed);
                open.push(needed);
            }
        });
    }
    nodes.sort_unstable();
    let produced: HashSet<&str> =
        nodes.iter().flat_map(|&n| &graph.node[n].output).map(String::as_str).collect();
    let mut inputs: Vec<&str> = Vec::new();
    let mut constants: BTreeSet<&str> = BTreeSet::new();
    for &position in &nodes {
        graph.node[position].for_each_use(&mut |name| {
            if lowering.view.initializer(name).is_some() {
                constants.insert(name);
            } else if !produced.contains(name)
                && !inputs.contains(&name)
                && lowering.tensors.contains_key(name)
            {
                inputs.push(name);
            }
        });
    }
    // What constant nodes give is computed once, when the model is loaded.
    let outputs: Vec<&str> = nodes
        .iter()
        .filter(|n| own.contains(n))
        .flat_map(|&n| &graph.node[n].output)
        .map(String::as_str)
        .filter(|o| lowering.tensors.get(o).is_some_and(&is_read_later))
        .collect();
    let part = GraphProto {
        name: graph.name.clone(),
        node: nodes.iter().map(|&n| graph.node[n].clone()).collect(),
        initializer: constants
            .iter()
            .filter_map(|n| lowering.view.initializer(n).cloned())
            .collect(),
        input: inputs.iter().map(|n| declared(lowering, n)).collect(),
        output: outputs.iter().map(|n| declared(lowering, n)).collect(),
        ..GraphProto::default()
    };
    let mut part_model = Model::from_graph(part, model.opset());
    let proto: &mut ModelProto = part_model.proto_mut();
    proto.opset_import = model.proto().opset_import.clone();
    proto.ir_version = model.proto().ir_version;
    let id = |name: &&str| lowering.tensors[*name];
    let named = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let subgraph =
        Subgraph { inputs: named(&inputs), outputs: named(&outputs), model: part_model, is_exact };
    Step {
        op: Op::Fallback(Box::new(subgraph)),
        inputs: inputs.iter().map(id).collect(),
        outputs: outputs.iter().map(id).collect(),
        what,
        node: label,
        rule: None,
        backend: Backend::Rten,
        nodes: count,
        why,
    }
}

/// `2 Add, Softmax`.
fn names_of(graph: &GraphProto, nodes: &[usize]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for node in nodes.iter().map(|&n| &graph.node[n]).map(NodeProto::op_type) {
        match counts.iter_mut().find(|(op, _)| *op == node) {
            Some((_, count)) => *count += 1,
            None => counts.push((node, 1)),
        }
    }
    let names: Vec<String> = counts
        .into_iter()
        .map(|(op, n)| if n == 1 { op.to_string() } else { format!("{n} {op}") })
        .collect();
    names.join(", ")
}

/// A value of a subgraph, with its type if that is known, and without axes if it has none.
fn declared(lowering: &Lowering, name: &str) -> ValueInfoProto {
    match lowering.types.get(name) {
        Some(&data_type) => {
            let mut info = ValueInfoProto::tensor(name, data_type as i32, &[]);
            if let Some(t) = info.r#type.as_mut()
                && let Some(fewbits_onnx::proto::TypeValue::TensorType(t)) = t.value.as_mut()
                && lowering.ranks.get(name) != Some(&0)
            {
                t.shape = None;
            }
            info
        }
        None => ValueInfoProto { name: Some(name.to_string()), ..Default::default() },
    }
}
