//! `Reshape` to a shape that is computed from the sizes of its own input becomes one to a constant
//! shape.
//!
//! PyTorch writes `x.view(x.size(0), x.size(1), 12, 32)` as `Shape`, `Gather`, `Unsqueeze` and
//! `Concat`. ONNX has a word for "the size that the input has there": 0. The sizes may be asked of
//! another value where it has the same ones whatever is fed, such as the batch size of what `x` was
//! computed from.

use std::collections::HashSet;

use crate::facts::{Element, Extent, Facts};
use crate::graph::Names;
use crate::proto::{GraphProto, NodeProto, TensorProto};

/// Rewrites every such `Reshape`; returns their number. What computed the shapes stays, dead.
pub fn own_shapes(graph: &mut GraphProto) -> usize {
    let facts = Facts::of(graph);
    let constants: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let own = |node: &NodeProto| own_shape(node, &facts, &constants);
    let nodes = graph.node.iter().enumerate();
    let found: Vec<_> = nodes.filter_map(|(at, node)| Some((at, own(node)?))).collect();
    let mut names = Names::new(graph);
    let count = found.len();
    for (position, dims) in found {
        let name = names.fresh("shape");
        graph.initializer.push(TensorProto::from_i64(&name, &[dims.len()], &dims));
        graph.node[position].input[1] = name;
    }
    count
}

/// The constant for the computed shape of a Reshape, if each of its elements is known or the size of the input
/// there.
fn own_shape(node: &NodeProto, facts: &Facts, constants: &HashSet<&str>) -> Option<Vec<i64>> {
    (node.is("Reshape") && node.int("allowzero", 0) == 0).then_some(())?;
    let [input, shape] = node.input.as_slice() else { return None };
    (!constants.contains(shape.as_str())).then_some(())?;
    let from = facts.extents(input).unwrap_or(&[]);
    let dim = |(axis, element): (usize, &Element)| match (*element, from.get(axis)) {
        (Element::Like(symbol), Some(&Extent::Like(own))) => (symbol == own).then_some(0),
        // What is computed, and the size of the input as it is declared, follows what is fed in its place.
        (Element::Is(size), Some(&Extent::Is(own))) if usize::try_from(size) == Ok(own) => Some(0),
        // A size that is 0 means that of the input, too.
        (Element::Is(size @ -1..), _) => Some(size),
        _ => None,
    };
    facts.elements(shape)?.iter().enumerate().map(dim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, ValueInfoProto};

    /// A graph of the inputs `x` `[?, 4, 6]`, `z` of the same shape and `w` of three axes of any size, its last nodes
    /// those given: a Reshape of them reads `shape`, which is `part` and 12.
    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        let input = |name| ValueInfoProto::tensor(name, 1, &[None, Some(4), Some(6)]);
        let axis = AttributeProto::of_int("axis", 0);
        let concat = NodeProto::new("Concat", &["part", "twelve"], &["shape"]).with(axis);
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        let floats = |name: &str, dims: &[usize]| {
            TensorProto::from_f32(name, dims, &vec![1.0; dims.iter().product()])
        };
        let mut node = nodes;
        node.insert(node.len() - 1, concat);
        GraphProto {
            node,
            input: vec![
                input("x"),
                input("z"),
                ValueInfoProto::tensor("w", 1, &[None, None, None]),
            ],
            initializer: vec![
                TensorProto::from_i64("zero", &[], &[0]),
                TensorProto::from_i64("one", &[], &[1]),
                TensorProto::from_i64("two", &[], &[2]),
                ints("rotated", &[0, 2]),
                ints("first", &[0]),
                ints("second", &[1]),
                ints("third", &[2]),
                ints("last", &[-1]),
                ints("twelve", &[12]),
                ints("rows", &[0, -1]),
                ints("joined", &[-1, 6]),
                floats("row", &[6]),
                floats("many", &[3, 1, 1]),
                floats("deep", &[1, 1, 4, 6]),
                floats("matrix", &[6, 6]),
                floats("filters", &[4, 4, 3]),
            ],
            ..GraphProto::default()
        }
    }

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto::new(op, inputs, &[output])
    }

    fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto::of_int(name, value)
    }

    fn reshape() -> NodeProto {
        node("Reshape", &["y", "shape"], "out")
    }

    /// `part` as the size of `of` at `place`.
    fn size(of: &str, place: &str) -> Vec<NodeProto> {
        vec![
            node("Shape", &[of], "sizes"),
            node("Gather", &["sizes", place], "size"),
            node("Unsqueeze", &["size", "first"], "part"),
        ]
    }

    /// The constant shape of the last Reshape of a graph of these nodes and a Reshape of `y`.
    fn shape_of(nodes: Vec<NodeProto>) -> Option<Vec<i64>> {
        let mut graph = graph([nodes, vec![reshape()]].concat());
        own_shapes(&mut graph);
        let shape = &graph.node.last().unwrap().input[1];
        graph.find_initializer(shape).map(|t| t.ints().unwrap())
    }

    #[test]
    fn sizes_of_the_input_in_their_places_become_zeros() {
        let y = || node("Relu", &["x"], "y");
        let of_y = [vec![y()], size("y", "zero")].concat();
        assert_eq!(shape_of(of_y), Some(vec![0, 12]));
        for part in [
            vec![node("Shape", &["y"], "s"), node("Gather", &["s", "first"], "part")],
            vec![node("Shape", &["y"], "s"), node("Slice", &["s", "first", "second"], "part")],
            vec![
                node("Shape", &["y"], "s"),
                node("Slice", &["s", "first", "second", "first", "second"], "part"),
            ],
            vec![node("Shape", &["y"], "part").with(int("end", 1))],
        ] {
            assert_eq!(shape_of([vec![y()], part].concat()), Some(vec![0, 12]));
        }
        let two = node("Slice", &["s", "first", "third"], "part");
        let two = vec![y(), node("Shape", &["y"], "s"), two];
        assert_eq!(shape_of(two), Some(vec![0, 0, 12]));
    }

    #[test]
    fn sizes_of_other_places_stay() {
        let y = || node("Relu", &["w"], "y");
        for part in [
            size("y", "one"),
            vec![node("Shape", &["y"], "s"), node("Gather", &["s", "last"], "part")],
            vec![node("Shape", &["y"], "s"), node("Slice", &["s", "second", "third"], "part")],
            vec![node("Shape", &["y"], "part").with(int("start", 1)).with(int("end", 2))],
            // Of no known rank, and not known to have any.
            vec![node("Mystery", &["y"], "u"), node("Shape", &["u"], "part")],
            vec![node("Mystery", &["y"], "part")],
        ] {
            assert_eq!(shape_of([vec![y()], part].concat()), None);
        }
        let mut allows = graph([vec![y()], size("y", "zero"), vec![reshape()]].concat());
        allows.node.last_mut().unwrap().attribute.push(int("allowzero", 1));
        assert_eq!(own_shapes(&mut allows), 0);
    }

    #[test]
    fn sizes_that_the_model_fixes_become_numbers_elsewhere_and_zeros_in_their_places() {
        let sliced = |from: &str, to: &str| {
            vec![node("Shape", &["y"], "s"), node("Slice", &["s", from, to], "part")]
        };
        for (part, of_x, of_w) in [
            (size("y", "one"), Some(vec![4, 12]), None),
            (size("y", "two"), Some(vec![6, 12]), None),
            (sliced("second", "third"), Some(vec![4, 12]), None),
            (sliced("first", "last"), Some(vec![0, 0, 12]), Some(vec![0, 0, 12])),
            // As many as there are, of which the number is known.
            (sliced("first", "twelve"), Some(vec![0, 0, 0, 12]), Some(vec![0, 0, 0, 12])),
            (sliced("third", "first"), Some(vec![12]), Some(vec![12])),
            (vec![node("Shape", &["y"], "part")], Some(vec![0, 0, 0, 12]), Some(vec![0, 0, 0, 12])),
            (vec![node("Shape", &["z"], "part").with(int("end", 1))], None, None),
            (
                vec![node("Shape", &["z"], "part").with(int("start", 1))],
                Some(vec![4, 6, 12]),
                Some(vec![4, 6, 12]),
            ),
        ] {
            for (input, expected) in [("x", of_x), ("w", of_w)] {
                let nodes = [vec![node("Relu", &[input], "y")], part.clone()].concat();
                assert_eq!(shape_of(nodes), expected, "{input} {part:?}");
            }
        }
    }

    #[test]
    fn other_axes_than_the_first_are_followed() {
        let perm = AttributeProto::of_ints("perm", &[0, 2, 1]);
        let nodes = |of: &str| {
            vec![
                node("Transpose", &["w"], "y").with(perm.clone()),
                node("Shape", &[of], "s"),
                node("Gather", &["s", "rotated"], "part"),
            ]
        };
        assert_eq!(shape_of(nodes("w")), Some(vec![0, 0, 12]));
        assert_eq!(shape_of(nodes("y")), None);
    }

    #[test]
    fn the_batch_size_of_what_a_value_was_computed_from_is_its_own() {
        let perm = |perm: &[i64]| AttributeProto::of_ints("perm", perm);
        for step in [
            node("Sigmoid", &["x"], "y"),
            node("QuantizeLinear", &["x", "scale", "zero"], "y"),
            node("Conv", &["x", "filters"], "y"),
            node("MaxPool", &["x"], "y"),
            node("Flatten", &["x"], "y"),
            node("MatMul", &["x", "matrix"], "y"),
            node("Add", &["row", "x"], "y"),
            node("Add", &["x", "x"], "y"),
            node("Transpose", &["x"], "y").with(perm(&[0, 2, 1])),
            node("Concat", &["x", "z"], "y").with(int("axis", -1)),
            node("Reshape", &["x", "rows"], "y"),
        ] {
            let nodes = [vec![step.clone()], size("x", "zero")].concat();
            assert_eq!(shape_of(nodes), Some(vec![0, 12]), "{step:?}");
        }
        // All sizes, where the shape stays; those of channels behind a pooling, and no others.
        let nodes = |op: &str, end: i64| {
            vec![
                node(op, &["w"], "y").with(AttributeProto::of_ints("kernel_shape", &[2])),
                node("Shape", &["w"], "part").with(int("end", end)),
            ]
        };
        assert_eq!(shape_of(nodes("Relu", 3)), Some(vec![0, 0, 0, 12]));
        assert_eq!(shape_of(nodes("MaxPool", 2)), Some(vec![0, 0, 12]));
        assert_eq!(shape_of(nodes("MaxPool", 3)), None);
    }

    #[test]
    fn a_first_axis_of_another_size_is_not_the_batch() {
        let perm = |perm: &[i64]| AttributeProto::of_ints("perm", perm);
        for step in [
            node("Relu", &["z"], "y"),
            node("Add", &["x", "z"], "y"),
            node("Add", &["x", "many"], "y"),
            node("Add", &["x", "deep"], "y"),
            node("MatMul", &["matrix", "x"], "y"),
            node("MatMul", &["x", "z"], "y"),
            node("Gemm", &["x", "matrix"], "y").with(int("transA", 1)),
            node("Flatten", &["x"], "y").with(int("axis", 2)),
            node("Transpose", &["x"], "y").with(perm(&[1, 0, 2])),
            node("Transpose", &["x"], "y"),
            node("Concat", &["x", "z"], "y").with(int("axis", 0)),
            node("Concat", &["x", "z"], "y").with(int("axis", -3)),
            node("Reshape", &["x", "joined"], "y"),
            node("Reshape", &["x", "rows"], "y").with(int("allowzero", 1)),
            node("Squeeze", &["x"], "y"),
            node("ReduceMean", &["x"], "y"),
        ] {
            let nodes = [vec![step.clone()], size("x", "zero")].concat();
            assert_eq!(shape_of(nodes), None, "{step:?}");
        }
    }

    #[test]
    fn shapes_follow_from_those_before() {
        let nodes = [
            vec![
                node("Shape", &["x"], "s"),
                node("Gather", &["s", "first"], "n"),
                node("Concat", &["n", "last"], "to").with(int("axis", 0)),
                node("Reshape", &["x", "to"], "y"),
            ],
            size("x", "zero"),
        ]
        .concat();
        assert_eq!(shape_of(nodes), Some(vec![0, 12]));
    }
}
