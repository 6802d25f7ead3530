//! The exponent of a `Pow` has the type of its base.

use crate::facts::ElementTypes;
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, GraphProto, NodeProto};

/// Converts exponents that are known to be integers beside a base of floats.
pub(super) fn of_one_type(graph: &mut GraphProto, types: &ElementTypes) {
    let mut names = Names::new(graph);
    let mut position = 0;
    while position < graph.node.len() {
        let node = &graph.node[position];
        let typed = |input: usize| types.get(node.input.get(input)?).copied();
        let is_mixed = node.is("Pow")
            && typed(0) == Some(DataType::Float)
            && matches!(typed(1), Some(DataType::Int64 | DataType::Int32));
        if is_mixed {
            let exponent = node.input[1].clone();
            let converted = names.fresh("exponent");
            let cast = NodeProto::new("Cast", &[&exponent], &[&converted])
                .with(AttributeProto::of_int("to", DataType::Float as i64));
            graph.node[position].input[1] = converted;
            graph.node.insert(position, cast);
            position += 1;
        }
        position += 1;
    }
}
