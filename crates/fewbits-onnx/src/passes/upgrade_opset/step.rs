//! What a conversion may ask and add.

use std::collections::{HashMap, HashSet};

use crate::facts::Facts;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// Constants of more elements are weights, which no conversion looks into.
const SMALL_CONSTANT: usize = 64;

/// What is known of the whole model.
pub(super) struct Surroundings {
    /// Small constants of all graphs, by name.
    constants: HashMap<String, TensorProto>,
    /// Values that some node reads or a graph returns.
    read: HashSet<String>,
    /// Whether FLOAT is the only floating-point type.
    only_float: bool,
    /// Initializers that conversions added.
    created: HashSet<String>,
    /// Outputs of nodes that never shrink their input.
    enlarged: HashSet<String>,
}

impl Surroundings {
    pub fn of(graph: &GraphProto) -> Surroundings {
        let mut all = Surroundings {
            constants: HashMap::new(),
            read: HashSet::new(),
            only_float: true,
            created: HashSet::new(),
            enlarged: HashSet::new(),
        };
        graph.for_each_use(&mut |name| {
            all.read.insert(name.to_string());
        });
        all.collect(graph);
        all
    }

    fn collect(&mut self, graph: &GraphProto) {
        let replaceable: HashSet<&str> = graph.input.iter().map(|i| i.name()).collect();
        for value in graph.input.iter().chain(&graph.value_info).chain(&graph.output) {
            self.note_type(value.data_type().map_or(0, |data_type| data_type as i32));
        }
        for tensor in &graph.initializer {
            self.note_type(tensor.data_type());
            if !replaceable.contains(tensor.name()) {
                self.note_constant(tensor.name(), tensor);
            }
        }
        for node in &graph.node {
            if node.is("Cast") {
                self.note_type(node.int("to", 0) as i32);
            }
            if let (Some(tensor), Some(name)) = (node.tensor("value"), node.output.first()) {
                self.note_type(tensor.data_type());
                if node.is("Constant") {
                    self.note_constant(name, tensor);
                }
            }
            for inner in node.attribute.iter().flat_map(AttributeProto::subgraphs) {
                self.collect(inner);
            }
        }
    }

    fn note_type(&mut self, data_type: i32) {
        let other = [DataType::Float16, DataType::Bfloat16, DataType::Double];
        self.only_float &= !other.iter().any(|&t| t as i32 == data_type);
    }

    fn note_constant(&mut self, name: &str, tensor: &TensorProto) {
        if tensor.element_count().is_ok_and(|n| n <= SMALL_CONSTANT) {
            self.constants.insert(name.to_string(), tensor.clone());
        }
    }

    /// The initializers that conversions added.
    pub fn created(&self) -> &HashSet<String> {
        &self.created
    }
}

/// One node on its way to the next version.
pub(super) struct Step<'a> {
    surroundings: &'a mut Surroundings,
    names: &'a mut Names,
    /// What is known of the graph's values and of those of the graphs around it, innermost last.
    scopes: &'a [&'a Facts],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl<'a> Step<'a> {
    pub fn new(
        surroundings: &'a mut Surroundings,
        names: &'a mut Names,
        scopes: &'a [&'a Facts],
    ) -> Step<'a> {
        Step { surroundings, names, scopes, nodes: Vec::new(), constants: Vec::new() }
    }

    /// What takes the node's place, and the constants that it reads.
    pub fn into_parts(self) -> (Vec<NodeProto>, Vec<TensorProto>) {
        (self.nodes, self.constants)
    }

    /// Adds a node.
    pub fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// A new value's name.
    pub fn fresh(&mut self, wanted: &str) -> String {
        self.names.fresh(wanted)
    }

    fn add(&mut self, name: &str, tensor: TensorProto) -> String {
        let name = self.names.fresh(name);
        let tensor = TensorProto { name: Some(name.clone()), ..tensor };
        self.surroundings.constants.insert(name.clone(), tensor.clone());
        self.surroundings.created.insert(name.clone());
        self.constants.push(tensor);
        name
    }

    /// An INT64 vector.
    pub fn ints(&mut self, wanted: &str, values: &[i64]) -> String {
        self.add(wanted, TensorProto::from_i64("", &[values.len()], values))
    }

    /// An INT64 scalar.
    pub fn int(&mut self, wanted: &str, value: i64) -> String {
        self.add(wanted, TensorProto::from_i64("", &[], &[value]))
    }

    /// A FLOAT vector.
    pub fn floats(&mut self, wanted: &str, values: &[f32]) -> String {
        self.add(wanted, TensorProto::from_f32("", &[values.len()], values))
    }

    /// A FLOAT scalar.
    pub fn float(&mut self, wanted: &str, value: f32) -> String {
        self.add(wanted, TensorProto::from_f32("", &[], &[value]))
    }

    /// A scalar of the floating-point type that the node's data has.
    pub fn number(&mut self, wanted: &str, value: f32, node: &NodeProto) -> Result<String, String> {
        let data = node.input.first().and_then(|name| self.elem_type(name));
        let data = data.or_else(|| node.output.first().and_then(|name| self.elem_type(name)));
        let data = data.or(self.surroundings.only_float.then_some(DataType::Float));
        let tensor = data.and_then(|data_type| TensorProto::from_float(value, data_type));
        let unknown = "the element type of its data is not known; infer shapes first";
        Ok(self.add(wanted, tensor.ok_or(unknown)?))
    }

    /// The element type of a value.
    fn elem_type(&self, name: &str) -> Option<DataType> {
        self.scopes.iter().rev().find_map(|facts| facts.data_type(name))
    }

    /// The dimensions of a value.
    pub fn dims(&self, name: &str) -> Option<&[Option<usize>]> {
        self.scopes.iter().rev().find_map(|facts| facts.dims(name))
    }

    /// A small constant.
    pub fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.surroundings.constants.get(name)
    }

    /// Whether anything reads the value.
    pub fn is_read(&self, name: &str) -> bool {
        !name.is_empty() && self.surroundings.read.contains(name)
    }

    /// Remembers that a node never shrinks its input.
    pub fn mark_enlarged(&mut self, output: &str) {
        self.surroundings.enlarged.insert(output.to_string());
    }

    /// Whether the node that gives `output` never shrinks its input.
    pub fn is_enlarged(&self, output: &str) -> bool {
        self.surroundings.enlarged.contains(output)
    }
}
