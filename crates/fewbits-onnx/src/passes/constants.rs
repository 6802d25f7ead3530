//! Constant nodes become initializers, so that weights are found in one place.

use crate::proto::{GraphProto, NodeProto, TensorProto};

/// Turns every `Constant` node of the main graph into an initializer of the same name.
///
/// Constants that the node gives in a form without a tensor (sparse, or a string) stay.
pub fn constants_to_initializers(graph: &mut GraphProto) {
    let outputs: Vec<String> = graph.output.iter().map(|o| o.name().to_string()).collect();
    let mut moved = Vec::new();
    graph.node.retain(|node| {
        let Some(tensor) = constant_tensor(node) else { return true };
        // A graph output must be produced by a node.
        if outputs.iter().any(|o| o == tensor.name()) {
            return true;
        }
        moved.push(tensor);
        false
    });
    graph.initializer.append(&mut moved);
}

/// The tensor that a `Constant` gives, under the name of its output.
pub(super) fn constant_tensor(node: &NodeProto) -> Option<TensorProto> {
    if !node.is("Constant") {
        return None;
    }
    let name = node.output.first()?;
    let [attribute] = node.attribute.as_slice() else { return None };
    Some(match attribute.name() {
        "value" => TensorProto { name: Some(name.clone()), ..attribute.t.clone()? },
        "value_float" => TensorProto::from_f32(name, &[], &[attribute.f()]),
        "value_floats" => TensorProto::from_f32(name, &[attribute.floats.len()], &attribute.floats),
        "value_int" => TensorProto::from_i64(name, &[], &[attribute.i()]),
        "value_ints" => TensorProto::from_i64(name, &[attribute.ints.len()], &attribute.ints),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, ValueInfoProto};

    #[test]
    fn every_tensor_form_moves_and_outputs_stay() {
        let constant =
            |name: &str, attribute| NodeProto::new("Constant", &[], &[name]).with(attribute);
        let mut graph = GraphProto {
            node: vec![
                constant(
                    "a",
                    AttributeProto::of_tensor("value", TensorProto::from_f32("", &[1], &[2.0])),
                ),
                constant("b", AttributeProto::of_ints("value_ints", &[1, 2])),
                constant("c", AttributeProto::of_float("value_float", 0.5)),
                constant("out", AttributeProto::of_int("value_int", 3)),
            ],
            output: vec![ValueInfoProto::tensor("out", 7, &[])],
            ..GraphProto::default()
        };
        constants_to_initializers(&mut graph);
        let names: Vec<&str> = graph.initializer.iter().map(TensorProto::name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(graph.find_initializer("b").unwrap().ints().unwrap(), [1, 2]);
        assert_eq!(graph.node.len(), 1);
    }
}
