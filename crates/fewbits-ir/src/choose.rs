//! Which nodes become steps of ours that another executor could compute, too: products of bytes, and of those on
//! floats what stands between integer products in a transformer or a perceptron.

use std::collections::HashSet;

use fewbits_onnx::proto::NodeProto;

use crate::lower::Lowering;
use crate::rules::{is_inside_threshold, keeps_codes};

/// The operators that start or end integers.
const ANCHORS: [&str; 5] =
    ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"];

impl<'a> Lowering<'a> {
    /// Chooses the products of bytes that become our own steps: all that depend on an input.
    pub(crate) fn choose_integer_products(&mut self, constant: &HashSet<usize>) {
        let is_product = |node: &NodeProto| node.is("MatMulInteger") || node.is("ConvInteger");
        let nodes = self.view.graph.node.iter().enumerate();
        let products = nodes.filter(|(at, node)| is_product(node) && !constant.contains(at));
        self.integer_products = products.map(|(at, _)| at).collect();
    }

    /// Chooses which float nodes become our own steps: those that are linked to integers or to a
    /// convolution of ours by nodes that can all be ours, or all nodes of the graph. Others go to the
    /// float executor, so that values are not handed to and fro.
    pub(crate) fn choose_float_nodes(&mut self, constant: &HashSet<usize>) {
        let graph = self.view.graph;
        let is_product = |name: &String| {
            let producer = self.view.producer(name);
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
            let is_product = candidates.contains(i) && keeps_codes(self, node);
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
            let before = node.input.iter().filter_map(|name| self.view.index.producer(name));
            let behind = node.output.iter().flat_map(|o| self.view.index.consumers(o)).copied();
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
        let before = self.view.producer(activation);
        (node.is("MatMul") || node.is("Gemm"))
            && before.is_some_and(|(_, before)| before.is("DequantizeLinear"))
            && self.view.weight(weight).is_some()
    }

    /// Whether a step of ours computes this node, by itself or with the one that reads it.
    fn can_be_ours(&self, node: &'a NodeProto) -> bool {
        self.float_rule(node).is_ok() || is_inside_threshold(self, node)
    }
}
