//! Normal forms: what ONNX lets be written in several ways, or be left out, is written in one.
//!
//! They are for executors and for what plans for them; a written file keeps the nodes of its user. Each form is
//! a file; every one leaves alone what it cannot be sure of.

mod axes;
mod booleans;
mod composed;
mod definitions;
mod dropout;
mod kernels;
mod layer_norms;
mod pads;
mod powers;
mod signs;
mod softmax;
mod vectors;

pub use axes::on_axes;

use super::fold_batch_norm::fold_batch_norm;
use super::upgrade_opset::upgrade_opset;
use crate::Model;
use crate::facts::{ElementTypes, Facts, types_inside};
use crate::proto::GraphProto;

/// The opset from which on Softmax and its like work along one axis.
pub const ALONG_ONE_AXIS: i64 = 13;

/// Brings a model to the forms; of those of subgraphs to what asks for element types alone.
pub fn normal_forms(model: &mut Model) {
    if model.opset() < ALONG_ONE_AXIS {
        // What has no equal there stays; what it means is for the executor to know.
        let _ = upgrade_opset(model, ALONG_ONE_AXIS);
    }
    let opset = model.opset();
    let graph = model.graph_mut();
    dropout::drop_inference(graph);
    composed::as_operators(graph);
    fold_batch_norm(graph);
    let mut facts = Facts::of(graph);
    if definitions::write_out(graph, opset, facts.types(), facts.sizes()) > 0 {
        facts = Facts::of(graph);
    }
    // What the values of the graph are stays true while forms change around them.
    let (types, sizes) = (facts.types(), facts.sizes());
    if opset < ALONG_ONE_AXIS {
        softmax::name_last_axis(graph, sizes);
    }
    kernels::spell_out(graph, sizes);
    pads::write_out(graph, sizes);
    layer_norms::with_statistics(graph, opset, sizes);
    powers::of_one_type(graph, types);
    in_every_graph(graph, types);
    vectors::as_matrices(graph, opset, sizes);
}

/// Brings a graph and those inside it to the forms that ask for element types alone.
fn in_every_graph(graph: &mut GraphProto, types: &ElementTypes) {
    for node in &mut graph.node {
        let mut attributes = std::mem::take(&mut node.attribute);
        for body in attributes.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs)) {
            let inner = types_inside(types, node, body);
            in_every_graph(body, &inner);
        }
        node.attribute = attributes;
    }
    signs::by_comparisons(graph, types);
    booleans::by_comparisons(graph, types);
    booleans::reduced_as_integers(graph, types);
}
