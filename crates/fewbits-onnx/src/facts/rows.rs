//! Whether the rows of a batch can be computed apart: each operator says what its results depend on.
//!
//! A row is what lies at one place of the first axis. Where every node computes each row of its
//! results from the same row of what it reads, a batch may be cut into parts, and the results of the
//! parts are those of the batch. What is not known here counts as mixing rows.

use std::collections::HashMap;

use super::Facts;
use super::kinds::{Kind, is_random, kind};
use super::nbits::is_mat_mul_n_bits;
use super::shapes::{Dims, elements};
use crate::proto::{GraphProto, NodeProto, TensorProto};

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    /// It is the same for all parts of a batch.
    Same(Shape),
    /// Its first axis goes over the rows of the batch, behind it lie other axes: so many in all.
    Rows(usize),
}

/// As far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Shape {
    rank: Option<usize>,
    first: Option<usize>,
}

impl Shape {
    fn of(dims: &[usize]) -> Shape {
        Shape { rank: Some(dims.len()), first: dims.first().copied() }
    }

    /// Whether it has one element, whatever its axes are called.
    fn is_one(self) -> bool {
        self.rank == Some(0) || self.rank == Some(1) && self.first == Some(1)
    }

    /// Whether it meets every row of values with `rank` axes in the same way.
    fn repeats_in(self, rank: usize) -> bool {
        self.rank.is_some_and(|own| own < rank || own == rank && self.first == Some(1))
    }
}

/// Products of matrices, the place of their second factor, and those of its scales and zero points, of
/// which it may have one a column.
const PRODUCTS: [(&str, usize, &[usize]); 3] =
    [("MatMul", 1, &[]), ("MatMulInteger", 1, &[3]), ("QLinearMatMul", 3, &[4, 5])];
const REDUCTIONS: [&str; 5] = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceProd"];

/// What scales that a whole batch has in common do to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommonScales {
    /// They make rows depend on each other.
    Mix,
    /// Nothing that counts: other rows round otherwise, no more.
    Round,
}

/// Whether the rows of all outputs depend on the same rows of the inputs only. `inputs` are all that a caller feeds, each
/// with the number of its axes, of which the first goes over the rows.
pub fn rows_are_apart<'a>(
    graph: &'a GraphProto,
    opset: i64,
    facts: &Facts,
    inputs: &[(&'a str, usize)],
    scales: CommonScales,
) -> bool {
    let mut values: HashMap<&str, Value> = HashMap::new();
    let mut constants: HashMap<&str, &TensorProto> = HashMap::new();
    for tensor in &graph.initializer {
        let shape = tensor.shape().map_or(Shape::default(), |dims| Shape::of(&dims));
        values.insert(tensor.name(), Value::Same(shape));
        constants.insert(tensor.name(), tensor);
    }
    values.extend(inputs.iter().map(|&(name, rank)| (name, Value::Rows(rank))));
    for node in &graph.node {
        let read: Option<Vec<Option<Value>>> = node
            .input
            .iter()
            .map(|name| match name.as_str() {
                "" => Some(None),
                name => values.get(name).copied().map(Some),
            })
            .collect();
        if node.is("DynamicQuantizeLinear")
            && scales == CommonScales::Round
            && let Some([Some(rows @ Value::Rows(_))]) = read.as_deref()
        {
            let one = Value::Same(Shape::of(&[]));
            values.extend(node.output.iter().map(String::as_str).zip([*rows, one, one]));
            continue;
        }
        let Some(result) =
            read.and_then(|read| Node { node, read, opset, facts, constants: &constants }.result())
        else {
            return false;
        };
        values.extend(node.output.iter().map(|name| (name.as_str(), result)));
    }
    graph.output.iter().all(|output| matches!(values.get(output.name()), Some(Value::Rows(_))))
}

/// A node and what is known of its inputs, `None` for those left out.
struct Node<'a> {
    node: &'a NodeProto,
    read: Vec<Option<Value>>,
    opset: i64,
    facts: &'a Facts,
    constants: &'a HashMap<&'a str, &'a TensorProto>,
}

impl Node<'_> {
    /// What is known of its results; `None` if rows are mixed, or may be.
    fn result(&self) -> Option<Value> {
        let op = self.node.op_type();
        let has_graphs = self.node.attribute.iter().any(|a| a.subgraphs().next().is_some());
        let is_known = self.node.is_onnx() || is_mat_mul_n_bits(self.node);
        if has_graphs || is_random(self.node) || !is_known {
            return None;
        }
        if (0..self.read.len()).all(|i| self.is_same(i)) {
            return Some(Value::Same(self.shape_of_same()));
        }
        if op == "Shape" {
            // Of the first axis it would tell how large a part is.
            let shape = Shape { rank: Some(1), first: None };
            return (self.node.int("start", 0) > 0).then_some(Value::Same(shape));
        }
        self.rank_of_rows(op).map(Value::Rows)
    }

    /// Whether a Reshape to `to` leaves the rows along the first axis alone.
    fn reshape_keeps_rows(&self, to: &[i64]) -> bool {
        match to.split_first() {
            Some((0, _)) => self.node.int("allowzero", 0) == 0,
            // There are as many rows as before if each has as many elements.
            Some((-1, row)) => {
                let row: Dims = row.iter().map(|&d| usize::try_from(d).ok()).collect();
                let from = self.node.input.first().and_then(|name| self.facts.dims(name));
                let from = from.and_then(|dims| elements(dims.get(1..)?));
                from.is_some_and(|from| from > 0 && elements(&row) == Some(from))
            }
            _ => false,
        }
    }

    fn shape_of_same(&self) -> Shape {
        match self.node.op_type() {
            "Cast" | "DequantizeLinear" | "Identity" | "QuantizeLinear" => self.shape(0),
            "Slice" => Shape { first: None, ..self.shape(0) },
            _ => Shape::default(),
        }
    }

    /// Axes of a result that has rows; at least one of the inputs has.
    fn rank_of_rows(&self, op: &str) -> Option<usize> {
        let first = self.rows(0);
        match kind(self.node) {
            Some(Kind::OfElements) => return first.filter(|_| self.rest_is_same(1)),
            Some(Kind::OfPairs) => return self.rank_of_pairs(),
            Some(Kind::OfImages) => {
                // Places in all images are what a second result of MaxPool tells.
                let is_one = self.node.output.len() == 1;
                return first.filter(|&r| r >= 3 && self.rest_is_same(1) && is_one);
            }
            Some(Kind::OfShape) | None => {}
        }
        match op {
            "BatchNormalization" => first.filter(|&rank| {
                rank >= 2 && self.rest_is_same(1) && self.node.int("training_mode", 0) == 0
            }),
            "QuantizeLinear" | "DequantizeLinear" => first.filter(|&rank| {
                let scale = self.shape(1);
                let along = scale.rank == Some(1) && self.axis(1, rank) != Some(0);
                self.rest_is_same(1) && (scale.is_one() || along)
            }),
            "Gemm" => first.filter(|&rank| {
                let added = self.read.get(2).copied().flatten().is_none();
                let added = added || self.shape(2).repeats_in(rank);
                self.node.int("transA", 0) == 0 && self.rest_is_same(1) && added
            }),
            "MatMulNBits" => first.filter(|&rank| rank >= 2 && self.rest_is_same(1)),
            "Flatten" => first.filter(|_| self.node.int("axis", 1) == 1).map(|_| 2),
            "Reshape" => {
                let shape = self.ints(1)?;
                first.filter(|_| self.reshape_keeps_rows(&shape)).map(|_| shape.len())
            }
            "Transpose" => first.filter(|_| self.node.ints("perm").first() == Some(&0)),
            "Concat" => {
                let rank = first?;
                let all = (0..self.read.len()).all(|i| self.rows(i) == Some(rank));
                (all && self.axis(0, rank)? > 0).then_some(rank)
            }
            "Split" => first.filter(|&rank| self.rest_is_same(1) && self.axis(0, rank) > Some(0)),
            "Softmax" | "LogSoftmax" => {
                let default = if self.opset >= 13 { -1 } else { 1 };
                first.filter(|&rank| self.axis(default, rank) > Some(0))
            }
            "LayerNormalization" | "RMSNormalization" => {
                let scaled = |rank| (1..self.read.len()).all(|i| self.shape(i).repeats_in(rank));
                first.filter(|&r| self.rest_is_same(1) && scaled(r) && self.axis(-1, r) > Some(0))
            }
            "Squeeze" | "Unsqueeze" => {
                let (rank, axes) = (first?, self.axes()?);
                let after = match op {
                    "Squeeze" => rank.checked_sub(axes.len())?,
                    _ => rank + axes.len(),
                };
                self.behind_rows(&axes, rank.max(after)).then_some(after)
            }
            _ if REDUCTIONS.contains(&op) => {
                let (rank, axes) = (first?, self.axes()?);
                let after = match self.node.int("keepdims", 1) {
                    0 => rank.checked_sub(axes.len())?,
                    _ => rank,
                };
                self.behind_rows(&axes, rank).then_some(after)
            }
            "Slice" => first.filter(|&rank| {
                let axes = self.ints(3).is_some_and(|axes| self.behind_rows(&axes, rank));
                self.rest_is_same(1) && axes
            }),
            "Gather" => match (self.rows(0), self.rows(1)) {
                (Some(rank), None) if self.axis(0, rank)? > 0 => {
                    Some(rank - 1 + self.shape(1).rank?)
                }
                (None, Some(rank)) if self.node.int("axis", 0) == 0 => {
                    Some(rank + self.shape(0).rank?.checked_sub(1)?)
                }
                _ => None,
            },
            _ => self.rank_of_product(op),
        }
    }

    /// Elements meet those of the same row if all that has rows has as many axes.
    fn rank_of_pairs(&self) -> Option<usize> {
        let rank = (0..self.read.len()).find_map(|i| self.rows(i))?;
        let meets = |value: &Option<Value>| match value {
            Some(Value::Rows(own)) => *own == rank,
            Some(Value::Same(shape)) => shape.repeats_in(rank),
            None => true,
        };
        self.read.iter().all(meets).then_some(rank)
    }

    /// Rows of a matrix, or matrices one by one.
    fn rank_of_product(&self, op: &str) -> Option<usize> {
        let (_, second, of_columns) = PRODUCTS.into_iter().find(|(name, ..)| *name == op)?;
        // One for each row would be told by its place in the batch.
        let scalars = (0..self.read.len()).filter(|&i| i != 0 && i != second).all(|i| {
            let left_out = self.read[i].is_none();
            self.is_same(i) && (left_out || of_columns.contains(&i) || self.shape(i).is_one())
        });
        let is_matrix = |i| self.is_same(i) && self.shape(i).rank == Some(2);
        match (self.rows(0), self.rows(second)) {
            _ if !scalars => None,
            (Some(rank), None) if rank >= 2 && is_matrix(second) => Some(rank),
            (None, Some(rank)) if rank >= 3 && is_matrix(0) => Some(rank),
            (Some(a), Some(b)) if a == b && a >= 3 => Some(a),
            _ => None,
        }
    }

    /// The axes of input number `input`, if it has rows.
    fn rows(&self, input: usize) -> Option<usize> {
        match self.read.get(input) {
            Some(Some(Value::Rows(rank))) => Some(*rank),
            _ => None,
        }
    }

    fn is_same(&self, input: usize) -> bool {
        self.rows(input).is_none()
    }

    fn rest_is_same(&self, from: usize) -> bool {
        (from..self.read.len()).all(|i| self.is_same(i))
    }

    /// The shape of an input that is the same for all.
    fn shape(&self, input: usize) -> Shape {
        match self.read.get(input) {
            Some(Some(Value::Same(shape))) => *shape,
            _ => Shape::default(),
        }
    }

    fn ints(&self, input: usize) -> Option<Vec<i64>> {
        self.constants.get(self.node.input.get(input)?.as_str())?.ints().ok()
    }

    /// The axes that an attribute or the second input lists, at least one.
    fn axes(&self) -> Option<Vec<i64>> {
        let axes = match self.node.ints("axes") {
            [] => self.ints(1)?,
            axes => axes.to_vec(),
        };
        (!axes.is_empty()).then_some(axes)
    }

    /// Whether none of some axes is the first of `rank`.
    fn behind_rows(&self, axes: &[i64], rank: usize) -> bool {
        axes.iter().all(|&axis| axis > 0 || axis < 0 && axis > -(rank as i64))
    }

    /// The attribute `axis`, counted from the first of `rank`.
    fn axis(&self, default: i64, rank: usize) -> Option<usize> {
        let axis = self.node.int("axis", default);
        usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, DataType, ValueInfoProto};

    /// Whether rows are apart in a graph of the inputs `x` `[?, 4, 6]` and `ids` `[?, 6]`, whose last node gives
    /// the output `y`.
    fn apart(nodes: &[NodeProto]) -> bool {
        let input = |name: &str, dims: &[Option<i64>]| {
            ValueInfoProto::tensor(name, DataType::Float as i32, dims)
        };
        let floats = |name: &str, dims: &[usize]| {
            TensorProto::from_f32(name, dims, &vec![1.0; dims.iter().product()])
        };
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        let graph = GraphProto {
            node: nodes.to_vec(),
            input: vec![input("x", &[None, Some(4), Some(6)]), input("ids", &[None, Some(6)])],
            output: vec![input("y", &[None])],
            initializer: vec![
                floats("scalar", &[]),
                floats("row", &[6]),
                floats("column", &[4, 1]),
                floats("one", &[1, 4, 6]),
                floats("many", &[3, 4, 6]),
                floats("matrix", &[6, 6]),
                floats("filters", &[2, 4, 3]),
                ints("keeps", &[0, 24]),
                ints("joins", &[-1, 24]),
                ints("halves", &[-1, 2, 12]),
                ints("pairs", &[-1, 48]),
                ints("parts", &[-1, 12]),
                ints("open", &[-1, 4, 0]),
                ints("zero", &[0]),
                ints("last", &[-1]),
                ints("two", &[2]),
                ints("far", &[-3]),
            ],
            ..GraphProto::default()
        };
        let inputs = [("x", 3), ("ids", 2)];
        rows_are_apart(&graph, 17, &Facts::of(&graph), &inputs, CommonScales::Mix)
    }

    fn node(op: &str, inputs: &[&str]) -> NodeProto {
        NodeProto::new(op, inputs, &["y"])
    }

    fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto::of_int(name, value)
    }

    #[test]
    fn what_looks_at_one_row_keeps_rows_apart() {
        for one in [
            node("Relu", &["x"]),
            node("Add", &["x", "x"]),
            node("Mul", &["x", "scalar"]),
            node("Mul", &["column", "x"]),
            node("Sub", &["one", "x"]),
            node("MatMul", &["x", "matrix"]),
            node("MatMulInteger", &["x", "matrix", "scalar", "row"]),
            node("MatMulInteger", &["x", "matrix", "", "row"]),
            node("Gemm", &["ids", "matrix", "row"]),
            node("Conv", &["x", "filters"]),
            node("Reshape", &["x", "keeps"]),
            node("Reshape", &["x", "joins"]),
            node("Reshape", &["x", "halves"]),
            node("Flatten", &["x"]),
            node("Transpose", &["x"]).with(AttributeProto::of_ints("perm", &[0, 2, 1])),
            node("Softmax", &["x"]),
            node("Concat", &["x", "x"]).with(int("axis", -1)),
            node("LayerNormalization", &["x", "row", "row"]),
            node("ReduceMean", &["x"]).with(AttributeProto::of_ints("axes", &[-1, 1])),
            node("Unsqueeze", &["x", "two"]),
            node("Gather", &["matrix", "ids"]),
            node("Gather", &["x", "zero"]).with(int("axis", 1)),
            node("Slice", &["x", "zero", "two", "last"]),
            node("QuantizeLinear", &["x", "scalar", "scalar"]),
            node("DequantizeLinear", &["x", "row"]).with(int("axis", 2)),
        ] {
            assert!(apart(std::slice::from_ref(&one)), "{one:?}");
        }
    }

    #[test]
    fn what_looks_at_several_rows_or_counts_them_does_not() {
        for one in [
            node("Add", &["x", "many"]),
            node("Add", &["x", "ids"]),
            node("MatMul", &["ids", "x"]),
            node("MatMul", &["matrix", "ids"]),
            node("MatMulInteger", &["x", "matrix", "row"]),
            node("Gemm", &["ids", "matrix"]).with(int("transA", 1)),
            node("Reshape", &["x", "pairs"]),
            node("Reshape", &["x", "parts"]),
            node("Reshape", &["x", "open"]),
            node("Reshape", &["ids", "joins"]),
            node("Reshape", &["x", "keeps"]).with(int("allowzero", 1)),
            node("Flatten", &["x"]).with(int("axis", 0)),
            node("Transpose", &["x"]),
            node("Softmax", &["x"]).with(int("axis", 0)),
            node("Softmax", &["x"]).with(int("axis", -3)),
            node("Concat", &["x", "x"]).with(int("axis", 0)),
            node("Concat", &["x", "many"]).with(int("axis", 1)),
            node("LayerNormalization", &["x", "one"]).with(int("axis", 0)),
            node("ReduceMean", &["x"]),
            node("ReduceMean", &["x", "far"]),
            node("Unsqueeze", &["x", "zero"]),
            node("Gather", &["x", "zero"]),
            node("Slice", &["x", "zero", "two", "zero"]),
            node("Slice", &["x", "zero", "two"]),
            node("Shape", &["x"]),
            node("DynamicQuantizeLinear", &["x"]),
            node("DequantizeLinear", &["x", "row"]).with(int("axis", 0)),
            node("DequantizeLinear", &["x", "column"]),
            node("CumSum", &["x", "last"]),
            node("Identity", &["matrix"]),
            node("RandomNormalLike", &["x"]),
        ] {
            assert!(!apart(std::slice::from_ref(&one)), "{one:?}");
        }
    }

    #[test]
    fn rows_of_known_size_are_kept() {
        let joined = |nodes: &[NodeProto], to: &str| {
            let reshape = NodeProto::new("Reshape", &["v", to], &["y"]);
            apart(&[nodes, &[reshape]].concat())
        };
        let one = |op: &str, inputs: &[&str]| NodeProto::new(op, inputs, &["v"]);
        let joins = |node: NodeProto| joined(std::slice::from_ref(&node), "joins");
        assert!(joins(one("Relu", &["x"])));
        assert!(joins(one("Add", &["x", "column"])));
        assert!(joins(one("MatMul", &["x", "matrix"])));
        assert!(joins(one("Reshape", &["x", "halves"])));
        assert!(joins(one("Transpose", &["x"]).with(AttributeProto::of_ints("perm", &[0, 2, 1]))));
        let conv = one("Conv", &["x", "filters"]).with(AttributeProto::of_ints("pads", &[4, 4]));
        // Two filters over 14 pixels with a window of three.
        assert!(joins(conv.clone()));
        assert!(!joined(&[conv], "pairs"));
        assert!(!joins(one("Conv", &["x", "filters"])));
        let pool = |stride: i64| {
            let ints = AttributeProto::of_ints;
            let pool = one("MaxPool", &["x"]).with(ints("kernel_shape", &[2]));
            pool.with(ints("strides", &[stride]))
        };
        assert!(joined(&[pool(2)], "parts"));
        assert!(!joined(&[pool(1)], "parts"));
        assert!(!joins(one("Concat", &["x", "x"]).with(int("axis", 1))));
        assert!(joined(&[one("Concat", &["x", "x"]).with(int("axis", 1))], "pairs"));
        // The batch itself is what is joined.
        assert!(!joins(one("Transpose", &["x"])));
    }

    #[test]
    fn lengths_of_other_axes_are_the_same_for_all_rows() {
        let graph = |start: i64| {
            [
                NodeProto::new("Shape", &["ids"], &["length"]).with(int("start", start)),
                NodeProto::new("Slice", &["matrix", "zero", "length", "zero"], &["places"]),
                NodeProto::new("Gather", &["matrix", "ids"], &["words"]),
                node("Add", &["words", "places"]),
            ]
        };
        assert!(apart(&graph(1)));
        assert!(!apart(&graph(0)));
    }
}
