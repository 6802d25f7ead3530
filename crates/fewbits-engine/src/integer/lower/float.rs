//! Which nodes on floats become steps of ours: what stands between integer products in a transformer or
//! a perceptron.

use std::collections::HashSet;

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::{Refusal, input, only};
use crate::integer::state::ValueId;
use crate::integer::steps::cast::Convert;

/// The operators that start or end integers.
const ANCHORS: [&str; 5] =
    ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"];

impl<'a> Lowering<'a> {
    /// Chooses which float nodes become our own steps: those that are linked to integers or to a
    /// convolution of ours by nodes that can all be ours, or all nodes of the graph. Others go to the
    /// float executor, so that values are not handed to and fro.
    pub(crate) fn choose_float_nodes(&mut self, constant: &HashSet<usize>) {
        let graph = self.net.graph;
        let is_product = |name: &String| {
            let producer = self.net.producer(name);
            producer.is_some_and(|(_, n)| n.is("MatMulInteger") || n.is("ConvInteger"))
        };
        // The Cast of sums belongs to the product.
        let is_anchor = |node: &NodeProto| {
            ANCHORS.iter().any(|op| node.is(op)) || (node.is("Cast") && is_product(&node.input[0]))
        };
        let candidates: HashSet<usize> = (0..graph.node.len())
            .filter(|i| !constant.contains(i) && self.can_be_ours(&graph.node[*i]))
            .collect();
        let anchors = (0..graph.node.len()).filter(|i| {
            let node = &graph.node[*i];
            // Convolutions of floats are worth it: ours take half the time.
            let is_convolution = node.is("Conv") && candidates.contains(i);
            // So are products by integers that stay what they are.
            let is_product = candidates.contains(i) && self.keeps_codes(node);
            !constant.contains(i) && (is_anchor(node) || is_convolution || is_product)
        });
        let mut reached: HashSet<usize> = anchors.collect();
        let all = (0..graph.node.len())
            .all(|i| constant.contains(&i) || candidates.contains(&i) || reached.contains(&i));
        if all {
            self.own_float = candidates;
            return;
        }
        let mut open: Vec<usize> = reached.iter().copied().collect();
        while let Some(position) = open.pop() {
            let node = &graph.node[position];
            let before = node.input.iter().filter_map(|name| self.net.index.producer(name));
            let behind = node.output.iter().flat_map(|o| self.net.index.consumers(o)).copied();
            for next in before.chain(behind) {
                let links = candidates.contains(&next) || self.multiplies_bytes(&graph.node[next]);
                if links && !constant.contains(&next) && reached.insert(next) {
                    open.push(next);
                }
            }
        }
        self.own_float = reached;
    }

    /// Whether a node multiplies bytes by integer weights: what it gives is linked to integers, too.
    fn multiplies_bytes(&self, node: &NodeProto) -> bool {
        let [activation, weight, ..] = node.input.as_slice() else { return false };
        let before = self.net.producer(activation);
        (node.is("MatMul") || node.is("Gemm"))
            && before.is_some_and(|(_, before)| before.is("DequantizeLinear"))
            && self.net.weight(weight).is_some()
    }

    /// Whether a step of ours computes this node, by itself or with the one that reads it.
    fn can_be_ours(&self, node: &'a NodeProto) -> bool {
        self.float_step(node).is_ok() || self.is_inside_threshold(node)
    }

    /// Rounds floats to halves, as those that read them compare them.
    pub(super) fn halves_of_floats(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Cast"], node)?;
        let to_half = node.int("to", 0) == DataType::Float16 as i64;
        if !to_half || !self.is_float(input(node, 0)?) {
            return Err(Refusal::other());
        }
        Ok(Box::new(move |lowering| lowering.convert(node, DataType::Float16)))
    }

    /// Converts what a Cast reads.
    pub(super) fn convert(&mut self, node: &'a NodeProto, to: DataType) -> ValueId {
        let input = self.tensor(&node.input[0]);
        self.step(Form::Plain, &[input], "Cast", node, |output| Convert { input, output, to })
    }

    /// Casts floats to floats, which are there already, or integers of ours.
    pub(super) fn cast(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Cast"], node)?;
        let from = input(node, 0)?;
        match self.is_float(from) {
            true => Ok(Box::new(|lowering| lowering.tensor(from))),
            false => self.floats_of_integers(node).map_err(|_| self.no_kernel_for(from)),
        }
    }
}
