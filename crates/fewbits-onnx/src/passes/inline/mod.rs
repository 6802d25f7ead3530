//! Calls of a model's own functions become the nodes of these functions.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::lower_ml::KeptNode;
use super::upgrade_opset::upgrade_opset;
use crate::Model;
use crate::graph::Names;
use crate::node::is_default_domain;
use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto,
};

/// A model may have so many nodes when all is inlined: functions that call others twice double with every level.
const MOST_NODES: usize = 1 << 17;
/// Functions may call each other so deep.
const MOST_LEVELS: usize = 32;

/// Domain, name and overload: what a call finds its function by.
type Key = (String, String, String);

/// Puts the nodes of functions in the place of their calls, in subgraphs as well; returns the calls that stay.
///
/// A constant of a function becomes one initializer, whatever the number of calls. Where functions are of a newer
/// operator set than the model, the model is brought to that one; functions of an older one are upgraded call by
/// call, since what has to change may hang on an attribute that the call gives.
pub fn inline_functions(model: &mut Model) -> Vec<KeptNode> {
    if model.proto().functions.is_empty() {
        return Vec::new();
    }
    let functions = std::mem::take(&mut model.proto_mut().functions);
    let reached = reached(model.graph(), &functions);
    if reached.is_empty() {
        // Nobody calls what is there.
        return Vec::new();
    }
    let newest = reached.iter().map(|&function| opset_of(&functions[function])).max();
    if let Some(newest) = newest.filter(|&newest| newest > model.opset())
        && let Err(error) = upgrade_opset(model, newest)
    {
        let keys: HashSet<Key> = functions.iter().map(key_of_function).collect();
        let mut kept = Vec::new();
        keep_calls(&model.graph().node, &keys, &error.to_string(), &mut kept);
        model.proto_mut().functions = functions;
        return kept;
    }
    let mut inline = Inline {
        by_key: functions.iter().map(|function| (key_of_function(function), function)).collect(),
        opset: model.opset(),
        imports: model.proto().opset_import.clone(),
        names: Names::new(model.graph()),
        shared: HashMap::new(),
        constants: Vec::new(),
        within: Vec::new(),
        nodes: 0,
        kept: Vec::new(),
    };
    let graph = model.graph_mut();
    let nodes = std::mem::take(&mut graph.node);
    graph.node = inline.expand(nodes);
    let Inline { mut constants, imports, kept, .. } = inline;
    graph.initializer.append(&mut constants);
    model.proto_mut().opset_import = imports;
    if kept.is_empty() {
        drop_imports(model, &functions);
    } else {
        model.proto_mut().functions = functions;
    }
    kept
}

struct Inline<'a> {
    by_key: HashMap<Key, &'a FunctionProto>,
    /// That of the model.
    opset: i64,
    imports: Vec<OperatorSetIdProto>,
    names: Names,
    /// The initializers that constants of functions are now, by function and name.
    shared: HashMap<(Key, String), String>,
    constants: Vec<TensorProto>,
    /// The functions whose nodes are being put in place.
    within: Vec<Key>,
    nodes: usize,
    kept: Vec<KeptNode>,
}

impl Inline<'_> {
    fn expand(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut done = Vec::with_capacity(nodes.len());
        self.nodes += nodes.len();
        for mut node in nodes {
            for attribute in &mut node.attribute {
                for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    let inner = std::mem::take(&mut graph.node);
                    graph.node = self.expand(inner);
                }
            }
            let key = key_of_call(&node);
            let Some(&function) = self.by_key.get(&key) else {
                done.push(node);
                continue;
            };
            match self.body(&node, &key, function) {
                Ok(body) => {
                    self.within.push(key);
                    done.append(&mut self.expand(body));
                    self.within.pop();
                }
                Err(why) => {
                    self.kept.push(kept(&node, why));
                    done.push(node);
                }
            }
        }
        done
    }

    /// The nodes that take the place of a call.
    fn body(
        &mut self,
        call: &NodeProto,
        key: &Key,
        function: &FunctionProto,
    ) -> Result<Vec<NodeProto>, String> {
        if self.within.contains(key) {
            return Err("the function calls itself, which ONNX forbids".into());
        }
        if self.within.len() == MOST_LEVELS {
            return Err(format!("functions call each other more than {MOST_LEVELS} deep"));
        }
        if self.nodes > MOST_NODES {
            return Err(format!("inlined, the model would have more than {MOST_NODES} nodes"));
        }
        if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
            return Err("the function has fewer inputs or outputs than the call gives".into());
        }
        self.import(function)?;
        let mut values = HashMap::new();
        for (place, formal) in function.input.iter().enumerate() {
            values.insert(formal.clone(), call.input.get(place).cloned().unwrap_or_default());
        }
        // An output that the function hands through is a copy.
        let mut copies = Vec::new();
        for (place, formal) in function.output.iter().enumerate() {
            let given = call.given_output(place);
            match values.get(formal) {
                Some(value) => copies.extend(given.map(|given| (value.clone(), given.to_string()))),
                None => {
                    let given = given.map_or_else(|| self.names.fresh(formal), str::to_string);
                    values.insert(formal.clone(), given);
                }
            }
        }
        let mut nodes = Vec::with_capacity(function.node.len());
        for node in &function.node {
            match shared_constant(node).filter(|_| !function.output.contains(&node.output[0])) {
                Some(tensor) => {
                    let name = self.share(key, &node.output[0], tensor);
                    values.insert(node.output[0].clone(), name);
                }
                None => {
                    self.define(node.output.iter(), &mut values);
                    nodes.push(node.clone());
                }
            }
        }
        for node in &mut nodes {
            self.settle(node, call, function, &values);
            if !node.name().is_empty() {
                node.name = Some(format!("{}/{}", call.label(), node.name()));
            }
        }
        let copies = copies.iter().map(|(from, to)| NodeProto::new("Identity", &[from], &[to]));
        nodes.extend(copies);
        self.upgraded(nodes, opset_of(function))
    }

    /// Lets the model import what a function does.
    fn import(&mut self, function: &FunctionProto) -> Result<(), String> {
        for import in function.opset_import.iter().filter(|import| !import.is_default()) {
            let used = |node: &NodeProto| node.domain() == import.domain();
            let is_functions = self.by_key.keys().any(|(domain, ..)| domain == import.domain());
            match self.imports.iter().find(|known| known.domain() == import.domain()) {
                None => self.imports.push(import.clone()),
                Some(known) if known.version() == import.version() || is_functions => {}
                Some(known) if uses(&function.node, &used) => {
                    return Err(format!(
                        "its operators are of version {} of {}, the model's of {}",
                        import.version(),
                        import.domain(),
                        known.version()
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The initializer that stands for a constant of a function.
    fn share(&mut self, key: &Key, name: &str, tensor: &TensorProto) -> String {
        let known = self.shared.entry((key.clone(), name.to_string()));
        let shared = known.or_insert_with(|| {
            let name = self.names.fresh(name);
            self.constants.push(TensorProto { name: Some(name.clone()), ..tensor.clone() });
            name
        });
        shared.clone()
    }

    /// Gives values names of their own.
    fn define<'n>(
        &mut self,
        names: impl Iterator<Item = &'n String>,
        values: &mut HashMap<String, String>,
    ) {
        for name in names.filter(|name| !name.is_empty()) {
            if !values.contains_key(name) {
                values.insert(name.clone(), self.names.fresh(name));
            }
        }
    }

    /// Names the values of a node of the function as the model does, and puts the attributes of the call in.
    fn settle(
        &mut self,
        node: &mut NodeProto,
        call: &NodeProto,
        function: &FunctionProto,
        values: &HashMap<String, String>,
    ) {
        for name in node.input.iter_mut().chain(&mut node.output) {
            if let Some(value) = values.get(name) {
                name.clone_from(value);
            }
        }
        let attributes = std::mem::take(&mut node.attribute);
        for mut attribute in attributes {
            if !attribute.ref_attr_name().is_empty() {
                let given = call.attr(attribute.ref_attr_name()).or(function
                    .attribute_proto
                    .iter()
                    .find(|known| known.name() == attribute.ref_attr_name()));
                // Neither given nor by default: it is absent.
                node.attribute.extend(
                    given.map(|given| AttributeProto {
                        name: attribute.name.clone(),
                        ..given.clone()
                    }),
                );
                continue;
            }
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.settle_graph(graph, call, function, values);
            }
            node.attribute.push(attribute);
        }
    }

    fn settle_graph(
        &mut self,
        graph: &mut GraphProto,
        call: &NodeProto,
        function: &FunctionProto,
        outer: &HashMap<String, String>,
    ) {
        let mut values = outer.clone();
        // What is defined inside hides what has its name outside.
        let inputs = graph.input.iter().map(|value| value.name());
        let constants = graph.initializer.iter().map(TensorProto::name);
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        let defined: HashSet<String> = inputs
            .chain(constants)
            .chain(sparse.map(TensorProto::name))
            .chain(graph.node.iter().flat_map(|node| &node.output).map(String::as_str))
            .filter(|name| !name.is_empty())
            .map(str::to_string)
            .collect();
        values.retain(|name, _| !defined.contains(name));
        let mut defined: Vec<&String> = defined.iter().collect();
        defined.sort();
        self.define(defined.into_iter(), &mut values);
        let named = |name: &mut Option<String>| {
            if let Some(value) = name.as_ref().and_then(|name| values.get(name)) {
                *name = Some(value.clone());
            }
        };
        let declared = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        declared.for_each(|value| named(&mut value.name));
        graph.initializer.iter_mut().for_each(|tensor| named(&mut tensor.name));
        let sparse = graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
        sparse.for_each(|tensor| named(&mut tensor.name));
        for node in &mut graph.node {
            self.settle(node, call, function, &values);
        }
    }

    /// Nodes of an older operator set as nodes of the model's.
    fn upgraded(&mut self, nodes: Vec<NodeProto>, opset: i64) -> Result<Vec<NodeProto>, String> {
        if opset == 0 || opset == self.opset {
            return Ok(nodes);
        }
        let known: HashSet<String> =
            nodes.iter().flat_map(|node| node.input.iter().chain(&node.output)).cloned().collect();
        let mut body =
            Model::from_graph(GraphProto { node: nodes, ..GraphProto::default() }, opset);
        upgrade_opset(&mut body, self.opset).map_err(|error| error.to_string())?;
        let graph = body.graph_mut();
        let new = graph.initializer.iter().map(TensorProto::name);
        let new = new.chain(graph.node.iter().flat_map(|node| &node.output).map(String::as_str));
        let new: Vec<String> = new
            .filter(|name| !name.is_empty() && !known.contains(*name))
            .map(str::to_string)
            .collect();
        let renamed: HashMap<String, String> =
            new.into_iter().map(|name| (name.clone(), self.names.fresh(&name))).collect();
        for tensor in &mut graph.initializer {
            tensor.name = renamed.get(tensor.name()).cloned().or(tensor.name.take());
        }
        for node in &mut graph.node {
            node.rename_uses(&renamed);
            for output in &mut node.output {
                if let Some(name) = renamed.get(output) {
                    output.clone_from(name);
                }
            }
        }
        self.constants.append(&mut graph.initializer);
        Ok(std::mem::take(&mut graph.node))
    }
}

/// The tensor of a `Constant` that every call has alike.
fn shared_constant(node: &NodeProto) -> Option<&TensorProto> {
    let value = node.attr("value").filter(|value| value.ref_attr_name().is_empty())?;
    let is_plain = node.is("Constant") && node.attribute.len() == 1 && node.output.len() == 1;
    value.t.as_ref().filter(|_| is_plain)
}

/// The positions of the functions that the model calls, be it through others.
fn reached(graph: &GraphProto, functions: &[FunctionProto]) -> Vec<usize> {
    let places: HashMap<Key, usize> =
        functions.iter().enumerate().map(|(place, f)| (key_of_function(f), place)).collect();
    let mut found: Vec<usize> = Vec::new();
    let mut waiting: Vec<&[NodeProto]> = vec![&graph.node];
    while let Some(nodes) = waiting.pop() {
        for node in nodes {
            let place = places.get(&key_of_call(node)).filter(|place| !found.contains(place));
            if let Some(&place) = place {
                found.push(place);
                waiting.push(&functions[place].node);
            }
            let inner = node.attribute.iter().flat_map(AttributeProto::subgraphs);
            waiting.extend(inner.map(|graph| graph.node.as_slice()));
        }
    }
    found
}

/// Names every call among nodes and inside them.
fn keep_calls(nodes: &[NodeProto], keys: &HashSet<Key>, why: &str, found: &mut Vec<KeptNode>) {
    for node in nodes {
        if keys.contains(&key_of_call(node)) {
            found.push(kept(node, why.to_string()));
        }
        let inner = node.attribute.iter().flat_map(AttributeProto::subgraphs);
        inner.for_each(|graph| keep_calls(&graph.node, keys, why, found));
    }
}

fn kept(call: &NodeProto, why: String) -> KeptNode {
    KeptNode { node: call.label().to_string(), op: call.op_type().to_string(), why }
}

fn key_of_call(node: &NodeProto) -> Key {
    key(node.domain(), node.op_type(), node.overload())
}

fn key_of_function(function: &FunctionProto) -> Key {
    key(function.domain(), function.name(), function.overload())
}

fn key(domain: &str, name: &str, overload: &str) -> Key {
    // Two names of the default domain.
    let domain = if domain == "ai.onnx" { "" } else { domain };
    (domain.to_string(), name.to_string(), overload.to_string())
}

/// The default operator set of a function; 0 if it uses none.
fn opset_of(function: &FunctionProto) -> i64 {
    function.opset_import.iter().find(|import| import.is_default()).map_or(0, |i| i.version())
}

/// Whether a node, or one inside, is such a one.
fn uses(nodes: &[NodeProto], is: &dyn Fn(&NodeProto) -> bool) -> bool {
    nodes.iter().any(|node| {
        let mut inner = node.attribute.iter().flat_map(AttributeProto::subgraphs);
        is(node) || inner.any(|graph| uses(&graph.node, is))
    })
}

/// Drops the imports of domains that only functions had.
fn drop_imports(model: &mut Model, functions: &[FunctionProto]) {
    let gone: HashSet<&str> = functions
        .iter()
        .map(|function| function.domain())
        .filter(|domain| {
            let used = |node: &NodeProto| node.domain() == *domain;
            !is_default_domain(domain) && !uses(&model.graph().node, &used)
        })
        .collect();
    model.proto_mut().opset_import.retain(|import| !gone.contains(import.domain()));
}
