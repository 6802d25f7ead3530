//! The axes of a node's results, from those of what it reads.

use fewbits_kernels::{Size, broadcast_shape};

use super::einsum::{ELLIPSIS, Equation};
use super::extents::{Element, Extent, Extents, Known, MOST_AXES, product, quotient};
use super::kinds::{Kind, kind};
use super::ml;
use super::nbits::is_mat_mul_n_bits;
use super::places::{Cut, clamped, place, places};
use super::windows::Windows;
use crate::MODEL_DOMAIN_ML;
use crate::proto::NodeProto;

/// The size of every axis; none where it is not known.
pub type Dims = Vec<Option<usize>>;

/// The sizes among those of axes that are known.
pub(super) fn known_sizes(extents: &[Extent]) -> Dims {
    extents.iter().map(|extent| extent.size()).collect()
}

/// The known sizes of the axes of result number `place` of a node; none where their number is not known.
pub fn result_dims(node: &NodeProto, place: usize, known: &impl Known) -> Option<Dims> {
    Some(known_sizes(&result_extents(node, place, known)?))
}

/// The axes of result number `place` of a node; none where their number is not known.
pub(super) fn result_extents(
    node: &NodeProto,
    place: usize,
    known: &impl Known,
) -> Option<Extents> {
    of_result(node, place, known).filter(|extents| extents.len() <= MOST_AXES)
}

fn of_result(node: &NodeProto, place: usize, known: &impl Known) -> Option<Extents> {
    if is_mat_mul_n_bits(node) {
        let mut extents = known.extents(node.input.first()?)?;
        *extents.last_mut()? = usize::try_from(node.int("N", 0)).ok().into();
        return Some(extents);
    }
    if node.domain() == MODEL_DOMAIN_ML {
        return ml::extents(node, place, known);
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
        (1 | 2, "GRU" | "LSTM" | "RNN") => reader.last_states(),
        _ => None,
    }
}

/// How many elements all axes make.
pub fn elements(dims: &[Option<usize>]) -> Option<usize> {
    dims.iter().try_fold(1, |count: usize, size| count.checked_mul((*size)?))
}

/// A node, and what is known of what it reads.
pub(super) struct Reader<'a, K> {
    pub node: &'a NodeProto,
    pub known: &'a K,
}

impl<K: Known> Reader<'_, K> {
    pub fn extents(&self, input: usize) -> Option<Extents> {
        self.known.extents(self.node.given_input(input)?)
    }

    /// The integers of an input, if all of them are known.
    fn ints(&self, input: usize) -> Option<Vec<i64>> {
        let elements = self.known.elements(self.node.given_input(input)?)?;
        elements.into_iter().map(Element::int).collect()
    }

    /// What an input lists, or in older operator sets an attribute; empty where neither is there.
    pub fn list(&self, input: usize, attribute: &str) -> Option<Vec<i64>> {
        match self.node.given_input(input) {
            Some(_) => self.ints(input),
            None => Some(self.node.ints(attribute).to_vec()),
        }
    }

    /// The elements of an input of one axis, as far as they are known; none where their number is not.
    pub fn vector(&self, input: usize) -> Option<Vec<Element>> {
        let [Extent::Is(length)] = self.extents(input)?[..] else { return None };
        (length <= MOST_AXES).then_some(())?;
        let elements = self.known.elements(self.node.given_input(input)?);
        let elements = elements.unwrap_or_else(|| vec![Element::Unknown; length]);
        (elements.len() == length).then_some(elements)
    }

    /// The axes of a value whose shape an input holds.
    fn of_shape(&self, input: usize) -> Option<Extents> {
        Some(self.vector(input)?.into_iter().map(Element::extent).collect())
    }

    fn first_result(&self) -> Option<Extents> {
        let (node, op) = (self.node, self.node.op_type());
        match op {
            // One that says so meets along axes of the first, as all do before opset 7.
            "PRelu" => self.extents(0),
            _ if kind(node) == Some(Kind::OfPairs) && node.int("broadcast", 0) != 0 => {
                self.extents(0)
            }
            _ if kind(node) == Some(Kind::OfPairs) => {
                let mut inputs = (0..node.input.len()).map(|input| self.extents(input));
                let first = inputs.next()??;
                inputs.try_fold(first, |extents, other| broadcast_shape(&extents, &other?))
            }
            // Of any input.
            "Reshape" => self.reshaped(),
            "Expand" => broadcast_shape(&self.extents(0)?, &self.of_shape(1)?),
            "ConstantOfShape" => self.of_shape(0),
            "Gemm" => {
                let side = |input: usize, flag: &str, place: usize| match self.extents(input)?[..] {
                    [rows, columns] => {
                        let turned = node.int(flag, 0) != 0;
                        Some(if turned == (place == 1) { rows } else { columns })
                    }
                    _ => None,
                };
                let or_unknown = |side: Option<Extent>| side.unwrap_or(Extent::Unknown);
                Some(vec![or_unknown(side(0, "transA", 0)), or_unknown(side(1, "transB", 1))])
            }
            "GatherElements" => self.extents(1),
            "Einsum" => self.summed(),
            "GRU" | "LSTM" | "RNN" => {
                let (steps, directions, rows, hidden) = self.recurrent()?;
                match node.int("layout", 0) {
                    0 => Some(vec![steps, directions, rows, hidden]),
                    _ => Some(vec![rows, steps, directions, hidden]),
                }
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
            _ => self.of_known(&self.extents(0)?),
        }
    }

    /// The axes of the first result where those of the first input are `from`.
    fn of_known(&self, from: &Extents) -> Option<Extents> {
        let (node, op) = (self.node, self.node.op_type());
        if matches!(kind(node), Some(Kind::OfElements | Kind::OfShape)) {
            return Some(from.clone());
        }
        match op {
            "DynamicQuantizeLinear" | "InstanceNormalization" => Some(from.clone()),
            "MaxPool" | "AveragePool" | "LpPool" => self.pooled(from),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let axes = from.iter().enumerate();
                Some(
                    axes.map(|(axis, &size)| if axis < 2 { size } else { Extent::Is(1) }).collect(),
                )
            }
            "Flatten" => {
                let (before, behind) = match node.int("axis", 1) {
                    // All axes may be before it.
                    axis if axis >= 0 => from.split_at_checked(usize::try_from(axis).ok()?)?,
                    axis => from.split_at(place(axis, from.len())?),
                };
                Some(vec![product(before), product(behind)])
            }
            "MatMul" | "MatMulInteger" => matrix_product(from, &self.extents(1)?),
            "Transpose" => match node.ints("perm") {
                [] => Some(from.iter().rev().copied().collect()),
                perm => perm.iter().map(|&p| from.get(usize::try_from(p).ok()?).copied()).collect(),
            },
            "Concat" => {
                let axis = place(node.attr("axis")?.i(), from.len())?;
                let mut extents = from.clone();
                for input in 1..node.input.len() {
                    let part = self.extents(input).and_then(|part| part.get(axis).copied());
                    extents[axis] = extents[axis].plus(part.unwrap_or(Extent::Unknown));
                }
                Some(extents)
            }
            "Slice" => Some(self.sliced(from).unwrap_or_else(|| vec![Extent::Unknown; from.len()])),
            "Resize" | "Upsample" | "Tile" => Some(vec![Extent::Unknown; from.len()]),
            "Gather" => {
                let axis = place(node.int("axis", 0), from.len())?;
                Some([&from[..axis], &self.extents(1)?, &from[axis + 1..]].concat())
            }
            "Shape" => Some(vec![Extent::Is(self.told(from).len())]),
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
                let size =
                    |axis| if new.contains(&axis) { Some(Extent::Is(1)) } else { old.next() };
                (0..rank).map(size).collect()
            }
            "Squeeze" => match self.list(1, "axes")?[..] {
                // Which axes are 1 is known where all sizes are.
                [] if from.iter().all(|size| size.size().is_some()) => {
                    Some(from.iter().copied().filter(|&size| size != Extent::Is(1)).collect())
                }
                [] => None,
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
                let padded = |(axis, &size): (usize, &Extent)| {
                    let pads = pads.as_ref()?;
                    let more = pads[axis].checked_add(pads[rank + axis])?;
                    if more == 0 {
                        return Some(size);
                    }
                    let size = i64::try_from(size.size()?).ok()?;
                    Some(Extent::Is(usize::try_from(size.checked_add(more)?).ok()?))
                };
                let padded = from.iter().enumerate().map(padded);
                Some(padded.map(|size| size.unwrap_or(Extent::Unknown)).collect())
            }
            _ => None,
        }
    }

    /// The sizes that a Shape tells of axes.
    pub fn told<'b>(&self, from: &'b [Extent]) -> &'b [Extent] {
        let bound = |name: &str, default: usize| match self.node.attr(name) {
            Some(bound) => clamped(bound.i(), from.len()),
            None => default,
        };
        from.get(bound("start", 0)..bound("end", from.len())).unwrap_or(&[])
    }

    /// The axes of images behind a convolution: as many as those of its weight.
    fn convolved(&self) -> Option<Extents> {
        let node = self.node;
        let (from, weight) = (self.extents(0), self.extents(1));
        let rank = from.as_ref().or(weight.as_ref())?.len();
        let spatial = match &from {
            Some(from) => from.get(2..)?.to_vec(),
            None => vec![Extent::Unknown; rank.checked_sub(2)?],
        };
        let images = from.map_or(Some(Extent::Unknown), |from| from.first().copied())?;
        let of_weight = |axis: usize| {
            let size = weight.as_ref().and_then(|weight| weight.get(axis).copied());
            size.unwrap_or(Extent::Unknown)
        };
        let unknown = vec![Extent::Unknown; spatial.len()];
        if node.is("ConvTranspose") {
            let groups = Extent::from(usize::try_from(node.int("group", 1)).ok());
            return Some([vec![images, of_weight(1).times(groups)], unknown].concat());
        }
        let kernel = weight.as_ref().and_then(|weight| {
            weight.get(2..)?.iter().map(|size| size.size()).collect::<Option<Vec<usize>>>()
        });
        let windows = kernel.and_then(|kernel| Windows::of(node, &kernel));
        let counts = windows.map_or(unknown, |windows| windows.extents(&spatial));
        Some([vec![images, of_weight(0)], counts].concat())
    }

    fn pooled(&self, from: &Extents) -> Option<Extents> {
        let spatial = from.get(2..)?;
        let kernel = self.node.ints("kernel_shape").iter().map(|&k| usize::try_from(k).ok());
        let kernel = kernel.collect::<Option<Vec<_>>>();
        let windows = kernel.and_then(|kernel| Windows::of(self.node, &kernel));
        let windows = windows.filter(|_| self.node.int("ceil_mode", 0) == 0);
        let unknown = vec![Extent::Unknown; spatial.len()];
        let counts = windows.map_or(unknown, |windows| windows.extents(spatial));
        Some([from.get(..2)?, &counts].concat())
    }

    /// The steps, directions, rows and hidden units of a recurrent layer.
    fn recurrent(&self) -> Option<(Extent, Extent, Extent, Extent)> {
        let [first, second, _] = self.extents(0)?[..] else { return None };
        let [directions, _, hidden] = self.extents(2)?[..] else { return None };
        let (steps, rows) = match self.node.int("layout", 0) {
            0 => (first, second),
            _ => (second, first),
        };
        Some((steps, directions, rows, hidden))
    }

    /// The axes of the states that a recurrent layer ends with.
    fn last_states(&self) -> Option<Extents> {
        let (_, directions, rows, hidden) = self.recurrent()?;
        match self.node.int("layout", 0) {
            0 => Some(vec![directions, rows, hidden]),
            _ => Some(vec![rows, directions, hidden]),
        }
    }

    /// The axes of what an equation without an ellipsis makes.
    fn summed(&self) -> Option<Extents> {
        let equation = Equation::of(self.node)?;
        let of_label = |label: &char| {
            let mut sizes = equation.operands.iter().enumerate().filter_map(|(i, labels)| {
                let axis = labels.iter().position(|own| own == label)?;
                let extents = self.extents(i).filter(|extents| extents.len() == labels.len());
                Some(extents.map_or(Extent::Unknown, |extents| extents[axis]))
            });
            let first = sizes.next()?;
            sizes.try_fold(first, Extent::meet)
        };
        let has_ellipsis = equation.operands.iter().flatten().any(|&label| label == ELLIPSIS);
        (!has_ellipsis).then_some(())?;
        equation.result.iter().map(of_label).collect()
    }

    /// The axes of a value some of which are reduced.
    fn reduced(&self, from: &Extents, axes: &[i64]) -> Option<Extents> {
        let gone = places(axes, from.len())?;
        let keeps = self.node.int("keepdims", 1) != 0;
        let size = |(axis, size): (usize, &Extent)| match gone.contains(&axis) {
            false => Some(*size),
            true => keeps.then_some(Extent::Is(1)),
        };
        Some(from.iter().enumerate().filter_map(size).collect())
    }

    /// The axes of a part; none where it is not known along which it is cut.
    fn sliced(&self, from: &Extents) -> Option<Extents> {
        let mut extents = from.clone();
        for (axis, cut) in self.cuts(from.len())? {
            extents[axis] = cut.map_or(Extent::Unknown, |cut| cut.extent(extents[axis]));
        }
        Some(extents)
    }

    /// The axes among `rank` along which a node slices, each with the cut there if it is known.
    pub fn cuts(&self, rank: usize) -> Option<Vec<(usize, Option<Cut>)>> {
        let since_10 = self.node.input.len() > 1;
        let list = |input: usize, name: &str| match since_10 {
            true => self.list(input, ""),
            false => Some(self.node.ints(name).to_vec()),
        };
        let (starts, ends, steps) = (list(1, "starts"), list(2, "ends"), list(4, ""));
        let axes = match list(3, "axes")? {
            // The first ones.
            axes if axes.is_empty() => (0..starts.as_ref()?.len().min(rank) as i64).collect(),
            axes => axes,
        };
        let cut = |i: usize| {
            let at = |list: &Option<Vec<i64>>| list.as_ref()?.get(i).copied();
            let step = match &steps {
                Some(steps) if steps.is_empty() => 1,
                steps => at(steps)?,
            };
            Some(Cut { start: at(&starts)?, end: at(&ends)?, step })
        };
        let places = places(&axes, rank)?.into_iter().enumerate();
        Some(places.map(|(i, axis)| (axis, cut(i))).collect())
    }

    /// The axes of part number `part` of what is split.
    fn split(&self, part: usize) -> Option<Extents> {
        let mut extents = self.extents(0)?;
        let axis = place(self.node.int("axis", 0), extents.len())?;
        let parts = self.list(1, "split");
        let count = self.node.output.len();
        extents[axis] = match (parts.as_deref(), extents[axis]) {
            (Some([]), whole) if count == 1 => whole,
            (Some([]), Extent::Is(size)) => {
                let each = size.div_ceil(count);
                // The last part may be smaller.
                let before = each.checked_mul(part);
                before.map(|before| each.min(size.saturating_sub(before))).into()
            }
            (Some([]), _) => Extent::Unknown,
            (parts, _) => parts.and_then(|parts| usize::try_from(*parts.get(part)?).ok()).into(),
        };
        Some(extents)
    }

    fn top(&self) -> Option<Extents> {
        let mut extents = self.extents(0)?;
        let axis = place(self.node.int("axis", -1), extents.len())?;
        let count = match self.node.input.len() {
            1 => Some(self.node.int("k", 0)),
            _ => self.ints(1).and_then(|count| count.first().copied()),
        };
        extents[axis] = count.and_then(|count| usize::try_from(count).ok()).into();
        Some(extents)
    }

    fn reshaped(&self) -> Option<Extents> {
        let to = match (self.node.input.len(), self.node.ints("shape")) {
            (1, to) if to.len() > MOST_AXES => return None,
            (1, to) => to.iter().copied().map(Element::Is).collect(),
            _ => self.vector(1)?,
        };
        let from = self.extents(0);
        let zero_keeps = self.node.int("allowzero", 0) == 0;
        let mut extents = Extents::with_capacity(to.len());
        for (axis, &element) in to.iter().enumerate() {
            extents.push(match (element, &from) {
                (Element::Is(0), None) if zero_keeps => Extent::Unknown,
                (Element::Is(0), Some(from)) if zero_keeps => *from.get(axis)?,
                // A size that happens to be 0 would be that of the input, too.
                (Element::Like(_), from) if zero_keeps => {
                    let own = from.as_ref().and_then(|from| from.get(axis));
                    let is_own = own == Some(&element.extent());
                    if is_own { element.extent() } else { Extent::Unknown }
                }
                _ => element.extent(),
            });
        }
        // What is left for the axis that is left open.
        if let (Some(open), Some(from)) = (to.iter().position(|&e| e == Element::Is(-1)), from) {
            extents[open] = Extent::Is(1);
            extents[open] = quotient(&from, &extents);
        }
        Some(extents)
    }
}

/// The axes of a product of matrices, of vectors and of batches of either; none where the axes that are summed
/// differ.
fn matrix_product(a: &Extents, b: &Extents) -> Option<Extents> {
    let (first, second) = (a.split_last()?, b.split_last()?);
    let inner = if b.len() == 1 { *second.0 } else { b[b.len() - 2] };
    let goes_together = match (*first.0, inner) {
        (Extent::Is(a), Extent::Is(b)) => a == b,
        _ => true,
    };
    goes_together.then_some(())?;
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
