//! Which values have a first axis of the same size, or the same shape, whatever is fed.

use std::collections::HashMap;

use crate::facts::{Kind, kind};
use crate::graph::Index;
use crate::proto::{GraphProto, NodeProto};

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes<'a> {
    /// A value whose first axis is of the same size.
    first: &'a str,
    /// A value of the same shape.
    whole: &'a str,
    /// Axes that it has at least.
    pub least_rank: usize,
}

impl Sizes<'_> {
    /// Whether both have the same size along axis `place`.
    pub(super) fn agree(&self, other: &Sizes, place: usize) -> bool {
        self.whole == other.whole || place == 0 && self.first == other.first
    }
}

/// What is known of the values of a graph so far.
pub(super) struct SameSizes<'a> {
    known: HashMap<&'a str, Sizes<'a>>,
}

impl<'a> SameSizes<'a> {
    pub(super) fn new(graph: &'a GraphProto) -> SameSizes<'a> {
        let inputs = graph.required_inputs();
        let inputs = inputs.filter_map(|input| Some((input.name(), input.dims()?.len())));
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor.dims.len()));
        let known = inputs.chain(constants).map(|(name, rank)| (name, alone(name, rank)));
        SameSizes { known: known.collect() }
    }

    pub(super) fn of(&self, name: &'a str) -> Sizes<'a> {
        self.known.get(name).copied().unwrap_or(alone(name, 0))
    }

    /// Learns what a node, behind all that it reads, tells of its first result; `dims` is the new
    /// shape of a Reshape, if it is constant.
    pub(super) fn learn(&mut self, node: &'a NodeProto, dims: Option<&[i64]>, index: &Index<'a>) {
        let Some(name) = node.output.first() else { return };
        let sizes = match node.is_onnx() {
            true => self.of_result(node, name, dims, index),
            false => None,
        };
        self.known.insert(name, sizes.unwrap_or(alone(name, 0)));
    }

    fn of_result(
        &self,
        node: &'a NodeProto,
        name: &'a str,
        dims: Option<&[i64]>,
        index: &Index<'a>,
    ) -> Option<Sizes<'a>> {
        let from = self.of(node.input.first()?);
        let rows_of = |least_rank| Sizes { first: from.first, whole: name, least_rank };
        match kind(node) {
            Some(Kind::OfElements | Kind::OfShape) => return Some(from),
            Some(Kind::OfImages) => return Some(rows_of(3)),
            Some(Kind::OfPairs) => return self.of_pairs(node, name, index),
            None => {}
        }
        match node.op_type() {
            "Flatten" if node.int("axis", 1) == 1 => Some(rows_of(2)),
            "Gemm" if node.int("transA", 0) == 0 => Some(rows_of(2)),
            "MatMul" | "MatMulInteger" => {
                let is_matrix = index.initializer(node.input.get(1)?)?.dims.len() == 2;
                (is_matrix && from.least_rank >= 2).then(|| rows_of(from.least_rank))
            }
            "Transpose" => {
                let perm = node.ints("perm");
                (perm.first() == Some(&0)).then(|| rows_of(perm.len()))
            }
            "Concat" => {
                let axis = node.int("axis", 0);
                let behind = axis > 0 || axis < 0 && axis > -(from.least_rank as i64);
                behind.then(|| rows_of(from.least_rank))
            }
            "Reshape" => {
                let keeps = dims?.first() == Some(&0) && node.int("allowzero", 0) == 0;
                keeps.then(|| rows_of(dims.map_or(0, <[i64]>::len)))
            }
            _ => None,
        }
    }

    /// Of elements that meet: constants among them may not have axes of their own in front.
    fn of_pairs(&self, node: &'a NodeProto, name: &'a str, index: &Index<'a>) -> Option<Sizes<'a>> {
        let inputs = || node.input.iter().filter(|input| !input.is_empty());
        let is_constant = |input: &&String| index.initializer(input).is_some();
        let mut values = inputs().filter(|input| !is_constant(input)).map(|input| self.of(input));
        let one = values.next()?;
        let mut least_rank = one.least_rank;
        for other in values {
            (other.first == one.first).then_some(())?;
            least_rank = least_rank.max(other.least_rank);
        }
        let repeats = |input: &String| {
            let dims = index.initializer(input).map_or(&[][..], |tensor| &tensor.dims);
            dims.len() < least_rank
                || dims.len() == least_rank && dims.first().is_none_or(|&d| d == 1)
        };
        let all = inputs().filter(is_constant).all(repeats);
        all.then_some(Sizes { first: one.first, whole: name, least_rank })
    }
}

/// Of a value of which nothing is known but its rank.
fn alone(name: &str, least_rank: usize) -> Sizes<'_> {
    Sizes { first: name, whole: name, least_rank }
}
