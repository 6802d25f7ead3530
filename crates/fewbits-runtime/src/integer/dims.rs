//! The sizes of axes, as far as they follow from those of the inputs and weights.

use std::collections::HashMap;

use fewbits_kernels::bytes::Window;
use fewbits_onnx::operators::{OF_ELEMENTS, OF_PAIRS, OF_SHAPE};
use fewbits_onnx::proto::NodeProto;

use crate::ValueSpec;
use crate::integer::lower::{window, window_of};
use crate::integer::net::Net;
use crate::integer::state::Shape;
use crate::integer::steps::windowed;

/// `None` for an axis whose size is not known.
type Dims = Vec<Option<usize>>;

/// The sizes of the values of a graph.
pub(crate) struct AllDims<'a> {
    net: &'a Net<'a>,
    known: HashMap<&'a str, Dims>,
}

impl<'a> AllDims<'a> {
    pub(crate) fn infer(net: &'a Net<'a>) -> AllDims<'a> {
        let mut known: HashMap<&str, Dims> = HashMap::new();
        for input in net.graph.required_inputs() {
            known.extend(ValueSpec::new(input).dims.map(|dims| (input.name(), dims)));
        }
        for tensor in &net.graph.initializer {
            let dims = tensor.shape().map(|dims| dims.into_iter().map(Some).collect());
            known.extend(dims.map(|dims| (tensor.name(), dims)));
        }
        let mut all = AllDims { net, known };
        for node in &net.graph.node {
            if let Some(dims) = all.of_result(node) {
                all.known.extend(node.output.first().map(|name| (name.as_str(), dims)));
            }
        }
        all
    }

    /// Whether a Reshape of `from` to `to` leaves the rows along the first axis alone.
    pub(crate) fn keeps_rows(&self, node: &NodeProto, to: &[i64]) -> bool {
        match to.split_first() {
            Some((0, _)) => node.int("allowzero", 0) == 0,
            // There are as many rows as before if each has as many elements.
            Some((-1, row)) => {
                let row: Dims = row.iter().map(|&d| usize::try_from(d).ok()).collect();
                let from = self.of_input(node, 0).and_then(|dims| elements(dims.get(1..)?));
                from.is_some_and(|from| from > 0 && elements(&row) == Some(from))
            }
            _ => false,
        }
    }

    fn of_input(&self, node: &NodeProto, input: usize) -> Option<&Dims> {
        self.known.get(node.input.get(input)?.as_str())
    }

    /// The sizes of weights, which may be unpacked by nodes.
    fn of_weights(&self, node: &NodeProto, input: usize) -> Option<Dims> {
        match self.net.weight(node.input.get(input)?) {
            Some(weight) => Some(weight.layout().shape().iter().copied().map(Some).collect()),
            None => self.of_input(node, input).cloned(),
        }
    }

    /// Of the first result of a node.
    fn of_result(&self, node: &NodeProto) -> Option<Dims> {
        node.is_onnx().then_some(())?;
        let op = node.op_type();
        if OF_PAIRS.contains(&op) {
            let mut inputs = (0..node.input.len()).map(|i| self.of_input(node, i));
            let first = inputs.next()??.clone();
            return inputs.try_fold(first, |dims, other| together(&dims, other?));
        }
        let from = self.of_input(node, 0)?;
        match op {
            _ if OF_ELEMENTS.contains(&op) || OF_SHAPE.contains(&op) => Some(from.clone()),
            "Conv" | "ConvInteger" => {
                let weights = self.of_weights(node, 1)?;
                let sizes = weights.get(2..)?.iter().copied().collect::<Option<Vec<_>>>()?;
                let kernel = match sizes[..] {
                    [w] => [1, w],
                    [h, w] => [h, w],
                    _ => return None,
                };
                let window = window_of(node, kernel, sizes.len())?;
                behind_window(from, weights[0]?, window)
            }
            "MaxPool" | "AveragePool" => behind_window(from, (*from.get(1)?)?, window(node)?),
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let axis =
                    |(axis, size): (usize, &Option<usize>)| if axis < 2 { *size } else { Some(1) };
                Some(from.iter().enumerate().map(axis).collect())
            }
            "Flatten" if node.int("axis", 1) == 1 => {
                Some(vec![*from.first()?, elements(from.get(1..)?)])
            }
            "Gemm" if node.int("transA", 0) == 0 => {
                let weights = self.of_weights(node, 1)?;
                let columns =
                    if node.int("transB", 0) == 0 { weights.get(1) } else { weights.first() };
                Some(vec![*from.first()?, *columns?])
            }
            "MatMul" | "MatMulInteger" => {
                let weights = self.of_weights(node, 1)?;
                let [_, columns] = weights[..] else { return None };
                let (_, rows) = from.split_last().filter(|(_, rows)| !rows.is_empty())?;
                Some([rows, &[columns]].concat())
            }
            "Transpose" => {
                let perm = node.ints("perm").iter().map(|&p| usize::try_from(p).ok());
                perm.map(|p| from.get(p?).copied()).collect()
            }
            "Concat" => self.joined(node, from),
            "Reshape" => self.reshaped(node, from),
            _ => None,
        }
    }

    fn joined(&self, node: &NodeProto, first: &Dims) -> Option<Dims> {
        let axis = node.int("axis", 0);
        let axis = usize::try_from(if axis < 0 { axis + first.len() as i64 } else { axis }).ok()?;
        let mut dims = first.clone();
        *dims.get_mut(axis)? = Some(0);
        for input in 0..node.input.len() {
            let part = *self.of_input(node, input)?.get(axis)?;
            dims[axis] = dims[axis].zip(part).and_then(|(a, b)| a.checked_add(b));
        }
        Some(dims)
    }

    fn reshaped(&self, node: &NodeProto, from: &Dims) -> Option<Dims> {
        let to = self.net.ints(node.input.get(1)?)?;
        self.keeps_rows(node, &to).then_some(())?;
        let mut dims = vec![*from.first()?];
        for (axis, &size) in to.iter().enumerate().skip(1) {
            dims.push(match size {
                0 => *from.get(axis)?,
                _ => usize::try_from(size).ok(),
            });
        }
        // What is left for the axis that is left open.
        if let Some(open) = to.iter().skip(1).position(|&size| size == -1) {
            dims[open + 1] = Some(1);
            let all = elements(from.get(1..)?);
            let rest = elements(&dims[1..]);
            dims[open + 1] = all.zip(rest).and_then(|(all, rest)| all.checked_div(rest));
        }
        Some(dims)
    }
}

/// How many elements all axes make.
fn elements(dims: &[Option<usize>]) -> Option<usize> {
    dims.iter().try_fold(1, |count: usize, size| count.checked_mul((*size)?))
}

/// The sizes of what elements of two values that meet make.
fn together(a: &Dims, b: &Dims) -> Option<Dims> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut dims = long.clone();
    let behind = long.len() - short.len();
    for (size, other) in dims[behind..].iter_mut().zip(short) {
        *size = match (*size, *other) {
            (Some(1), other) => other,
            (size, Some(1)) => size,
            (Some(a), Some(b)) if a != b => return None,
            (size, other) => size.or(other),
        };
    }
    Some(dims)
}

/// The sizes of images behind a window.
fn behind_window(
    from: &Dims,
    channels: usize,
    (window, end): (Window, [usize; 2]),
) -> Option<Dims> {
    let (images, one) = from.split_first()?;
    let one = one.iter().copied().collect::<Option<Vec<usize>>>()?;
    let size = Shape::new(&[&[1, channels], one.get(1..)?].concat())?;
    let out = windowed(size, channels, &window, end).ok()?;
    let mut dims = vec![*images];
    dims.extend(out.dims()[1..].iter().copied().map(Some));
    Some(dims)
}
