//! The sizes of the axes of every value of a graph, as far as they follow from those of its inputs and
//! constants, and the integers of values that hold such sizes.

use std::collections::HashMap;

use super::extents::Known;
use super::extents::{Element, Extent, Extents, MOST_AXES, Symbols};
use super::shapes::{Dims, result_extents};
use super::types::ElementTypes;
use super::values::{fitting, result_elements};
use crate::proto::{DataType, GraphProto, TensorProto};

/// The axes of values whose number of axes is known, by their names.
pub type Sizes = HashMap<String, Dims>;

/// What is known of the sizes in a graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    pub extents: HashMap<String, Extents>,
    pub elements: HashMap<String, Vec<Element>>,
}

impl Shapes {
    /// Follows the nodes of a graph, where the sizes of some values are known from elsewhere, as those of weights
    /// that nodes unpack.
    ///
    /// Every axis of an input whose size is not fixed is like no other: what is fed may differ from what the file
    /// says of two of them. Of what the graph declares for values between its nodes only the number of axes is
    /// taken: the sizes are those of the example that it was exported with, at times, and not what is fed.
    pub fn of(
        graph: &GraphProto,
        types: &ElementTypes,
        others: impl IntoIterator<Item = (String, Dims)>,
    ) -> Shapes {
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let shapes = Shapes::default();
        let mut walk = Walk { constants, shapes, symbols: Symbols::default() };
        for info in graph.value_info.iter().chain(&graph.output) {
            let extents = info.dims().map(|dims| vec![Extent::Unknown; dims.len()]);
            walk.learn(info.name(), extents);
        }
        for input in &graph.input {
            let size = |dim: Option<i64>| dim.and_then(|dim| usize::try_from(dim).ok()).into();
            walk.learn(input.name(), input.dims().map(|dims| dims.into_iter().map(size).collect()));
        }
        for tensor in &graph.initializer {
            let dims = tensor.shape().ok();
            let extents = dims.map(|dims| dims.into_iter().map(|d| Some(d).into()).collect());
            walk.learn(tensor.name(), extents);
            walk.learn_elements(tensor.name(), small_list(tensor));
        }
        for (name, dims) in others {
            walk.learn(&name, Some(dims.into_iter().map(Extent::from).collect()));
        }
        for node in &graph.node {
            let outputs = node.output.iter().enumerate().filter(|(_, name)| !name.is_empty());
            for (place, output) in outputs {
                walk.learn(output, result_extents(node, place, &walk));
            }
            if let Some(output) = node.given_output(0)
                && let Some(data_type) = types.get(output)
            {
                let elements = result_elements(node, &walk);
                walk.learn_elements(output, elements.and_then(|e| fitting(e, *data_type)));
            }
        }
        walk.shapes
    }
}

/// The elements of a constant that may hold a shape.
fn small_list(tensor: &TensorProto) -> Option<Vec<Element>> {
    let is_small = tensor.dims.len() <= 1 && tensor.element_count().ok()? <= MOST_AXES;
    if is_small { list(tensor) } else { None }
}

/// The elements of a constant of integers that sizes may have.
fn list(tensor: &TensorProto) -> Option<Vec<Element>> {
    let is_ints = matches!(tensor.element_type(), Ok(DataType::Int64 | DataType::Int32));
    is_ints.then_some(())?;
    Some(tensor.ints().ok()?.into_iter().map(Element::Is).collect())
}

/// What is known at a node of a graph.
struct Walk<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    shapes: Shapes,
    symbols: Symbols,
}

impl Walk<'_> {
    fn learn(&mut self, name: &str, extents: Option<Extents>) {
        let Some(mut extents) = extents.filter(|extents| extents.len() <= MOST_AXES) else {
            return;
        };
        self.symbols.name(&mut extents);
        self.shapes.extents.insert(name.to_string(), extents);
    }

    /// Keeps elements of a value that has as many and at most one axis.
    fn learn_elements(&mut self, name: &str, elements: Option<Vec<Element>>) {
        let Some(elements) = elements else { return };
        let fits = match self.shapes.extents.get(name).map(Vec::as_slice) {
            Some([]) => elements.len() == 1,
            Some(&[extent]) => extent == Extent::Is(elements.len()),
            _ => false,
        };
        if fits {
            self.shapes.elements.insert(name.to_string(), elements);
        }
    }
}

impl Known for Walk<'_> {
    fn extents(&self, name: &str) -> Option<Extents> {
        self.shapes.extents.get(name).cloned()
    }

    fn elements(&self, name: &str) -> Option<Vec<Element>> {
        match self.shapes.elements.get(name) {
            Some(elements) => Some(elements.clone()),
            None => list(self.constants.get(name)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::proto::{
        AttributeProto, DimValue, NodeProto, TensorProto, TypeValue, ValueInfoProto,
    };

    #[test]
    fn sizes_follow_the_operators() {
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        let list = AttributeProto::of_ints;
        let same = AttributeProto::of_string("auto_pad", "SAME_LOWER");
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Conv", &["x", "w"], &["conv"])
                    .with(list("strides", &[2, 2]))
                    .with(same),
                NodeProto::new("Relu", &["conv"], &["relu"]),
                NodeProto::new("MaxPool", &["relu"], &["pool"]).with(list("kernel_shape", &[2, 2])),
                NodeProto::new("Reshape", &["pool", "rows"], &["flat"]),
                NodeProto::new("Gemm", &["flat", "g"], &["gemm"])
                    .with(AttributeProto::of_int("transB", 1)),
                NodeProto::new("Unsqueeze", &["gemm", "one"], &["wide"]),
                NodeProto::new("MatMul", &["wide", "v"], &["vector"]),
                NodeProto::new("Squeeze", &["vector", "one"], &["rest"]),
                NodeProto::new("ReduceMax", &["conv"], &["most"])
                    .with(list("axes", &[-1, 1]))
                    .with(AttributeProto::of_int("keepdims", 0)),
                NodeProto::new("Gather", &["g", "rows"], &["found"]),
                NodeProto::new("Slice", &["conv", "one", "three", "one"], &["channels"]),
                NodeProto::new(
                    "Slice",
                    &["g", "rows", "ends", "axes", "back"],
                    &["back and forth"],
                ),
                NodeProto::new("Split", &["g"], &["", "second"])
                    .with(AttributeProto::of_int("axis", 0)),
                NodeProto::new("Expand", &["g", "wider"], &["expanded"]),
                NodeProto::new("Flatten", &["expanded"], &["rows of it"])
                    .with(AttributeProto::of_int("axis", -1)),
                NodeProto::new("Flatten", &["expanded"], &["column of it"])
                    .with(AttributeProto::of_int("axis", 3)),
                NodeProto::new("Shape", &["conv"], &["image"])
                    .with(AttributeProto::of_int("start", -2)),
                NodeProto::new("TopK", &["relu", "one"], &["top", "where"]),
                NodeProto::new("ConvTranspose", &["elsewhere", "w"], &["grown"]),
                NodeProto::new("Mystery", &["rest"], &["unknown"]),
                NodeProto::new("Add", &["unknown", "v"], &["unknown too"]),
            ],
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(3), Some(9), Some(8)])],
            initializer: vec![
                TensorProto::from_f32("w", &[4, 3, 3, 3], &[0.0; 108]),
                TensorProto::from_f32("g", &[5, 48], &[0.0; 240]),
                TensorProto::from_f32("v", &[5], &[0.0; 5]),
                ints("rows", &[0, -1]),
                ints("one", &[1]),
                ints("axes", &[1, 0]),
                ints("back", &[-1, -2]),
                ints("ends", &[-49, 1]),
                ints("three", &[3]),
                ints("wider", &[3, 1, 48]),
            ],
            ..GraphProto::default()
        };
        let facts = Facts::of(&graph);
        for (name, expected) in [
            ("conv", Some(vec![None, Some(4), Some(5), Some(4)])),
            ("pool", Some(vec![None, Some(4), Some(4), Some(3)])),
            ("flat", Some(vec![None, Some(48)])),
            ("gemm", Some(vec![None, Some(5)])),
            ("wide", Some(vec![None, Some(1), Some(5)])),
            ("vector", Some(vec![None, Some(1)])),
            ("rest", Some(vec![None])),
            ("most", Some(vec![None, Some(5)])),
            ("found", Some(vec![Some(2), Some(48)])),
            ("channels", Some(vec![None, Some(2), Some(5), Some(4)])),
            // Rows 4 and 2 of column 0.
            ("back and forth", Some(vec![Some(2), Some(1)])),
            ("second", Some(vec![Some(2), Some(48)])),
            ("expanded", Some(vec![Some(3), Some(5), Some(48)])),
            ("rows of it", Some(vec![Some(15), Some(48)])),
            ("column of it", Some(vec![Some(720), Some(1)])),
            ("image", Some(vec![Some(2)])),
            ("top", Some(vec![None, Some(4), Some(5), Some(1)])),
            ("where", Some(vec![None, Some(4), Some(5), Some(1)])),
            ("grown", Some(vec![None, Some(3), None, None])),
            ("unknown", None),
            ("unknown too", None),
        ] {
            assert_eq!(facts.dims(name), expected.as_deref(), "{name}");
        }
    }

    /// What is known where `x` and `z` are fed, both declared as `[n, 4, 6]`.
    fn facts(nodes: Vec<NodeProto>) -> Facts {
        let named = |name: &str| {
            let mut input = ValueInfoProto::tensor(name, 1, &[None, Some(4), Some(6)]);
            let kind = input.r#type.as_mut().and_then(|kind| kind.value.as_mut());
            let Some(TypeValue::TensorType(tensor)) = kind else { unreachable!() };
            tensor.shape.as_mut().unwrap().dim[0].value = Some(DimValue::DimParam("n".into()));
            input
        };
        let ints =
            |name: &str, values: &[i64]| TensorProto::from_i64(name, &[values.len()], values);
        Facts::of(&GraphProto {
            node: nodes,
            input: vec![
                named("x"),
                named("z"),
                ValueInfoProto::tensor("ids", 7, &[None]),
                ValueInfoProto::tensor("huge", 7, &[Some(i64::MAX)]),
                ValueInfoProto::tensor("vast", 1, &[Some(i64::MAX), Some(i64::MAX)]),
                ValueInfoProto::tensor("deep", 1, &[Some(1); MOST_AXES + 1]),
            ],
            value_info: vec![ValueInfoProto::tensor("declared", 1, &[Some(7), Some(7)])],
            initializer: vec![
                TensorProto::from_f32("matrix", &[6, 6], &[0.0; 36]),
                TensorProto::from_f32("filters", &[4, 4, 3], &[0.0; 48]),
                TensorProto { dims: vec![-1, 2], ..TensorProto::from_f32("negative", &[0], &[]) },
                ints("zero", &[0]),
                ints("one", &[1]),
                ints("most", &[i64::MAX]),
                ints("minus", &[-1]),
                ints("rows", &[0, -1]),
                ints("joined", &[-1, 24]),
                ints("open", &[-1, 4, 0]),
                ints("scalar", &[]),
                ints("absurd", &[-7, i64::MAX]),
                ints("too many", &[1; MOST_AXES + 1]),
                ints("other", &[5, 5, 1]),
            ],
            ..GraphProto::default()
        })
    }

    /// The axes of what a node gives.
    fn extents(node: NodeProto) -> Option<Extents> {
        let facts = facts(vec![node]);
        facts.extents("y").map(<[_]>::to_vec)
    }

    fn node(op: &str, inputs: &[&str]) -> NodeProto {
        NodeProto::new(op, inputs, &["y"])
    }

    fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto::of_int(name, value)
    }

    /// The first axis of an input.
    fn rows(of: &str) -> Extent {
        facts(Vec::new()).extents(of).unwrap()[0]
    }

    fn is(size: usize) -> Extent {
        Extent::Is(size)
    }

    #[test]
    fn axes_that_are_handed_on_keep_their_symbol() {
        let (n, all) = (rows("x"), |n: Extent| vec![n, is(4), is(6)]);
        let perm = AttributeProto::of_ints("perm", &[2, 1, 0]);
        let pads = AttributeProto::of_ints("pads", &[1, 1]);
        let same = AttributeProto::of_string("auto_pad", "SAME_UPPER");
        let equation = AttributeProto::of_string("equation", "nij, jk -> kin");
        let window = AttributeProto::of_ints("kernel_shape", &[3]);
        for (node, expected) in [
            (node("Relu", &["x"]), all(n)),
            (node("Add", &["x", "x"]), all(n)),
            (node("Add", &["x", "one"]), all(n)),
            (node("Transpose", &["x"]).with(perm), vec![is(6), is(4), n]),
            (node("Concat", &["x", "z"]).with(int("axis", 1)), vec![n, is(8), is(6)]),
            (node("MatMul", &["x", "matrix"]), all(n)),
            (node("Conv", &["x", "filters"]), vec![n, is(4), is(4)]),
            (node("Conv", &["x", "filters"]).with(pads), all(n)),
            (node("MaxPool", &["x"]).with(window).with(same), all(n)),
            (node("Flatten", &["x"]), vec![n, is(24)]),
            (node("Reshape", &["x", "rows"]), vec![n, is(24)]),
            (node("Reshape", &["x", "joined"]), vec![n, is(24)]),
            (node("Reshape", &["x", "open"]), all(n)),
            (node("Unsqueeze", &["x", "zero"]), vec![is(1), n, is(4), is(6)]),
            (node("Gather", &["x", "ids"]).with(int("axis", 1)), vec![n, rows("ids"), is(6)]),
            (node("ReduceSum", &["x", "one"]), vec![n, is(1), is(6)]),
            (node("Slice", &["x", "zero", "most", "zero"]), all(n)),
            (node("Slice", &["x", "one", "most", "one"]), vec![n, is(3), is(6)]),
            (node("Split", &["x"]).with(int("axis", 0)), all(n)),
            (node("Expand", &["x", "scalar"]), all(n)),
            (node("Einsum", &["x", "matrix"]).with(equation), vec![is(6), is(4), n]),
        ] {
            assert_eq!(extents(node.clone()), Some(expected), "{node:?}");
        }
    }

    #[test]
    fn other_axes_have_symbols_of_their_own() {
        let (x, z) = (rows("x"), rows("z"));
        // What is fed may differ from what the file says.
        assert_ne!(x, z);
        for node in [
            node("Add", &["x", "z"]),
            node("Concat", &["x", "x"]).with(int("axis", 0)),
            node("Slice", &["x", "one", "most", "zero"]),
            node("Slice", &["x", "zero", "minus", "zero"]),
            node("Tile", &["x", "ids"]),
            node("Resize", &["x", "", "", "ids"]),
        ] {
            let first = extents(node.clone()).unwrap()[0];
            assert!(first.size().is_none() && first != x && first != z, "{node:?}");
        }
        let twice = facts(vec![
            NodeProto::new("Tile", &["x", "ids"], &["a"]),
            NodeProto::new("Tile", &["x", "ids"], &["b"]),
        ]);
        assert_ne!(twice.extents("a"), twice.extents("b"));
        // The example that a graph was exported with is not what is fed.
        assert_eq!(twice.dims("declared"), Some(&[None, None][..]));
        assert_eq!(extents(node("Expand", &["x", "other"])), None);
        assert_eq!(extents(node("Add", &["x", "other"])), None);
    }

    /// Of a shape that is computed.
    fn of_shape(parts: &[&str], op: &str, inputs: &[&str]) -> Option<Extents> {
        let facts = facts(vec![
            NodeProto::new("Shape", &["x"], &["sizes"]),
            NodeProto::new("Shape", &["z"], &["others"]),
            NodeProto::new("Gather", &["sizes", "zero"], &["n"]),
            NodeProto::new("Gather", &["others", "zero"], &["m"]),
            NodeProto::new("Gather", &["ids", "zero"], &["fed"]),
            NodeProto::new("Concat", parts, &["shape"]).with(int("axis", 0)),
            NodeProto::new(op, inputs, &["y"]),
        ]);
        facts.extents("y").map(<[_]>::to_vec)
    }

    #[test]
    fn computed_shapes_are_followed() {
        let n = rows("x");
        let expanded = |parts: &[&str]| of_shape(parts, "Expand", &["one", "shape"]);
        let filled = |parts: &[&str]| of_shape(parts, "ConstantOfShape", &["shape"]);
        let reshaped = |parts: &[&str]| of_shape(parts, "Reshape", &["x", "shape"]);
        assert_eq!(expanded(&["n", "one", "zero"]), Some(vec![n, is(1), is(0)]));
        assert_eq!(filled(&["sizes", "n"]), Some(vec![n, is(4), is(6), n]));
        assert_eq!(reshaped(&["n", "minus"]), Some(vec![n, is(24)]));
        assert_eq!(reshaped(&["sizes"]), Some(vec![n, is(4), is(6)]));
        assert_eq!(reshaped(&["zero", "minus"]), Some(vec![n, is(24)]));
        // Where `m` is 0 it means that of `x`, and -1 is known of nothing else.
        let others = reshaped(&["m", "minus"]).unwrap();
        assert!(others.iter().all(|e| e.size().is_none() && ![n, rows("z")].contains(e)));
        let fed = reshaped(&["fed", "one"]).unwrap();
        assert!(fed[0].size().is_none() && fed[1] == is(1));
        let allows = of_shape(&["m", "zero"], "Reshape", &["x", "shape"]);
        assert_eq!(allows.map(|extents| extents[1]), Some(is(4)));
    }

    #[test]
    fn hostile_sizes_are_not_known() {
        // As many axes as nothing has.
        assert_eq!(extents(node("ConstantOfShape", &["huge"])), None);
        assert_eq!(extents(node("Reshape", &["x", "huge"])), None);
        assert_eq!(extents(node("Reshape", &["x", "too many"])), None);
        assert_eq!(extents(node("Unsqueeze", &["x", "too many"])), None);
        assert_eq!(extents(node("Relu", &["deep"])), None);
        assert_eq!(extents(node("Relu", &["negative"])), None);
        let unsized_first = |node: NodeProto| extents(node).unwrap()[0].size();
        assert_eq!(unsized_first(node("Reshape", &["x", "absurd"])), None);
        assert_eq!(unsized_first(node("Flatten", &["vast"]).with(int("axis", 2))), None);
        assert_eq!(unsized_first(node("Concat", &["huge", "huge"]).with(int("axis", 0))), None);
        let all = node("Slice", &["huge", "minus", "most"]);
        assert_eq!(extents(all), Some(vec![is(1)]));
        let pads = node("Pad", &["huge"]).with(AttributeProto::of_ints("pads", &[1, i64::MAX]));
        assert_eq!(unsized_first(pads), None);
    }

    #[test]
    fn squeezing_without_axes_wants_all_sizes() {
        assert_eq!(extents(node("Squeeze", &["x"])), None);
        let known = facts(vec![
            NodeProto::new("Unsqueeze", &["matrix", "zero"], &["wide"]),
            NodeProto::new("Squeeze", &["wide"], &["y"]),
        ]);
        assert_eq!(known.extents("y"), Some(&[is(6), is(6)][..]));
    }
}
