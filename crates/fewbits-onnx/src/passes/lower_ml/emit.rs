//! The nodes and constants that one operator becomes.

use std::collections::HashSet;

use crate::facts::Facts;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Why a node is left as it is.
pub(super) type Why = String;

/// What lowering one node may ask of the model around it.
pub(super) struct Surroundings {
    opset: i64,
    facts: Facts,
    /// The values that the graph has, whatever is known of them.
    values: HashSet<String>,
    outputs: HashSet<String>,
    read_by_nodes: HashSet<String>,
    constants: Vec<TensorProto>,
}

impl Surroundings {
    pub fn new(graph: &GraphProto, opset: i64) -> Surroundings {
        let mut read_by_nodes = HashSet::new();
        for node in &graph.node {
            node.for_each_use(&mut |name| {
                read_by_nodes.insert(name.to_string());
            });
        }
        // An initializer that is an input too is only a default: a caller may feed another value.
        let inputs: HashSet<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
        let read_here: HashSet<&str> = graph
            .node
            .iter()
            .filter(|n| n.domain() == crate::MODEL_DOMAIN_ML)
            .flat_map(|n| n.input.iter().map(String::as_str))
            .collect();
        let constants = graph
            .initializer
            .iter()
            .filter(|t| !inputs.contains(t.name()) && read_here.contains(t.name()))
            .cloned()
            .collect();
        let outputs = graph.output.iter().map(|o| o.name().to_string()).collect();
        let made = graph.node.iter().flat_map(|n| &n.output).cloned();
        let given = graph.initializer.iter().map(TensorProto::name).chain(inputs);
        let values = made.chain(given.map(str::to_string)).collect();
        let facts = Facts::of(graph);
        Surroundings { opset, facts, values, outputs, read_by_nodes, constants }
    }
}

/// Collects what replaces one node.
pub(super) struct Emit<'a> {
    around: &'a Surroundings,
    names: &'a mut Names,
    before: &'a [NodeProto],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    plain_outputs: Vec<ValueInfoProto>,
}

impl<'a> Emit<'a> {
    /// `before` are the nodes that precede the one to replace.
    pub fn new(
        around: &'a Surroundings,
        names: &'a mut Names,
        before: &'a [NodeProto],
    ) -> Emit<'a> {
        Emit {
            around,
            names,
            before,
            nodes: Vec::new(),
            constants: Vec::new(),
            plain_outputs: Vec::new(),
        }
    }

    /// The nodes, their constants, and the graph outputs whose type changed.
    pub fn into_parts(self) -> (Vec<NodeProto>, Vec<TensorProto>, Vec<ValueInfoProto>) {
        (self.nodes, self.constants, self.plain_outputs)
    }

    /// The model's default operator set.
    pub fn opset(&self) -> i64 {
        self.around.opset
    }

    /// Checks that the model's operator set has what lowering needs.
    pub fn need(&self, opset: i64, what: &str) -> Result<(), Why> {
        if self.opset() >= opset {
            return Ok(());
        }
        Err(format!(
            "{what} needs opset {opset} and the model has {}; export it with a newer opset",
            self.opset()
        ))
    }

    /// The node's first input.
    pub fn input<'n>(&self, node: &'n NodeProto) -> Result<&'n str, Why> {
        self.nth_input(node, 0)
    }

    /// The node's input number `n`.
    pub fn nth_input<'n>(&self, node: &'n NodeProto, n: usize) -> Result<&'n str, Why> {
        match node.input.get(n) {
            Some(name) if !name.is_empty() => Ok(name),
            _ => Err(format!("its input {n} is missing; export the model again")),
        }
    }

    /// The element type of a value, as far as it is known.
    pub fn elem_type(&self, value: &str) -> Option<DataType> {
        self.around.facts.data_type(value)
    }

    /// The rank of a value, if known.
    pub fn rank(&self, value: &str) -> Option<usize> {
        self.around.facts.rank(value)
    }

    /// The number of features of a matrix or vector, if known.
    pub fn features(&self, value: &str) -> Option<usize> {
        *self.around.facts.dims(value)?.last()?
    }

    /// The initializer `value`, if it is one and no caller can replace it.
    pub fn constant(&self, value: &str) -> Option<&'a TensorProto> {
        self.around.constants.iter().find(|t| t.name() == value)
    }

    /// Whether `value` is an output of the graph that no node reads.
    pub fn is_only_output(&self, value: &str) -> bool {
        self.around.outputs.contains(value) && !self.around.read_by_nodes.contains(value)
    }

    /// The node that produces `value`, if it comes before the one that is replaced.
    pub fn producer(&self, value: &str) -> Option<&'a NodeProto> {
        self.before.iter().rev().find(|n| n.output.iter().any(|o| o == value))
    }

    /// Makes the graph output `value` a plain tensor.
    pub fn retype_output(&mut self, value: ValueInfoProto) {
        self.plain_outputs.push(value);
    }

    /// Adds a constant; returns its name.
    pub fn add(&mut self, mut tensor: TensorProto) -> String {
        let name = self.names.fresh(tensor.name());
        tensor.name = Some(name.clone());
        self.constants.push(tensor);
        name
    }

    /// A FLOAT constant of any shape.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.add(TensorProto::from_f32(name, dims, values))
    }

    /// A vector of INT64.
    pub fn ints(&mut self, name: &str, values: &[i64]) -> String {
        self.add(TensorProto::from_i64(name, &[values.len()], values))
    }

    /// An operator with one output; returns the output's name, which starts with `wanted`.
    pub fn op(&mut self, op_type: &str, inputs: &[&str], wanted: &str) -> String {
        self.op_with(op_type, inputs, wanted, Vec::new())
    }

    /// An operator with attributes and one output.
    pub fn op_with(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        wanted: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = self.names.fresh(wanted);
        let node = NodeProto::new(op_type, inputs, &[&output]);
        self.nodes.push(attributes.into_iter().fold(node, NodeProto::with));
        output
    }

    /// `value` as `to`.
    pub fn cast(&mut self, value: &str, to: DataType) -> String {
        if self.elem_type(value) == Some(to) {
            return value.to_string();
        }
        let to = vec![AttributeProto::of_int("to", to as i64)];
        self.op_with("Cast", &[value], "cast", to)
    }

    /// `value` with an axis of size one at the end. Needs opset 11.
    pub fn unsqueeze_last(&mut self, value: &str) -> String {
        if self.opset() < 13 {
            let axes = vec![AttributeProto::of_ints("axes", &[-1])];
            return self.op_with("Unsqueeze", &[value], "u", axes);
        }
        let axes = self.ints("last", &[-1]);
        self.op("Unsqueeze", &[value, &axes], "u")
    }

    /// `op_type`, one of the Reduce operators, over the features of a vector or matrix of the
    /// original graph.
    pub fn reduce_features(&mut self, op_type: &str, value: &str) -> String {
        let axis = match self.rank(value) {
            _ if self.opset() >= 11 => -1,
            Some(1) => 0,
            _ => 1,
        };
        self.reduce(op_type, value, axis, Reduced::Kept)
    }

    /// `op_type`, one of the Reduce operators, over one axis.
    pub fn reduce(&mut self, op_type: &str, value: &str, axis: i64, reduced: Reduced) -> String {
        let mut attributes = match reduced {
            Reduced::Kept => Vec::new(),
            Reduced::Dropped => vec![AttributeProto::of_int("keepdims", 0)],
        };
        // The axes became an input at 13 for ReduceSum, at 18 for the others.
        if self.opset() >= if op_type == "ReduceSum" { 13 } else { 18 } {
            let axes = self.ints("last", &[axis]);
            return self.op_with(op_type, &[value, &axes], "r", attributes);
        }
        attributes.push(AttributeProto::of_ints("axes", &[axis]));
        self.op_with(op_type, &[value], "r", attributes)
    }

    /// The rows of an operator that takes `[N, features]` or one row `[features]`, as a FLOAT
    /// matrix. A value of unknown rank is taken for a matrix.
    pub fn rows(&mut self, value: &str) -> Result<String, Why> {
        let rank = self.rank(value);
        if rank.is_some_and(|r| r == 0 || r > 2) {
            return Err(format!(
                "its input '{value}' has {} dimensions where 1 or 2 were expected",
                rank.unwrap_or(0)
            ));
        }
        let floats = self.cast(value, DataType::Float);
        if rank != Some(1) {
            return Ok(floats);
        }
        let one_row = self.ints("row", &[1, -1]);
        Ok(self.op("Reshape", &[&floats, &one_row], "rows"))
    }

    /// `value · coefficients + intercepts` of a linear model with `outputs` rows of
    /// coefficients. The weight is `[features, outputs]`, as the quantizer expects it.
    pub fn linear(
        &mut self,
        value: &str,
        coefficients: &[f32],
        intercepts: &[f32],
        outputs: usize,
    ) -> Result<String, Why> {
        let (rows, weight) = self.factors(value, coefficients, outputs)?;
        let product = self.op("MatMul", &[&rows, &weight], "xw");
        if intercepts.is_empty() {
            return Ok(product);
        }
        let bias = self.floats("intercept", &[intercepts.len()], intercepts);
        Ok(self.op("Add", &[&product, &bias], "scores"))
    }

    /// `[-s, s]` of each row, where `s` is `value · coefficients + intercept`: the two columns of a binary
    /// linear model of which one is minus the other.
    pub fn mirrored(
        &mut self,
        value: &str,
        coefficients: &[f32],
        intercept: f32,
    ) -> Result<String, Why> {
        let (rows, weight) = self.factors(value, coefficients, 1)?;
        let bias = self.floats("intercept", &[1], &[intercept]);
        let score = self.op("Gemm", &[&rows, &weight, &bias], "d");
        let minus = self.op("Neg", &[&score], "n");
        let axis = vec![AttributeProto::of_int("axis", 1)];
        Ok(self.op_with("Concat", &[&minus, &score], "b", axis))
    }

    /// The factors of a linear model's product: rows of features, and the weight `[features, outputs]`.
    fn factors(
        &mut self,
        value: &str,
        coefficients: &[f32],
        outputs: usize,
    ) -> Result<(String, String), Why> {
        if outputs == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(outputs) {
            return Err(format!(
                "{} coefficients do not make {outputs} equal rows; export the model again",
                coefficients.len()
            ));
        }
        let features = coefficients.len() / outputs;
        if let Some(given) = self.features(value)
            && given != features
        {
            return Err(format!(
                "its input '{value}' has {given} features and its coefficients are for {features}"
            ));
        }
        let rows = self.rows(value)?;
        let transposed: Vec<f32> = (0..features)
            .flat_map(|f| (0..outputs).map(move |o| coefficients[o * features + f]))
            .collect();
        Ok((rows, self.floats("coef", &[features, outputs], &transposed)))
    }

    /// The element of a constant vector at each index.
    pub fn gather(&mut self, table: &str, indices: &str) -> String {
        self.op("Gather", &[table, indices], "label")
    }

    /// Makes `value` the output `output` of the replaced node, without a further node where
    /// `value` was made here.
    pub fn finish(&mut self, value: &str, output: Option<&String>) {
        let Some(output) = output.filter(|o| !o.is_empty()) else { return };
        let made_here = self.nodes.iter_mut().find(|n| n.output.iter().any(|o| o == value));
        // A value that is already the node's other output keeps that name.
        let fresh = !self.around.values.contains(value);
        match made_here {
            Some(producer) if fresh => {
                producer.output = vec![output.clone()];
                for input in self.nodes.iter_mut().flat_map(|n| &mut n.input) {
                    if input == value {
                        *input = output.clone();
                    }
                }
            }
            _ => self.nodes.push(NodeProto::new("Identity", &[value], &[output])),
        }
    }
}

/// What becomes of an axis that is reduced.
#[derive(Clone, Copy)]
pub(super) enum Reduced {
    /// It stays with size one.
    Kept,
    /// It goes.
    Dropped,
}

/// Small models for the tests of this folder.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::passes::lower_ml::{Lowered, lower_ml};
    use crate::proto::OperatorSetIdProto;
    use crate::{MODEL_DOMAIN_ML, Model};

    /// A node of the `ai.onnx.ml` domain.
    pub fn ml(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let mut node = NodeProto::new(op_type, inputs, outputs);
        node.domain = Some(MODEL_DOMAIN_ML.into());
        node
    }

    /// A model with the FLOAT input `x [N, 2]`, the outputs of its last node, and both domains.
    pub fn model(nodes: Vec<NodeProto>, opset: i64) -> Model {
        typed_model(nodes, opset, DataType::Float)
    }

    /// The same with another type of input.
    pub fn typed_model(nodes: Vec<NodeProto>, opset: i64, input: DataType) -> Model {
        let outputs = nodes.last().map_or_else(Vec::new, |n| n.output.clone());
        let graph = GraphProto {
            node: nodes,
            input: vec![ValueInfoProto::tensor("x", input as i32, &[None, Some(2)])],
            output: outputs.iter().map(|o| ValueInfoProto::tensor(o, 1, &[None, None])).collect(),
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, opset);
        model
            .proto_mut()
            .opset_import
            .push(OperatorSetIdProto { domain: Some(MODEL_DOMAIN_ML.into()), version: Some(3) });
        model
    }

    /// Lowers a model of one node; returns the operators that it became.
    pub fn lowered_ops(node: NodeProto, opset: i64, input: DataType) -> (Model, Vec<String>) {
        let mut model = typed_model(vec![node], opset, input);
        let report = lower_ml(&mut model).unwrap();
        assert!(report.kept.is_empty(), "{:?}", report.kept);
        let ops = model.graph().node.iter().map(|n| n.op_type().to_string()).collect();
        (model, ops)
    }

    /// Why a model of one node is left as it is.
    pub fn why_kept(node: NodeProto, opset: i64, input: DataType) -> String {
        let mut model = typed_model(vec![node], opset, input);
        let Lowered { lowered, mut kept } = lower_ml(&mut model).unwrap();
        assert!(lowered.is_empty());
        kept.remove(0).why
    }
}
