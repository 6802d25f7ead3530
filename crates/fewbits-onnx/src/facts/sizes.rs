//! The sizes of the axes of every value of a graph, as far as they follow from those of its inputs and
//! constants.

use std::collections::HashMap;

use super::shapes::{Dims, Known, result_dims};
use crate::proto::{GraphProto, TensorProto};

/// The axes of values whose number of axes is known, by their names.
pub type Sizes = HashMap<String, Dims>;

/// The axes of every value of the main graph whose number of axes is known.
pub fn sizes(graph: &GraphProto) -> Sizes {
    sizes_beside(graph, [])
}

/// The same, where the sizes of some values are known from elsewhere, as those of weights that nodes unpack.
///
/// Of what the graph declares for values between its nodes only the number of axes is taken: the sizes are
/// those of the example that it was exported with, at times, and not what is fed.
pub fn sizes_beside(graph: &GraphProto, others: impl IntoIterator<Item = (String, Dims)>) -> Sizes {
    let mut sizes = Sizes::new();
    for info in graph.value_info.iter().chain(&graph.output) {
        let axes = info.dims().map(|dims| vec![None; dims.len()]);
        sizes.extend(axes.map(|axes| (info.name().to_string(), axes)));
    }
    for input in &graph.input {
        let dims = input.dims().map(|dims| {
            let size = |dim: Option<i64>| dim.and_then(|dim| usize::try_from(dim).ok());
            dims.into_iter().map(size).collect()
        });
        sizes.extend(dims.map(|dims| (input.name().to_string(), dims)));
    }
    for tensor in &graph.initializer {
        let dims = tensor.shape().map(|dims| dims.into_iter().map(Some).collect());
        sizes.extend(dims.map(|dims| (tensor.name().to_string(), dims)));
    }
    sizes.extend(others);
    let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
    let mut walk = Walk { constants, sizes };
    for node in &graph.node {
        for (place, output) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let dims = result_dims(node, place, &walk);
            walk.sizes.extend(dims.map(|dims| (output.clone(), dims)));
        }
    }
    walk.sizes
}

/// What is known at a node of a graph.
struct Walk<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    sizes: Sizes,
}

impl Known for Walk<'_> {
    fn dims(&self, name: &str) -> Option<Dims> {
        self.sizes.get(name).cloned()
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.constants.get(name)?.ints().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, NodeProto, TensorProto, ValueInfoProto};

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
        let sizes = sizes(&graph);
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
            assert_eq!(sizes.get(name).cloned(), expected, "{name}");
        }
    }
}
