//! The sizes of the axes of every value of a graph, as far as they follow from those of its inputs and
//! constants.

use std::collections::HashMap;

use super::windows::Windows;
use crate::graph::Index;
use crate::operators::{OF_ELEMENTS, OF_PAIRS, OF_SHAPE};
use crate::proto::{GraphProto, NodeProto};
use crate::qweight::is_mat_mul_n_bits;

/// The size of every axis; none where it is not known.
pub type Dims = Vec<Option<usize>>;

/// The axes of every value of the main graph whose number of axes is known, by its name.
pub fn sizes(graph: &GraphProto) -> HashMap<String, Dims> {
    sizes_beside(graph, [])
}

/// The same, where the sizes of some values are known from elsewhere, as those of weights that nodes unpack.
///
/// Of what the graph declares for values between its nodes only the number of axes is taken: the sizes are
/// those of the example that it was exported with, at times, and not what is fed.
pub fn sizes_beside(
    graph: &GraphProto,
    others: impl IntoIterator<Item = (String, Dims)>,
) -> HashMap<String, Dims> {
    let mut sizes = Sizes { index: Index::new(graph), known: HashMap::new() };
    for info in graph.value_info.iter().chain(&graph.output) {
        let axes = info.dims().map(|dims| vec![None; dims.len()]);
        sizes.known.extend(axes.map(|axes| (info.name().to_string(), axes)));
    }
    for input in &graph.input {
        let dims = input.dims().map(|dims| {
            let size = |dim: Option<i64>| dim.and_then(|dim| usize::try_from(dim).ok());
            dims.into_iter().map(size).collect()
        });
        sizes.known.extend(dims.map(|dims| (input.name().to_string(), dims)));
    }
    for tensor in &graph.initializer {
        let dims = tensor.shape().map(|dims| dims.into_iter().map(Some).collect());
        sizes.known.extend(dims.map(|dims| (tensor.name().to_string(), dims)));
    }
    sizes.known.extend(others);
    for node in &graph.node {
        let Some(dims) = sizes.of_result(node) else { continue };
        let further = match node.op_type() {
            "Split" => dims.clone(),
            // A scale and a zero point.
            "DynamicQuantizeLinear" => Vec::new(),
            _ => {
                sizes.known.extend(node.output.first().map(|name| (name.clone(), dims)));
                continue;
            }
        };
        for (place, output) in node.output.iter().enumerate() {
            let dims = if place == 0 { &dims } else { &further };
            sizes.known.insert(output.clone(), dims.clone());
        }
    }
    sizes.known
}

struct Sizes<'a> {
    index: Index<'a>,
    known: HashMap<String, Dims>,
}

impl Sizes<'_> {
    fn of(&self, node: &NodeProto, input: usize) -> Option<&Dims> {
        self.known.get(node.input.get(input)?)
    }

    fn ints(&self, node: &NodeProto, input: usize) -> Option<Vec<i64>> {
        self.index.initializer(node.input.get(input)?)?.ints().ok()
    }

    /// The axes that an attribute names, or from opset 13 on an input.
    fn axes(&self, node: &NodeProto) -> Option<Vec<i64>> {
        match node.input.get(1).filter(|name| !name.is_empty()) {
            Some(_) => self.ints(node, 1),
            None => Some(node.ints("axes").to_vec()),
        }
    }

    /// As many axes as an input that holds a shape has elements.
    fn of_shape(&self, node: &NodeProto, input: usize) -> Option<Dims> {
        match self.of(node, input)?[..] {
            [Some(length)] => Some(vec![None; length]),
            _ => None,
        }
    }

    /// Those of the first result of a node.
    fn of_result(&self, node: &NodeProto) -> Option<Dims> {
        if is_mat_mul_n_bits(node) {
            let (_, rows) = self.of(node, 0)?.split_last()?;
            return Some([rows, &[usize::try_from(node.int("N", 0)).ok()]].concat());
        }
        node.is_onnx().then_some(())?;
        let op = node.op_type();
        if OF_PAIRS.contains(&op) {
            let mut inputs = (0..node.input.len()).map(|i| self.of(node, i));
            let first = inputs.next()??.clone();
            return inputs.try_fold(first, |dims, other| broadcast(&dims, other?));
        }
        match op {
            // Of any input.
            "Reshape" => {
                let constant = self.of(node, 0).zip(self.ints(node, 1));
                let zero_keeps = node.int("allowzero", 0) == 0;
                let known = constant.and_then(|(from, to)| reshaped(from, &to, zero_keeps));
                return known.or_else(|| self.of_shape(node, 1));
            }
            "Expand" => return self.of_shape(node, 1),
            "ConstantOfShape" => return self.of_shape(node, 0),
            // Of all axes, however many there are.
            _ if op.starts_with("Reduce")
                && node.int("keepdims", 1) == 0
                && node.int("noop_with_empty_axes", 0) == 0
                && self.axes(node).is_some_and(|axes| axes.is_empty()) =>
            {
                return Some(Vec::new());
            }
            "Gemm" => {
                let side = |input: usize, flag: &str, place: usize| {
                    let dims = self.of(node, input).filter(|dims| dims.len() == 2)?;
                    dims[if node.int(flag, 0) == 0 { place } else { 1 - place }]
                };
                return Some(vec![side(0, "transA", 0), side(1, "transB", 1)]);
            }
            _ => {}
        }
        let from = self.of(node, 0)?;
        match op {
            "DynamicQuantizeLinear" => Some(from.clone()),
            _ if OF_ELEMENTS.contains(&op) || OF_SHAPE.contains(&op) => Some(from.clone()),
            "Conv" | "ConvInteger" => {
                let weight = self.of(node, 1);
                let spatial = from.get(2..)?;
                let kernel = weight.and_then(|weight| weight.get(2..)?.iter().copied().collect());
                let windows = kernel.and_then(|kernel: Vec<usize>| Windows::of(node, &kernel));
                let counts = windows.map(|windows| windows.counts(spatial));
                let counts = counts.unwrap_or_else(|| vec![None; spatial.len()]);
                let channels = weight.and_then(|weight| *weight.first()?);
                Some([&[*from.first()?, channels], &*counts].concat())
            }
            "MaxPool" | "AveragePool" | "LpPool" => {
                let spatial = from.get(2..)?;
                let kernel = node.ints("kernel_shape").iter().map(|&k| usize::try_from(k).ok());
                let kernel = kernel.collect::<Option<Vec<_>>>();
                let windows = kernel.and_then(|kernel| Windows::of(node, &kernel));
                let windows = windows.filter(|_| node.int("ceil_mode", 0) == 0);
                let counts = windows.map(|windows| windows.counts(spatial));
                let counts = counts.unwrap_or_else(|| vec![None; spatial.len()]);
                Some([from.get(..2)?, &counts].concat())
            }
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let axes = from.iter().enumerate();
                Some(axes.map(|(axis, size)| if axis < 2 { *size } else { Some(1) }).collect())
            }
            "Flatten" => {
                let axis = place(node.int("axis", 1), from.len() + 1)?;
                Some(vec![elements(&from[..axis]), elements(&from[axis..])])
            }
            "MatMul" | "MatMulInteger" => product(from, self.of(node, 1)?),
            "Transpose" => match node.ints("perm") {
                [] => Some(from.iter().rev().copied().collect()),
                perm => perm.iter().map(|&p| from.get(usize::try_from(p).ok()?).copied()).collect(),
            },
            "Concat" => {
                let axis = place(node.attr("axis")?.i(), from.len())?;
                let mut dims = from.clone();
                for input in 1..node.input.len() {
                    let part = self.of(node, input).and_then(|dims| *dims.get(axis)?);
                    dims[axis] = dims[axis].zip(part).and_then(|(a, b)| a.checked_add(b));
                }
                Some(dims)
            }
            "Slice" | "Split" | "Resize" | "Upsample" | "ConvTranspose" | "Tile" => {
                Some(vec![None; from.len()])
            }
            "Gather" => {
                let axis = place(node.int("axis", 0), from.len())?;
                Some([&from[..axis], self.of(node, 1)?, &from[axis + 1..]].concat())
            }
            "Shape" if node.attribute.is_empty() => Some(vec![Some(from.len())]),
            "ArgMax" | "ArgMin" => reduced(node, from, &[node.int("axis", 0)]),
            _ if op.starts_with("Reduce") => {
                let axes = self.axes(node)?;
                let all: Vec<i64> = (0..from.len() as i64).collect();
                match axes[..] {
                    [] if node.int("noop_with_empty_axes", 0) != 0 => Some(from.clone()),
                    [] => reduced(node, from, &all),
                    _ => reduced(node, from, &axes),
                }
            }
            "Unsqueeze" => {
                let axes = self.axes(node)?;
                let rank = from.len() + axes.len();
                let new: Vec<usize> =
                    axes.iter().map(|&axis| place(axis, rank)).collect::<Option<_>>()?;
                let mut old = from.iter().copied();
                (0..rank)
                    .map(|a| if new.contains(&a) { Some(Some(1)) } else { old.next() })
                    .collect()
            }
            "Squeeze" => {
                let axes = self.axes(node).filter(|axes| !axes.is_empty())?;
                let gone: Vec<usize> =
                    axes.iter().map(|&axis| place(axis, from.len())).collect::<Option<_>>()?;
                let kept = from.iter().enumerate().filter(|(axis, _)| !gone.contains(axis));
                Some(kept.map(|(_, size)| *size).collect())
            }
            "Pad" => {
                let pads = match node.input.get(1) {
                    Some(_) => self.ints(node, 1),
                    None => Some(node.ints("pads").to_vec()),
                };
                let rank = from.len();
                let pads = pads.filter(|pads| pads.len() == 2 * rank && node.input.len() <= 3);
                let padded = |(axis, size): (usize, &Option<usize>)| {
                    let pads = pads.as_ref()?;
                    let size = i64::try_from((*size)?).ok()?;
                    usize::try_from(size + pads[axis] + pads[rank + axis]).ok()
                };
                Some(from.iter().enumerate().map(padded).collect())
            }
            _ => None,
        }
    }
}

/// The axes of a value some of which are reduced.
fn reduced(node: &NodeProto, from: &Dims, axes: &[i64]) -> Option<Dims> {
    let gone: Vec<usize> =
        axes.iter().map(|&axis| place(axis, from.len())).collect::<Option<_>>()?;
    let size = |(axis, size): (usize, &Option<usize>)| match gone.contains(&axis) {
        false => Some(*size),
        true => (node.int("keepdims", 1) != 0).then_some(Some(1)),
    };
    Some(from.iter().enumerate().filter_map(size).collect())
}

/// The place of an axis among `rank`, where negative ones count from the end.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + i64::try_from(rank).ok()? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// How many elements all axes make.
pub fn elements(dims: &[Option<usize>]) -> Option<usize> {
    dims.iter().try_fold(1, |count: usize, size| count.checked_mul((*size)?))
}

/// The axes of what elements of two values that meet make.
fn broadcast(a: &Dims, b: &Dims) -> Option<Dims> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut dims = long.clone();
    let behind = long.len() - short.len();
    for (size, other) in dims[behind..].iter_mut().zip(short) {
        *size = match (*size, *other) {
            (Some(1), other) => other,
            (size, Some(1)) => size,
            (Some(a), Some(b)) if a != b => return None,
            // Of an unknown size and another it is the other, if that is not 1.
            (size, other) => size.or(other),
        };
    }
    Some(dims)
}

/// The axes of a product of matrices, of vectors and of batches of either.
fn product(a: &Dims, b: &Dims) -> Option<Dims> {
    let (first, second) = (a.split_last()?, b.split_last()?);
    match (a.len(), b.len()) {
        (1, 1) => Some(Vec::new()),
        (_, 1) => Some(first.1.to_vec()),
        (1, n) => Some([&b[..n - 2], &[*second.0]].concat()),
        (m, n) => {
            let batches = broadcast(&a[..m - 2].to_vec(), &b[..n - 2].to_vec())?;
            Some([&*batches, &[a[m - 2], *second.0]].concat())
        }
    }
}

fn reshaped(from: &Dims, to: &[i64], zero_keeps: bool) -> Option<Dims> {
    let mut dims: Dims = Vec::with_capacity(to.len());
    for (axis, &size) in to.iter().enumerate() {
        dims.push(match size {
            0 if zero_keeps => *from.get(axis)?,
            size => usize::try_from(size).ok(),
        });
    }
    // What is left for the axis that is left open. Axes of no known size may be the same on both sides.
    if let Some(open) = to.iter().position(|&size| size == -1) {
        let keeps = |axis: usize| zero_keeps && to.get(axis) == Some(&0);
        let unknown = |(axis, size): (usize, &Option<usize>)| match size {
            None if keeps(axis) => Some(1),
            size => *size,
        };
        let count = |dims: &[Option<usize>]| {
            dims.iter().enumerate().map(unknown).try_fold(1usize, |n, size| n.checked_mul(size?))
        };
        dims[open] = Some(1);
        let (all, rest) = (count(from), count(&dims));
        dims[open] = all.zip(rest).and_then(|(all, rest)| all.checked_div(rest));
    }
    Some(dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, TensorProto, ValueInfoProto};

    #[test]
    fn sizes_follow_the_operators() {
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        let list = AttributeProto::of_ints;
        let same = AttributeProto::of_string("auto_pad", "SAME_LOWER");
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Conv", &["x", "w"], &["conv"])
                    .with(list("strides", &[2, 2]))
                    .with(same),
                NodeProto::new("Relu", &["conv"], &["relu"]),
                NodeProto::new("MaxPool", &["relu"], &["pool"]).with(list("kernel_shape", &[2, 2])),
                NodeProto::new("Reshape", &["pool", "rows"], &["flat"]),
                NodeProto::new("Gemm", &["flat", "g"], &["gemm"])
                    .with(AttributeProto::of_int("transB", 1)),
                NodeProto::new("Unsqueeze", &["gemm", "one"], &["wide"]),
                NodeProto::new("MatMul", &["wide", "v"], &["vector"]),
                NodeProto::new("Squeeze", &["vector", "one"], &["rest"]),
                NodeProto::new("ReduceMax", &["conv"], &["most"])
                    .with(list("axes", &[-1, 1]))
                    .with(AttributeProto::of_int("keepdims", 0)),
                NodeProto::new("Gather", &["g", "rows"], &["found"]),
                NodeProto::new("Mystery", &["rest"], &["unknown"]),
                NodeProto::new("Add", &["unknown", "v"], &["unknown too"]),
            ],
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(3), Some(9), Some(8)])],
            initializer: vec![
                TensorProto::from_f32("w", &[4, 3, 3, 3], &[0.0; 108]),
                TensorProto::from_f32("g", &[5, 48], &[0.0; 240]),
                TensorProto::from_f32("v", &[5], &[0.0; 5]),
                ints("rows", &[0, -1]),
                ints("one", &[1]),
            ],
            ..GraphProto::default()
        };
        let sizes = sizes(&graph);
        for (name, expected) in [
            ("conv", Some(vec![None, Some(4), Some(5), Some(4)])),
            ("pool", Some(vec![None, Some(4), Some(4), Some(3)])),
            ("flat", Some(vec![None, Some(48)])),
            ("gemm", Some(vec![None, Some(5)])),
            ("wide", Some(vec![None, Some(1), Some(5)])),
            ("vector", Some(vec![None, Some(1)])),
            ("rest", Some(vec![None])),
            ("most", Some(vec![None, Some(5)])),
            ("found", Some(vec![Some(2), Some(48)])),
            ("unknown", None),
            ("unknown too", None),
        ] {
            assert_eq!(sizes.get(name).cloned(), expected, "{name}");
        }
    }
}
