//! Products of bytes as products of floats that add up to the same integers.
//!
//! An executor may multiply bytes wrongly: on a CPU without VNNI rten 0.27 adds two products in 16 bits, where
//! they saturate, mistakes zero points of single columns, and pads a `ConvInteger` with the integer 0 where the zero
//! point is meant. Floats hold every integer up to 2^24, so a product of floats is exact whose sums stay below.
//! Where they might not, factors are cut into nibbles, and rows into pieces.

mod known;
mod operand;
#[cfg(test)]
mod tests;

use self::known::Known;
use crate::Model;
use crate::graph::Names;
use crate::passes::emit::Emit;
use crate::proto::{AttributeProto, GraphProto, NodeProto};

/// Rewrites every `MatMulInteger` and `ConvInteger` of the model, those of subgraphs included, to float operators
/// that give the same int32 sums; returns how many.
///
/// The sums are exact. Only sums of more than 65,535 products may round, and only of convolutions and of matrices
/// of which the right one is no constant, so that the length of its columns is not known.
pub fn exact_products(model: &mut Model) -> usize {
    if !model.graph().node.iter().any(has_product) {
        return 0;
    }
    let mut names = Names::new(model.graph());
    in_graph(model.graph_mut(), &Known::default(), &mut names)
}

fn has_product(node: &NodeProto) -> bool {
    let mut subgraphs = node.attribute.iter().flat_map(AttributeProto::subgraphs);
    is_product(node) || subgraphs.any(|graph| graph.node.iter().any(has_product))
}

fn is_product(node: &NodeProto) -> bool {
    node.is("MatMulInteger") || node.is("ConvInteger")
}

/// Rewrites the nodes of a graph; `outer` is known of the graphs around it.
fn in_graph(graph: &mut GraphProto, outer: &Known, names: &mut Names) -> usize {
    let known = outer.with_graph(graph);
    in_nodes(&mut graph.node, &known, names)
}

fn in_nodes(nodes: &mut Vec<NodeProto>, known: &Known, names: &mut Names) -> usize {
    let known = known.with_constant_nodes(nodes);
    let mut count = 0;
    for mut node in std::mem::take(nodes) {
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                count += in_graph(graph, &known, names);
            }
        }
        if !is_product(&node) {
            nodes.push(node);
            continue;
        }
        let mut emit = Emit::new(&node, "exact", names);
        match node.is("ConvInteger") {
            true => operand::convolution(&node, &known, &mut emit),
            false => operand::matrices(&node, &known, &mut emit),
        }
        nodes.append(&mut emit.into_nodes());
        count += 1;
    }
    count
}
