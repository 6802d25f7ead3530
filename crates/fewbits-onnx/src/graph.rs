//! Questions that passes ask of a graph, and fresh names for what they add.

use std::collections::{HashMap, HashSet};

use crate::proto::{
    AttributeProto, DataType, DimValue, Dimension, GraphProto, NodeProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};

impl GraphProto {
    /// The initializer `name`, if there is one.
    ///
    /// A scan; a pass that asks often builds an [`Index`].
    pub fn find_initializer(&self, name: &str) -> Option<&TensorProto> {
        self.initializer.iter().find(|t| t.name() == name)
    }

    /// Whether `name` is an output of the graph.
    pub fn is_output(&self, name: &str) -> bool {
        self.output.iter().any(|o| o.name() == name)
    }

    /// The inputs that a caller must feed: those that no initializer gives a default.
    pub fn required_inputs(&self) -> impl Iterator<Item = &ValueInfoProto> {
        let defaults: HashSet<&str> = self.initializer.iter().map(TensorProto::name).collect();
        self.input.iter().filter(move |i| !defaults.contains(i.name()))
    }

    /// Calls `visit` with every value name that the graph's nodes read, those of subgraphs
    /// included (a subgraph may read values of the graphs around it).
    pub fn for_each_use<'a>(&'a self, visit: &mut dyn FnMut(&'a str)) {
        for node in &self.node {
            node.for_each_use(visit);
        }
        for output in &self.output {
            visit(output.name());
        }
    }

    /// Puts every node behind those that produce what it reads, otherwise in the order they have.
    ///
    /// Nodes of a cycle, which no valid graph has, keep their order at the end.
    pub fn sort_topologically(&mut self) {
        let produced: HashSet<String> = self.node.iter().flat_map(|n| &n.output).cloned().collect();
        let mut waiting = std::mem::take(&mut self.node);
        let mut ready: HashSet<String> = HashSet::new();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for node in waiting {
                let mut can_run = true;
                node.for_each_use(&mut |name| {
                    can_run &= ready.contains(name) || !produced.contains(name);
                });
                if can_run {
                    ready.extend(node.output.iter().cloned());
                    self.node.push(node);
                } else {
                    later.push(node);
                }
            }
            waiting = later;
            if waiting.len() == before {
                self.node.append(&mut waiting);
            }
        }
    }

    /// Replaces every use of the value `from`, in subgraphs too, by `to`. Graph outputs keep
    /// their names.
    pub fn replace_uses(&mut self, from: &str, to: &str) {
        for node in &mut self.node {
            for input in node.input.iter_mut().filter(|i| *i == from) {
                *input = to.to_string();
            }
            for attribute in &mut node.attribute {
                for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    graph.replace_uses(from, to);
                }
            }
        }
    }

    /// Calls `visit` with this graph's initializers and constant attributes, and those of all
    /// its subgraphs.
    ///
    /// # Errors
    /// The first that `visit` gives; what is left is not visited.
    pub fn for_each_tensor_mut<E>(
        &mut self,
        visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>,
    ) -> Result<(), E> {
        self.initializer.iter_mut().try_for_each(&mut *visit)?;
        for sparse in &mut self.sparse_initializer {
            sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(&mut *visit)?;
        }
        self.node.iter_mut().try_for_each(|node| node.for_each_tensor_mut(visit))
    }
}

impl NodeProto {
    /// Lets this node, its subgraphs included, read other values: what a name is replaced by is in
    /// `names`.
    pub fn rename_uses(&mut self, names: &HashMap<String, String>) {
        for input in &mut self.input {
            if let Some(name) = names.get(input) {
                input.clone_from(name);
            }
        }
        for attribute in &mut self.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                graph.node.iter_mut().for_each(|node| node.rename_uses(names));
            }
        }
    }

    /// Calls `visit` with the constants in this node's attributes, and those of its subgraphs.
    ///
    /// # Errors
    /// The first that `visit` gives; what is left is not visited.
    pub fn for_each_tensor_mut<E>(
        &mut self,
        visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>,
    ) -> Result<(), E> {
        for attribute in &mut self.attribute {
            attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                graph.for_each_tensor_mut(visit)?;
            }
        }
        Ok(())
    }

    /// Calls `visit` with every value name that this node reads, those of its subgraphs included.
    pub fn for_each_use<'a>(&'a self, visit: &mut dyn FnMut(&'a str)) {
        for input in self.input.iter().filter(|i| !i.is_empty()) {
            visit(input);
        }
        for graph in self.attribute.iter().flat_map(AttributeProto::subgraphs) {
            graph.for_each_use(visit);
        }
    }
}

impl AttributeProto {
    /// The graphs that this attribute holds.
    pub fn subgraphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.g.iter().chain(&self.graphs)
    }
}

impl ValueInfoProto {
    /// A tensor value; `None` in `dims` is a dimension without a known size.
    pub fn tensor(name: &str, elem_type: i32, dims: &[Option<i64>]) -> ValueInfoProto {
        let dim = dims
            .iter()
            .map(|d| Dimension { value: d.map(DimValue::DimValue), denotation: None })
            .collect();
        ValueInfoProto {
            name: Some(name.to_string()),
            r#type: Some(TypeProto {
                value: Some(TypeValue::TensorType(TensorType {
                    elem_type: Some(elem_type),
                    shape: Some(TensorShapeProto { dim }),
                })),
                denotation: None,
            }),
            ..ValueInfoProto::default()
        }
    }

    /// The tensor type, unless this is a sequence, map or optional.
    pub fn tensor_type(&self) -> Option<&TensorType> {
        match self.r#type.as_ref()?.value.as_ref()? {
            TypeValue::TensorType(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The element type that is declared, unless this is no tensor.
    pub fn data_type(&self) -> Option<DataType> {
        let data_type = DataType::try_from(self.tensor_type()?.elem_type()).ok()?;
        (data_type != DataType::Undefined).then_some(data_type)
    }

    /// The tensor's dimensions, `None` for one whose size is not fixed; `None` if no shape is given.
    pub fn dims(&self) -> Option<Vec<Option<i64>>> {
        let shape = self.tensor_type()?.shape.as_ref()?;
        Some(
            shape
                .dim
                .iter()
                .map(|d| match d.value {
                    Some(DimValue::DimValue(size)) if size > 0 => Some(size),
                    _ => None,
                })
                .collect(),
        )
    }
}

/// Who produces and who consumes each value of a graph, at one moment.
pub struct Index<'a> {
    producer: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
    initializer: HashMap<&'a str, &'a TensorProto>,
    outputs: HashSet<&'a str>,
}

impl<'a> Index<'a> {
    /// Reads the graph once.
    pub fn new(graph: &'a GraphProto) -> Index<'a> {
        let mut producer = HashMap::new();
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                producer.insert(output.as_str(), i);
            }
            node.for_each_use(&mut |name| consumers.entry(name).or_default().push(i));
        }
        Index {
            producer,
            consumers,
            initializer: graph.initializer.iter().map(|t| (t.name(), t)).collect(),
            outputs: graph.output.iter().map(ValueInfoProto::name).collect(),
        }
    }

    /// The position of the node that produces `name`.
    pub fn producer(&self, name: &str) -> Option<usize> {
        self.producer.get(name).copied()
    }

    /// The positions of the nodes that read `name`, once for each use.
    pub fn consumers(&self, name: &str) -> &[usize] {
        self.consumers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The initializer `name`.
    pub fn initializer(&self, name: &str) -> Option<&'a TensorProto> {
        self.initializer.get(name).copied()
    }

    /// Whether `name` is an output of the graph.
    pub fn is_output(&self, name: &str) -> bool {
        self.outputs.contains(name)
    }
}

/// Gives names that the graph does not use yet.
pub struct Names {
    taken: HashSet<String>,
    /// The first number that a name may still bear at its end: what lies before it is taken.
    next: HashMap<String, usize>,
}

impl Names {
    /// Reads every name in use in `graph`, its subgraphs included.
    pub fn new(graph: &GraphProto) -> Names {
        let mut taken = HashSet::new();
        Self::collect(graph, &mut taken);
        Names { taken, next: HashMap::new() }
    }

    fn collect(graph: &GraphProto, taken: &mut HashSet<String>) {
        let declared = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        taken.extend(declared.map(|v| v.name().to_string()));
        taken.extend(graph.initializer.iter().map(|t| t.name().to_string()));
        for node in &graph.node {
            taken.extend(node.input.iter().chain(&node.output).cloned());
            for graph in node.attribute.iter().flat_map(AttributeProto::subgraphs) {
                Self::collect(graph, taken);
            }
        }
    }

    /// A name that starts with `wanted` and that nothing uses, reserved from now on.
    pub fn fresh(&mut self, wanted: &str) -> String {
        if self.taken.insert(wanted.to_string()) {
            return wanted.to_string();
        }
        let next = self.next.entry(wanted.to_string()).or_insert(1);
        loop {
            let name = format!("{wanted}_{next}");
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}
