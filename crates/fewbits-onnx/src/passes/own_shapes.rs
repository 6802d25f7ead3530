//! `Reshape` to a shape that is computed from its own input becomes one to a constant shape.
//!
//! PyTorch writes `x.view(x.size(0), x.size(1), 12, 32)` as `Shape`, `Gather`, `Unsqueeze` and
//! `Concat`. ONNX has a word for "the size that the input has there": 0.

use crate::graph::{Index, Names};
use crate::proto::{DataType, GraphProto, TensorProto};

/// Rewrites every such `Reshape`; returns their number. What computed the shapes stays, dead.
pub fn own_shapes(graph: &mut GraphProto) -> usize {
    let index = Index::new(graph);
    let found: Vec<(usize, Vec<i64>)> = graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, node)| node.is("Reshape") && node.int("allowzero", 0) == 0)
        .filter_map(|(position, node)| {
            let [input, shape] = node.input.as_slice() else { return None };
            Some((position, own_shape(graph, &index, input, shape)?))
        })
        .collect();
    let mut names = Names::new(graph);
    let count = found.len();
    for (position, dims) in found {
        let name = names.fresh("shape");
        graph.initializer.push(TensorProto::from_i64(&name, &[dims.len()], &dims));
        graph.node[position].input[1] = name;
    }
    count
}

/// The constant for `shape`, if each of its parts is a constant or the size of `input` there.
fn own_shape(graph: &GraphProto, index: &Index, input: &str, shape: &str) -> Option<Vec<i64>> {
    let node = |name: &str| index.producer(name).map(|i| &graph.node[i]);
    let constant = |name: &str| {
        let tensor = index.initializer(name)?;
        let is_ints = matches!(tensor.element_type(), Ok(DataType::Int64));
        tensor.ints().ok().filter(|_| is_ints)
    };
    let concat = node(shape).filter(|n| n.is("Concat"))?;
    let mut dims = Vec::new();
    for part in &concat.input {
        if let Some(values) = constant(part) {
            dims.extend(values);
            continue;
        }
        let unsqueeze = node(part).filter(|n| n.is("Unsqueeze"))?;
        let gather = node(&unsqueeze.input[0]).filter(|n| n.is("Gather"))?;
        let [of, place] = gather.input.as_slice() else { return None };
        let of = node(of).filter(|n| n.is("Shape") && n.attribute.is_empty())?;
        let place = constant(place)?;
        // A scalar, so that one size is one part; counted from the front.
        let here = place == [dims.len() as i64] && of.input[0] == input;
        (here && gather.int("axis", 0) == 0).then(|| dims.push(0))?;
    }
    // A part that is constant and 0 means the same.
    Some(dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, NodeProto};

    /// `x` reshaped to the size of `of` at `place`, and 12.
    fn graph(of: &str, place: i64) -> GraphProto {
        GraphProto {
            node: vec![
                NodeProto::new("Shape", &[of], &["sizes"]),
                NodeProto::new("Gather", &["sizes", "place"], &["size"]),
                NodeProto::new("Unsqueeze", &["size", "first"], &["part"]),
                NodeProto::new("Concat", &["part", "twelve"], &["shape"])
                    .with(AttributeProto::of_int("axis", 0)),
                NodeProto::new("Reshape", &["x", "shape"], &["y"]),
            ],
            initializer: vec![
                TensorProto::from_i64("place", &[], &[place]),
                TensorProto::from_i64("first", &[1], &[0]),
                TensorProto::from_i64("twelve", &[1], &[12]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn sizes_of_the_input_in_their_places_become_zeros() {
        let mut graph = graph("x", 0);
        assert_eq!(own_shapes(&mut graph), 1);
        let shape = graph.find_initializer(&graph.node[4].input[1]).unwrap();
        assert_eq!(shape.ints().unwrap(), [0, 12]);
    }

    #[test]
    fn sizes_of_other_values_or_places_stay() {
        assert_eq!(own_shapes(&mut graph("z", 0)), 0);
        assert_eq!(own_shapes(&mut graph("x", 1)), 0);
    }
}
