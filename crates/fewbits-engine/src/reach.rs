//! What of a model can be computed although the executor lacks operators of it.
//!
//! rten names the first operator that it does not have and gives up the whole model. Here every
//! node is tried alone, in a model without weights, so that the nodes which can be computed without
//! the others can be cut out and run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fmt;

use fewbits_onnx::Model;
use fewbits_onnx::facts::{held_tensor, is_convolution};
use fewbits_onnx::passes::cleanup;
use fewbits_onnx::proto::{
    AttributeProto, DataType, GraphProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

use fewbits_ir::prepare::prepare_leniently;
use fewbits_ir::trust::distrusted;
use fewbits_ir::{Program, own_nodes};

use crate::expose::expose;
use crate::{Engine, FloatRunner, RunOptions, Runner};

/// What of a model can be computed.
pub struct Reach {
    /// Computes the values that can be, and nothing else.
    pub runner: Box<dyn Runner>,
    /// The nodes that the executor cannot run.
    pub lacking: Vec<Lacking>,
    /// The values asked for that depend on one of those nodes.
    pub out_of_reach: Vec<OutOfReach>,
}

impl Reach {
    /// Loads the part of `model` that computes `values` in floats, its quantized weights as those
    /// they stand for: the values are the runner's only outputs, and nothing else is computed.
    /// Those behind a node that the float executor cannot run are left out.
    ///
    /// # Errors
    /// If a value does not exist, or `FEWBITS_CPU` asks for what this CPU lacks.
    pub fn of(model: &Model, values: &[String], options: &RunOptions) -> crate::Result<Reach> {
        let (mut part, _) = prepare_leniently(&expose(model, values)?)?;
        let mut lacking = lacking_in_rten(&part);
        let own = own_nodes(&part);
        let needs_ours = lacking.keys().any(|position| own.contains(position));
        lacking.retain(|position, _| !own.contains(position));
        let out_of_reach = cut(&mut part, &lacking, values);
        // Our own kernels gain most on convolutions; what is left to rten holds its weights once
        // where rten has the whole part.
        let runner: Box<dyn Runner> = if needs_ours || part.graph().node.iter().any(is_convolution)
        {
            Box::new(Engine::of_program(Program::of_prepared(part)?, options)?)
        } else {
            Box::new(FloatRunner::load(part, model, options)?)
        };
        Ok(Reach { runner, lacking: lacking.into_values().collect(), out_of_reach })
    }
}

/// A node that the executor cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The node's name, or its first output.
    pub node: String,
    /// What of it the executor lacks: the operator with its domain, an attribute, an element type.
    pub what: String,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ({})", self.node, self.what)
    }
}

/// A value that depends on a node which the executor cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfReach {
    /// The value.
    pub value: String,
    /// The node, the first on the way if there are several.
    pub behind: Lacking,
}

/// The nodes of the main graph that rten cannot run, by their positions.
///
/// A node whose subgraphs hold such nodes is one itself.
pub(crate) fn lacking_in_rten(model: &Model) -> BTreeMap<usize, Lacking> {
    let graph = model.graph();
    let probe = Probe::new(model);
    let hidden = types_lacking(graph);
    let nodes = graph.node.iter().enumerate();
    nodes
        .filter_map(|(position, node)| {
            let what = probe.lacks(node).or_else(|| reads(node, &hidden))?;
            Some((position, Lacking { node: node.label().to_string(), what }))
        })
        .collect()
}

/// Leaves in `model` the nodes that compute `values`, which become its only outputs. Those that
/// need a node of `lacking` are not computed, and returned.
pub(crate) fn cut(
    model: &mut Model,
    lacking: &BTreeMap<usize, Lacking>,
    values: &[String],
) -> Vec<OutOfReach> {
    let graph = model.graph_mut();
    let lost = lost(graph, lacking);
    let out_of_reach: Vec<OutOfReach> = values
        .iter()
        .filter_map(|value| {
            let behind = lost.get(value.as_str())?;
            Some(OutOfReach { value: value.clone(), behind: Lacking::clone(behind) })
        })
        .collect();
    let wanted: HashSet<&str> = values.iter().map(String::as_str).collect();
    let kept: Vec<ValueInfoProto> = graph
        .output
        .iter()
        .filter(|o| wanted.contains(o.name()) && !lost.contains_key(o.name()))
        .cloned()
        .collect();
    graph.output = kept;
    cleanup::drop_dead(graph);
    out_of_reach
}

/// The values that depend on nodes of `lacking`, with the node.
fn lost<'a>(
    graph: &'a GraphProto,
    lacking: &'a BTreeMap<usize, Lacking>,
) -> HashMap<&'a str, &'a Lacking> {
    let mut lost: HashMap<&str, &Lacking> = HashMap::new();
    let mut grows = true;
    // Once for a sorted graph, and once more to see that nothing is left.
    while grows {
        grows = false;
        for (position, node) in graph.node.iter().enumerate() {
            let mut behind = None;
            node.for_each_use(&mut |name| behind = behind.or(lost.get(name).copied()));
            let Some(behind) = behind.or(lacking.get(&position)) else { continue };
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                grows |= lost.insert(output, behind).is_none();
            }
        }
    }
    lost
}

/// Tries nodes one by one.
struct Probe {
    options: rten::ModelOptions,
    imports: Vec<OperatorSetIdProto>,
    opset: i64,
}

impl Probe {
    fn new(model: &Model) -> Probe {
        let mut options = rten::ModelOptions::with_all_ops();
        options.enable_optimization(false);
        let imports = model.proto().opset_import.clone();
        Probe { options, imports, opset: model.opset() }
    }

    /// What of `node` the executor lacks.
    fn lacks(&self, node: &NodeProto) -> Option<String> {
        let subgraphs = || node.attribute.iter().flat_map(AttributeProto::subgraphs);
        for graph in subgraphs() {
            let hidden = types_lacking(graph);
            let inner = graph.node.iter().find_map(|n| self.lacks(n).or_else(|| reads(n, &hidden)));
            if let Some(what) = inner {
                return Some(format!("{what} inside {}", operator(node)));
            }
        }
        if held_tensor(node).is_some_and(has_type) {
            return None;
        }
        if let Some(what) = distrusted(node, self.opset) {
            return Some(what);
        }
        let error = self.load(node).err()?;
        // What lies below names the fault alone.
        let error = error.source().map_or_else(|| error.to_string(), |below| below.to_string());
        // Neither words nor kinds of rten's error are promised: they only make the reason plainer.
        match error.contains("operator not ") {
            true => Some(operator(node)),
            false => Some(format!("{}: {error}", operator(node))),
        }
    }

    /// Loads a model of this node alone, what it reads as inputs and its subgraphs without content.
    fn load(&self, node: &NodeProto) -> Result<rten::Model, rten::LoadError> {
        let mut alone = node.clone();
        for attribute in &mut alone.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                graph.node.clear();
                graph.initializer.clear();
            }
        }
        let value = |name: &String| ValueInfoProto {
            name: Some(name.clone()),
            ..ValueInfoProto::default()
        };
        let named = |names: &[String]| names.iter().filter(|n| !n.is_empty()).map(value).collect();
        let (input, output) = (named(&node.input), named(&node.output));
        let graph = GraphProto { node: vec![alone], input, output, ..GraphProto::default() };
        let mut model = Model::from_graph(graph, self.opset);
        model.proto_mut().opset_import = self.imports.clone();
        self.options.load(model.to_bytes())
    }
}

/// The operator of `node` with its domain, if that is not ONNX's own.
fn operator(node: &NodeProto) -> String {
    match node.is_onnx() {
        true => node.op_type().to_string(),
        false => format!("{}.{}", node.domain(), node.op_type()),
    }
}

/// Whether the executor has the element type of `tensor`. Strings are looked up behind it.
fn has_type(tensor: &TensorProto) -> bool {
    use DataType::*;
    matches!(
        tensor.element_type(),
        Ok(Float | Double | Float16 | Int64 | Int32 | Int8 | Uint8 | Bool | String)
    )
}

/// The initializers of `graph` whose element types the executor does not have.
fn types_lacking(graph: &GraphProto) -> HashMap<&str, DataType> {
    let foreign = graph.initializer.iter().filter(|t| !has_type(t));
    foreign.map(|t| (t.name(), t.element_type().unwrap_or(DataType::Undefined))).collect()
}

/// Says so if `node` reads a constant of `hidden`.
fn reads(node: &NodeProto, hidden: &HashMap<&str, DataType>) -> Option<String> {
    let (name, data_type) = node.input.iter().find_map(|i| hidden.get_key_value(i.as_str()))?;
    let data_type = format!("{data_type:?}").to_lowercase();
    Some(format!("{} of the {data_type} constant '{name}'", operator(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(op: &str, input: &str, output: &str) -> NodeProto {
        let mut node = NodeProto::new(op, &[input], &[output]);
        node.domain = Some("com.acme".into());
        node.name = Some(format!("{output}_node"));
        node
    }

    fn model(nodes: Vec<NodeProto>) -> Model {
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("y", 1, &[None, Some(2)])],
            initializer: vec![TensorProto::from_raw("h", &[1], DataType::Bfloat16, vec![0, 0])],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn whats(nodes: Vec<NodeProto>) -> Vec<(usize, String)> {
        lacking_in_rten(&model(nodes)).into_iter().map(|(at, l)| (at, l.what)).collect()
    }

    #[test]
    fn unknown_operators_types_and_attributes_are_named() {
        let mode = AttributeProto::of_string("mode", "wrong");
        let found = whats(vec![
            NodeProto::new("Relu", &["x"], &["a"]),
            custom("Magic", "a", "b"),
            NodeProto::new("Det", &["b"], &["c"]),
            NodeProto::new("Add", &["c", "h"], &["d"]),
            NodeProto::new("Pad", &["d", "p"], &["y"]).with(mode),
        ]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0], (1, "com.acme.Magic".to_string()));
        assert_eq!(found[1], (2, "Det".to_string()));
        assert_eq!(found[2], (3, "Add of the bfloat16 constant 'h'".to_string()));
        assert!(found[3].1.starts_with("Pad: ") && found[3].1.contains("mode"), "{found:?}");
    }

    #[test]
    fn a_node_around_an_unknown_one_is_unknown() {
        let branch = |name: &str, node: NodeProto| AttributeProto {
            name: Some(name.into()),
            r#type: Some(5),
            g: Some(GraphProto {
                output: vec![ValueInfoProto {
                    name: Some(node.output[0].clone()),
                    ..ValueInfoProto::default()
                }],
                node: vec![node],
                ..GraphProto::default()
            }),
            ..AttributeProto::default()
        };
        let around = |inner: NodeProto| {
            NodeProto::new("If", &["x"], &["y"])
                .with(branch("then_branch", NodeProto::new("Neg", &["x"], &["t"])))
                .with(branch("else_branch", inner))
        };
        assert_eq!(whats(vec![around(NodeProto::new("Abs", &["x"], &["e"]))]), []);
        let found = whats(vec![around(custom("Magic", "x", "e"))]);
        assert_eq!(found, [(0, "com.acme.Magic inside If".to_string())]);
    }

    #[test]
    fn what_needs_no_unknown_operator_is_kept() {
        let mut model = model(vec![
            NodeProto::new("Relu", &["x"], &["a"]),
            custom("Magic", "a", "b"),
            NodeProto::new("Neg", &["b"], &["c"]),
            NodeProto::new("Neg", &["a"], &["d"]),
            NodeProto::new("Add", &["c", "d"], &["y"]),
        ]);
        let value =
            |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
        model.graph_mut().output.extend(["a", "c", "d"].map(value));
        let values = ["a", "c", "d"].map(String::from);
        let lacking = lacking_in_rten(&model);
        let out_of_reach = cut(&mut model, &lacking, &values);
        let [lost] = out_of_reach.as_slice() else { panic!("{out_of_reach:?}") };
        assert_eq!((lost.value.as_str(), lost.behind.node.as_str()), ("c", "b_node"));
        let ops: Vec<&str> = model.graph().node.iter().map(|n| n.op_type()).collect();
        assert_eq!(ops, ["Relu", "Neg"]);
        let outputs: Vec<&str> = model.graph().output.iter().map(|o| o.name()).collect();
        assert_eq!(outputs, ["a", "d"]);
    }
}
