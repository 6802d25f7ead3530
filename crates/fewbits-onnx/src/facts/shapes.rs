//! The axes of a node's results, from those of what it reads.

use fewbits_kernels::broadcast_shape;

use super::kinds::{Kind, kind};
use super::ml;
use super::windows::Windows;
use crate::MODEL_DOMAIN_ML;
use crate::proto::NodeProto;
use crate::qweight::is_mat_mul_n_bits;

/// The size of every axis; none where it is not known.
pub type Dims = Vec<Option<usize>>;

/// What is known of the values that nodes read.
pub trait Known {
    /// The axes of a value, if their number is known.
    fn dims(&self, name: &str) -> Option<Dims>;

    /// The integers of a value that is constant.
    fn ints(&self, name: &str) -> Option<Vec<i64>>;
}

/// The axes of result number `place` of a node; none where their number is not known.
pub fn result_dims(node: &NodeProto, place: usize, known: &impl Known) -> Option<Dims> {
    if is_mat_mul_n_bits(node) {
        let mut dims = known.dims(node.input.first()?)?;
        *dims.last_mut()? = usize::try_from(node.int("N", 0)).ok();
        return Some(dims);
    }
    if node.domain() == MODEL_DOMAIN_ML {
        return ml::dims(node, place, known);
    }
    node.is_onnx().then_some(())?;
    let reader = Reader { node, known };
    match (place, node.op_type()) {
        (_, "Split") => reader.split(place),
        (0 | 1, "TopK") => reader.top(),
        (0, _) => reader.first_result(),
        // A scale and a zero point.
        (_, "DynamicQuantizeLinear") => Some(Vec::new()),
        (1, "Dropout" | "MaxPool") => reader.first_result(),
        _ => None,
    }
}

/// How many elements all axes make.
pub fn elements(dims: &[Option<usize>]) -> Option<usize> {
    dims.iter().try_fold(1, |count: usize, size| count.checked_mul((*size)?))
}

/// A node, and what is known of what it reads.
struct Reader<'a, K> {
    node: &'a NodeProto,
    known: &'a K,
}

impl<K: Known> Reader<'_, K> {
    fn dims(&self, input: usize) -> Option<Dims> {
        self.known.dims(self.node.input.get(input)?)
    }

    fn ints(&self, input: usize) -> Option<Vec<i64>> {
        self.known.ints(self.node.input.get(input)?)
    }

    /// What an input lists, or in older operator sets an attribute; empty where neither is there.
    fn list(&self, input: usize, attribute: &str) -> Option<Vec<i64>> {
        match self.node.given_input(input) {
            Some(_) => self.ints(input),
            None => Some(self.node.ints(attribute).to_vec()),
        }
    }

    /// As many axes as an input that holds a shape has elements.
    fn of_shape(&self, input: usize) -> Option<Dims> {
        match self.dims(input)?[..] {
            [Some(length)] => Some(vec![None; length]),
            _ => None,
        }
    }

    fn first_result(&self) -> Option<Dims> {
        let (node, op) = (self.node, self.node.op_type());
        match op {
            _ if kind(node) == Some(Kind::OfPairs) => {
                let mut inputs = (0..node.input.len()).map(|input| self.dims(input));
                let first = inputs.next()??;
                inputs.try_fold(first, |dims, other| broadcast_shape(&dims, &other?))
            }
            // Of any input.
            "Reshape" => self.reshaped().or_else(|| self.of_shape(1)),
            "Expand" => self.expanded().or_else(|| self.of_shape(1)),
            "ConstantOfShape" => self.of_shape(0),
            "Gemm" => {
                let side = |input: usize, flag: &str, place: usize| {
                    let dims = self.dims(input).filter(|dims| dims.len() == 2)?;
                    dims[if node.int(flag, 0) == 0 { place } else { 1 - place }]
                };
                Some(vec![side(0, "transA", 0), side(1, "transB", 1)])
            }
            "Size" => Some(Vec::new()),
            // Of all axes, however many there are.
            _ if op.starts_with("Reduce")
                && node.int("keepdims", 1) == 0
                && node.int("noop_with_empty_axes", 0) == 0
                && self.list(1, "axes").is_some_and(|axes| axes.is_empty()) =>
            {
                Some(Vec::new())
            }
            "Conv" | "ConvInteger" | "ConvTranspose" => self.convolved(),
            _ => self.of_known(&self.dims(0)?),
        }
    }

    /// The axes of the first result where those of the first input are `from`.
    fn of_known(&self, from: &Dims) -> Option<Dims> {
        let (node, op) = (self.node, self.node.op_type());
        if matches!(kind(node), Some(Kind::OfElements | Kind::OfShape)) {
            return Some(from.clone());
        }
        match op {
            "DynamicQuantizeLinear" | "InstanceNormalization" => Some(from.clone()),
            "MaxPool" | "AveragePool" | "LpPool" => self.pooled(from),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let axes = from.iter().enumerate();
                Some(axes.map(|(axis, size)| if axis < 2 { *size } else { Some(1) }).collect())
            }
            "Flatten" => {
                let (before, behind) = match node.int("axis", 1) {
                    // All axes may be before it.
                    axis if axis >= 0 => from.split_at_checked(usize::try_from(axis).ok()?)?,
                    axis => from.split_at(place(axis, from.len())?),
                };
                Some(vec![elements(before), elements(behind)])
            }
            "MatMul" | "MatMulInteger" => product(from, &self.dims(1)?),
            "Transpose" => match node.ints("perm") {
                [] => Some(from.iter().rev().copied().collect()),
                perm => perm.iter().map(|&p| from.get(usize::try_from(p).ok()?).copied()).collect(),
            },
            "Concat" => {
                let axis = place(node.attr("axis")?.i(), from.len())?;
                let mut dims = from.clone();
                for input in 1..node.input.len() {
                    let part = self.dims(input).and_then(|dims| *dims.get(axis)?);
                    dims[axis] = dims[axis].zip(part).and_then(|(a, b)| a.checked_add(b));
                }
                Some(dims)
            }
            "Slice" => Some(self.sliced(from).unwrap_or_else(|| vec![None; from.len()])),
            "Resize" | "Upsample" | "Tile" => Some(vec![None; from.len()]),
            "Gather" => {
                let axis = place(node.int("axis", 0), from.len())?;
                Some([&from[..axis], &self.dims(1)?, &from[axis + 1..]].concat())
            }
            "Shape" => {
                let bound = |name: &str, default: usize| match node.attr(name) {
                    Some(end) => clamped(end.i(), from.len()),
                    None => default,
                };
                Some(vec![Some(bound("end", from.len()).saturating_sub(bound("start", 0)))])
            }
            "ArgMax" | "ArgMin" => self.reduced(from, &[node.int("axis", 0)]),
            _ if op.starts_with("Reduce") => {
                let all: Vec<i64> = (0..from.len() as i64).collect();
                match self.list(1, "axes")?[..] {
                    [] if node.int("noop_with_empty_axes", 0) != 0 => Some(from.clone()),
                    [] => self.reduced(from, &all),
                    ref axes => self.reduced(from, axes),
                }
            }
            "Unsqueeze" => {
                let axes = self.list(1, "axes")?;
                let rank = from.len() + axes.len();
                let new = places(&axes, rank)?;
                let mut old = from.iter().copied();
                let size = |axis| if new.contains(&axis) { Some(Some(1)) } else { old.next() };
                (0..rank).map(size).collect()
            }
            "Squeeze" => match self.list(1, "axes")?[..] {
                // Which axes are 1 is known where all sizes are.
                [] => elements(from)
                    .map(|_| from.iter().copied().filter(|&size| size != Some(1)).collect()),
                ref axes => {
                    let gone = places(axes, from.len())?;
                    let kept = from.iter().enumerate().filter(|(axis, _)| !gone.contains(axis));
                    Some(kept.map(|(_, size)| *size).collect())
                }
            },
            "Pad" => {
                let rank = from.len();
                let pads = self.list(1, "pads");
                let pads = pads.filter(|pads| pads.len() == 2 * rank && node.input.len() <= 3);
                let padded = |(axis, size): (usize, &Option<usize>)| {
                    let pads = pads.as_ref()?;
                    let size = i64::try_from((*size)?).ok()?;
                    let more = pads[axis].checked_add(pads[rank + axis])?;
                    usize::try_from(size.checked_add(more)?).ok()
                };
                Some(from.iter().enumerate().map(padded).collect())
            }
            _ => None,
        }
    }

    /// The axes of images behind a convolution: as many as those of its weight.
    fn convolved(&self) -> Option<Dims> {
        let node = self.node;
        let (from, weight) = (self.dims(0), self.dims(1));
        let rank = from.as_ref().or(weight.as_ref())?.len();
        let spatial = match &from {
            Some(from) => from.get(2..)?.to_vec(),
            None => vec![None; rank.checked_sub(2)?],
        };
        let images = from.and_then(|from| *from.first()?);
        let of_weight = |axis: usize| weight.as_ref().and_then(|weight| *weight.get(axis)?);
        if node.is("ConvTranspose") {
            let groups = usize::try_from(node.int("group", 1)).ok();
            let channels = of_weight(1).zip(groups).and_then(|(a, b)| a.checked_mul(b));
            return Some([vec![images, channels], vec![None; spatial.len()]].concat());
        }
        let kernel = weight.as_ref().and_then(|weight| weight.get(2..)?.iter().copied().collect());
        let windows = kernel.and_then(|kernel: Vec<usize>| Windows::of(node, &kernel));
        let counts = windows.map(|windows| windows.counts(&spatial));
        let counts = counts.unwrap_or_else(|| vec![None; spatial.len()]);
        Some([vec![images, of_weight(0)], counts].concat())
    }

    fn pooled(&self, from: &Dims) -> Option<Dims> {
        let spatial = from.get(2..)?;
        let kernel = self.node.ints("kernel_shape").iter().map(|&k| usize::try_from(k).ok());
        let kernel = kernel.collect::<Option<Vec<_>>>();
        let windows = kernel.and_then(|kernel| Windows::of(self.node, &kernel));
        let windows = windows.filter(|_| self.node.int("ceil_mode", 0) == 0);
        let counts = windows.map(|windows| windows.counts(spatial));
        let counts = counts.unwrap_or_else(|| vec![None; spatial.len()]);
        Some([from.get(..2)?, &counts].concat())
    }

    /// The axes of a value some of which are reduced.
    fn reduced(&self, from: &Dims, axes: &[i64]) -> Option<Dims> {
        let gone = places(axes, from.len())?;
        let keeps = self.node.int("keepdims", 1) != 0;
        let size = |(axis, size): (usize, &Option<usize>)| match gone.contains(&axis) {
            false => Some(*size),
            true => keeps.then_some(Some(1)),
        };
        Some(from.iter().enumerate().filter_map(size).collect())
    }

    fn expanded(&self) -> Option<Dims> {
        let to = self.ints(1)?.into_iter().map(|size| usize::try_from(size).ok());
        let to: Dims = to.map(|size| size.map(Some)).collect::<Option<_>>()?;
        broadcast_shape(&self.dims(0)?, &to)
    }

    /// The axes of a part; none where it is not known along which it is cut.
    fn sliced(&self, from: &Dims) -> Option<Dims> {
        let since_10 = self.node.input.len() > 1;
        let list = |input: usize, name: &str| match since_10 {
            true => self.list(input, ""),
            false => Some(self.node.ints(name).to_vec()),
        };
        let (starts, ends, steps) = (list(1, "starts"), list(2, "ends"), list(4, ""));
        let axes = match list(3, "axes")? {
            // The first ones.
            axes if axes.is_empty() => (0..starts.as_ref()?.len() as i64).collect(),
            axes => axes,
        };
        let mut dims = from.clone();
        for (i, axis) in places(&axes, from.len())?.into_iter().enumerate() {
            let at = |list: &Option<Vec<i64>>| list.as_ref()?.get(i).copied();
            let step = match &steps {
                Some(steps) if steps.is_empty() => Some(1),
                steps => at(steps),
            };
            let cut = dims[axis].zip(at(&starts)).zip(at(&ends)).zip(step);
            dims[axis] =
                cut.and_then(|(((size, start), end), step)| length(size, start, end, step));
        }
        Some(dims)
    }

    /// The axes of part number `part` of what is split.
    fn split(&self, part: usize) -> Option<Dims> {
        let mut dims = self.dims(0)?;
        let axis = place(self.node.int("axis", 0), dims.len())?;
        let parts = self.list(1, "split");
        dims[axis] = match parts.as_deref() {
            Some([]) => dims[axis].and_then(|size| {
                let count = self.node.output.len();
                let each = size.div_ceil(count);
                // The last part may be smaller.
                Some(each.min(size.saturating_sub(each.checked_mul(part)?)))
            }),
            parts => parts.and_then(|parts| usize::try_from(*parts.get(part)?).ok()),
        };
        Some(dims)
    }

    fn top(&self) -> Option<Dims> {
        let mut dims = self.dims(0)?;
        let axis = place(self.node.int("axis", -1), dims.len())?;
        let count = match self.node.input.len() {
            1 => Some(self.node.int("k", 0)),
            _ => self.ints(1).and_then(|count| count.first().copied()),
        };
        dims[axis] = count.and_then(|count| usize::try_from(count).ok());
        Some(dims)
    }

    fn reshaped(&self) -> Option<Dims> {
        let to = match self.node.input.len() {
            1 => self.node.ints("shape").to_vec(),
            _ => self.ints(1)?,
        };
        let from = self.dims(0);
        let zero_keeps = self.node.int("allowzero", 0) == 0;
        let mut dims: Dims = Vec::with_capacity(to.len());
        for (axis, &size) in to.iter().enumerate() {
            dims.push(match size {
                0 if zero_keeps => match &from {
                    Some(from) => *from.get(axis)?,
                    None => None,
                },
                size => usize::try_from(size).ok(),
            });
        }
        // What is left for the axis that is left open. Axes of no known size may be the same on both sides.
        if let (Some(open), Some(from)) = (to.iter().position(|&size| size == -1), from) {
            let keeps = |axis: usize| zero_keeps && to.get(axis) == Some(&0);
            let unknown = |(axis, size): (usize, &Option<usize>)| match size {
                None if keeps(axis) => Some(1),
                size => *size,
            };
            let count = |dims: &[Option<usize>]| {
                dims.iter()
                    .enumerate()
                    .map(unknown)
                    .try_fold(1usize, |n, size| n.checked_mul(size?))
            };
            dims[open] = Some(1);
            let (all, rest) = (count(&from), count(&dims));
            dims[open] = all.zip(rest).and_then(|(all, rest)| all.checked_div(rest));
        }
        Some(dims)
    }
}

/// The place of an axis among `rank`, where negative ones count from the end.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + i64::try_from(rank).ok()? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn places(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|&axis| place(axis, rank)).collect()
}

/// A position among `size`, where negative ones count from the end and those beyond it are the end.
fn clamped(position: i64, size: usize) -> usize {
    let size = size as i64;
    let position = if position < 0 { position.saturating_add(size) } else { position };
    position.clamp(0, size) as usize
}

/// How many elements of `size` there are from `start` on in steps, before `end`.
fn length(size: usize, start: i64, end: i64, step: i64) -> Option<usize> {
    let each = usize::try_from(step.unsigned_abs()).ok().filter(|&each| each > 0)?;
    let (low, high) = match step > 0 {
        true => (clamped(start, size), clamped(end, size)),
        // Before the first element implementations differ.
        false if start < -(size as i64) => return None,
        // Going back, both are one behind the place that is meant.
        false => (behind(end, size), behind(start, size)),
    };
    Some(high.saturating_sub(low).div_ceil(each))
}

/// The number of elements up to a position and that one, where negative ones count from the end.
fn behind(position: i64, size: usize) -> usize {
    let size = size as i64;
    let position = if position < 0 { position.saturating_add(size) } else { position };
    position.clamp(-1, size - 1).saturating_add(1) as usize
}

/// The axes of a product of matrices, of vectors and of batches of either.
fn product(a: &Dims, b: &Dims) -> Option<Dims> {
    let (first, second) = (a.split_last()?, b.split_last()?);
    match (a.len(), b.len()) {
        (1, 1) => Some(Vec::new()),
        (_, 1) => Some(first.1.to_vec()),
        (1, n) => Some([&b[..n - 2], &[*second.0]].concat()),
        (m, n) => {
            let batches = broadcast_shape(&a[..m - 2], &b[..n - 2])?;
            Some([&*batches, &[a[m - 2], *second.0]].concat())
        }
    }
}
