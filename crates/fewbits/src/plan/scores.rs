//! The last products of a network, those that give its scores.
//!
//! What they lose, no later layer makes up for. They are as wide as the others where those have 3
//! bits or more: there a wider one measures no better (tests/fixtures/tiny_lm, by GPTQ). Below, they
//! keep 3 where they are a small part of the model.

use std::collections::HashSet;

use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::GraphProto;
use fewbits_quant::Bits;

use super::{SchemeKind, WeightOptions};
use crate::layers::is_product;

/// The width of the last products where fewer bits are asked for.
const BITS: u8 = 3;
/// They are at most this part of the elements of all products.
const SMALL_PART: usize = 16;

/// The weights of the products behind which there is no other, where they are a small part of all.
pub(super) fn last_products(graph: &GraphProto) -> HashSet<String> {
    let index = Index::new(graph);
    let weight = |node: usize| {
        let node = &graph.node[node];
        let name = node.input.get(1).filter(|_| is_product(node))?;
        let elements = index.initializer(name)?.shape().ok()?.iter().product::<usize>();
        Some((name.as_str(), elements))
    };
    // Whether a product lies behind a node, from the end: nodes stand behind those that they read.
    let mut before_product = vec![false; graph.node.len()];
    for node in (0..graph.node.len()).rev() {
        let outputs = graph.node[node].output.iter().filter(|output| !output.is_empty());
        let readers = outputs.flat_map(|output| index.consumers(output));
        before_product[node] =
            readers.into_iter().any(|&reader| before_product[reader] || weight(reader).is_some());
    }
    let (mut last, mut rest) = (HashSet::new(), HashSet::new());
    for (node, before_product) in before_product.into_iter().enumerate() {
        if let Some(read) = weight(node) {
            if before_product {
                rest.insert(read)
            } else {
                last.insert(read)
            };
        }
    }
    let elements = |weights: &HashSet<(&str, usize)>| weights.iter().map(|w| w.1).sum::<usize>();
    let all = elements(&last) + elements(&rest);
    match elements(&last) * SMALL_PART <= all {
        true => last.difference(&rest).map(|(name, _)| (*name).to_string()).collect(),
        false => HashSet::new(),
    }
}

/// What is asked of the weight of a last product where `options` is asked of weights.
pub(super) fn options(options: &WeightOptions) -> WeightOptions {
    let of_integers = matches!(options.scheme(), SchemeKind::Affine | SchemeKind::Symmetric);
    let wider = Bits::new(BITS).filter(|&wider| options.bits().is_some_and(|bits| bits < wider));
    match wider.filter(|_| of_integers) {
        Some(bits) => options.with_width(bits.into()).unwrap_or(*options),
        None => *options,
    }
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::{NodeProto, TensorProto};

    use super::*;

    /// A perceptron with `hidden` products of 32 × 32 before two of 32 × 4.
    fn network(hidden: usize) -> GraphProto {
        let mut node = Vec::new();
        let mut initializer = Vec::new();
        let mut product = |from: &str, to: &str, outputs: usize| {
            let weight = format!("w_{to}");
            let shape = [32, outputs];
            initializer.push(TensorProto::from_f32(&weight, &shape, &vec![0.1; 32 * outputs]));
            node.push(NodeProto::new("MatMul", &[from, &weight], &[&format!("p_{to}")]));
            node.push(NodeProto::new("Relu", &[&format!("p_{to}")], &[to]));
        };
        for layer in 0..hidden {
            product(&format!("h{layer}"), &format!("h{}", layer + 1), 32);
        }
        product(&format!("h{hidden}"), "boxes", 4);
        product(&format!("h{hidden}"), "scores", 4);
        GraphProto { node, initializer, ..GraphProto::default() }
    }

    #[test]
    fn the_products_behind_which_there_is_none_are_last() {
        let last = last_products(&network(4));
        assert_eq!(last, HashSet::from(["w_boxes".to_string(), "w_scores".to_string()]));
    }

    #[test]
    fn a_model_of_little_else_has_the_width_that_was_asked_for() {
        assert!(last_products(&network(1)).is_empty());
        assert!(last_products(&network(0)).is_empty());
    }

    #[test]
    fn a_weight_that_is_read_before_too_is_not_last() {
        let mut graph = network(8);
        graph.node[0].input[1] = "w_scores".to_string();
        assert_eq!(last_products(&graph), HashSet::from(["w_boxes".to_string()]));
    }

    #[test]
    fn only_below_3_bits_they_are_wider() {
        let of = |bits: u8| {
            WeightOptions::default().with_width(Bits::new(bits).unwrap().into()).unwrap()
        };
        for (asked, given) in [(1, 3), (2, 3), (3, 3), (4, 4), (8, 8)] {
            assert_eq!(options(&of(asked)), of(given));
        }
    }
}
