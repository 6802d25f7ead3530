//! What becomes of numbers that are not there.

use crate::proto::{AttributeProto, GraphProto};

/// Operators that say what becomes of NaN; every comparison with it is false, which is how trees are
/// trained.
const TAKE_MISSING: [&str; 5] =
    ["Imputer", "IsNaN", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"];

/// Whether a graph looks for NaN, or has an answer to it.
pub fn takes_missing(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| {
        let mut inside = node.attribute.iter().flat_map(AttributeProto::subgraphs);
        TAKE_MISSING.contains(&node.op_type()) || inside.any(takes_missing)
    })
}
