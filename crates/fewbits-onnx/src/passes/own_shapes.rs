//! `Reshape` to a shape that is computed from the sizes of its own input becomes one to a constant
//! shape.
//!
//! PyTorch writes `x.view(x.size(0), x.size(1), 12, 32)` as `Shape`, `Gather`, `Unsqueeze` and
//! `Concat`. ONNX has a word for "the size that the input has there": 0. The sizes may be asked of
//! another value where it has the same ones whatever is fed, such as the batch size of what `x` was
//! computed from.

use super::same_sizes::SameSizes;
use crate::graph::{Index, Names};
use crate::proto::{DataType, GraphProto, NodeProto, TensorProto};

/// Rewrites every such `Reshape`; returns their number. What computed the shapes stays, dead.
pub fn own_shapes(graph: &mut GraphProto) -> usize {
    let found = found(graph);
    let mut names = Names::new(graph);
    let count = found.len();
    for (position, dims) in found {
        let name = names.fresh("shape");
        graph.initializer.push(TensorProto::from_i64(&name, &[dims.len()], &dims));
        graph.node[position].input[1] = name;
    }
    count
}

/// The positions of such nodes, and their constant shapes.
fn found(graph: &GraphProto) -> Vec<(usize, Vec<i64>)> {
    let shapes = Shapes { graph, index: Index::new(graph) };
    let mut sizes = SameSizes::new(graph);
    let mut found = Vec::new();
    for (position, node) in graph.node.iter().enumerate() {
        let own = shapes.own_shape(node, &sizes);
        let dims = own.clone().or_else(|| shapes.constant(node.input.get(1)?));
        sizes.learn(node, dims.as_deref(), &shapes.index);
        found.extend(own.map(|dims| (position, dims)));
    }
    found
}

/// A part of a shape.
enum Part<'a> {
    Constant(i64),
    /// The size of a value along an axis.
    Size(&'a str, usize),
}

/// What computes shapes in a graph.
struct Shapes<'a> {
    graph: &'a GraphProto,
    index: Index<'a>,
}

impl<'a> Shapes<'a> {
    /// The constant for the new shape of a Reshape, if each of its parts is a constant or the size of
    /// the input there.
    fn own_shape(&self, node: &'a NodeProto, sizes: &SameSizes<'a>) -> Option<Vec<i64>> {
        (node.is("Reshape") && node.int("allowzero", 0) == 0).then_some(())?;
        let [input, shape] = node.input.as_slice() else { return None };
        let of_input = sizes.of(input);
        let concat = self.producer(shape).filter(|n| n.is("Concat"))?;
        let mut parts = Vec::new();
        for part in &concat.input {
            parts.extend(self.parts(part, sizes)?);
        }
        let dim = |(here, part): (usize, &Part<'a>)| match part {
            // A part that is constant and 0 means the size of the input, too.
            Part::Constant(value) => Some(*value),
            Part::Size(of, place) => {
                (*place == here && sizes.of(of).agree(&of_input, here)).then_some(0)
            }
        };
        parts.iter().enumerate().map(dim).collect()
    }

    /// The parts of a shape that a value of one axis holds.
    fn parts(&self, name: &'a str, sizes: &SameSizes<'a>) -> Option<Vec<Part<'a>>> {
        if let Some(values) = self.constant(name) {
            return Some(values.into_iter().map(Part::Constant).collect());
        }
        let node = self.producer(name)?;
        let first = node.input.first()?;
        match node.op_type() {
            // A scalar, so that one size is one part.
            "Unsqueeze" => self.gathered(first, 0),
            "Gather" => self.gathered(name, 1),
            "Slice" => {
                let of = self.sizes_of(first)?;
                let one = |i: usize, default: i64| match node.input.get(i).map(String::as_str) {
                    None | Some("") => Some(default),
                    Some(name) => match self.constant(name)?[..] {
                        [value] => Some(value),
                        _ => None,
                    },
                };
                // Before opset 10 these were attributes.
                (node.input.len() >= 3 && one(3, 0)? == 0 && one(4, 1)? == 1).then_some(())?;
                slice(of, one(1, 0)?, one(2, 0)?, sizes)
            }
            "Shape" => slice(first, node.int("start", 0), node.attr("end")?.i(), sizes),
            _ => None,
        }
    }

    /// The sizes that a Gather with an index of `rank` axes takes.
    fn gathered(&self, name: &str, rank: usize) -> Option<Vec<Part<'a>>> {
        let gather = self.producer(name).filter(|n| n.is("Gather") && n.int("axis", 0) == 0)?;
        let [of, places] = gather.input.as_slice() else { return None };
        let of = self.sizes_of(of)?;
        (self.index.initializer(places)?.dims.len() == rank).then_some(())?;
        // Counted from the front.
        let size = |place: i64| Some(Part::Size(of, usize::try_from(place).ok()?));
        self.constant(places)?.into_iter().map(size).collect()
    }

    /// The value whose sizes `name` holds, all of them.
    fn sizes_of(&self, name: &str) -> Option<&'a str> {
        let shape = self.producer(name).filter(|n| n.is("Shape") && n.attribute.is_empty())?;
        shape.input.first().map(String::as_str)
    }

    fn producer(&self, name: &str) -> Option<&'a NodeProto> {
        self.index.producer(name).map(|i| &self.graph.node[i])
    }

    fn constant(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.index.initializer(name)?;
        let is_ints = matches!(tensor.element_type(), Ok(DataType::Int64));
        tensor.ints().ok().filter(|_| is_ints)
    }
}

/// Some sizes of a value that follow each other, if it is known to have so many axes.
fn slice<'a>(of: &'a str, start: i64, end: i64, sizes: &SameSizes<'a>) -> Option<Vec<Part<'a>>> {
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    (end <= sizes.of(of).least_rank).then(|| (start..end).map(|at| Part::Size(of, at)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, ValueInfoProto};

    /// A graph of the inputs `x` `[?, 4, 6]` and `z` of the same shape, its last nodes those given: a
    /// Reshape of them reads `shape`, which is `part` and 12.
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
            input: vec![input("x"), input("z")],
            initializer: vec![
                TensorProto::from_i64("zero", &[], &[0]),
                TensorProto::from_i64("one", &[], &[1]),
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
        let y = || node("Relu", &["x"], "y");
        for part in [
            size("y", "one"),
            vec![node("Shape", &["y"], "s"), node("Gather", &["s", "last"], "part")],
            vec![node("Shape", &["y"], "s"), node("Slice", &["s", "second", "third"], "part")],
            vec![node("Shape", &["y"], "s"), node("Slice", &["s", "first", "last"], "part")],
            // As many as there are, which may be fewer.
            vec![node("Shape", &["y"], "s"), node("Slice", &["s", "first", "twelve"], "part")],
            vec![node("Shape", &["y"], "part").with(int("start", 1)).with(int("end", 2))],
            vec![node("Shape", &["y"], "part")],
        ] {
            assert_eq!(shape_of([vec![y()], part].concat()), None);
        }
        let mut allows = graph([vec![y()], size("y", "zero"), vec![reshape()]].concat());
        allows.node.last_mut().unwrap().attribute.push(int("allowzero", 1));
        assert_eq!(own_shapes(&mut allows), 0);
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
        // All sizes, where the shape stays.
        let nodes = |op: &str| {
            vec![
                node(op, &["x"], "y"),
                node("Shape", &["x"], "s"),
                node("Slice", &["s", "first", "third"], "part"),
            ]
        };
        assert_eq!(shape_of(nodes("Relu")), Some(vec![0, 0, 12]));
        assert_eq!(shape_of(nodes("MaxPool")), None);
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
