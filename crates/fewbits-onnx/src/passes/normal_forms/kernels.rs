//! Attributes that say how a window moves are written out: ONNX has defaults for them, of as many numbers as
//! there are spatial axes.

use std::collections::HashMap;

use crate::facts::Dims;
use crate::proto::{AttributeProto, GraphProto, NodeProto};

/// Writes out the kernel, strides and dilations of convolutions, and the strides of poolings.
pub(super) fn spell_out(graph: &mut GraphProto, sizes: &HashMap<String, Dims>) {
    let all = ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"];
    let wanted = |node: &NodeProto| all.iter().any(|op| node.is(op));
    for node in graph.node.iter_mut().filter(|node| wanted(node)) {
        let is_convolution = node.is("Conv") || node.is("ConvTranspose");
        let axes_of = |input: usize| {
            let dims = sizes.get(node.input.get(input)?)?;
            dims.get(2..)
        };
        let kernel: Option<Vec<i64>> = match node.ints("kernel_shape") {
            [] if is_convolution => axes_of(1).and_then(|kernel| {
                kernel.iter().map(|size| size.and_then(|size| i64::try_from(size).ok())).collect()
            }),
            [] => None,
            kernel => Some(kernel.to_vec()),
        };
        // The number of axes may be known where their sizes are not.
        let rank = kernel.as_ref().map(Vec::len);
        let rank = rank.or_else(|| axes_of(1).filter(|_| is_convolution).map(<[_]>::len));
        let rank = rank.or_else(|| axes_of(0).map(<[_]>::len));
        let mut given = |name: &str, values: Option<Vec<i64>>| {
            let is_given = node.attribute.iter().any(|attribute| attribute.name() == name);
            if let Some(values) = values.filter(|_| !is_given) {
                node.attribute.push(AttributeProto::of_ints(name, &values));
            }
        };
        given("kernel_shape", kernel);
        given("strides", rank.map(|rank| vec![1; rank]));
        if is_convolution {
            given("dilations", rank.map(|rank| vec![1; rank]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::proto::{TensorProto, ValueInfoProto};

    #[test]
    fn what_follows_from_kernels_or_inputs_is_written_out() {
        let input = |name: &str| ValueInfoProto::tensor(name, 1, &[None, Some(2), None]);
        let mut graph = GraphProto {
            node: vec![
                NodeProto::new("Conv", &["x", "w"], &["a"]),
                NodeProto::new("Conv", &["x", "computed"], &["b"]),
                NodeProto::new("MaxPool", &["x"], &["c"])
                    .with(AttributeProto::of_ints("kernel_shape", &[3])),
                NodeProto::new("Conv", &["unknown", "computed"], &["d"]),
            ],
            input: vec![input("x")],
            initializer: vec![TensorProto::from_f32("w", &[4, 2, 5], &[0.0; 40])],
            ..GraphProto::default()
        };
        let facts = Facts::of(&graph);
        spell_out(&mut graph, facts.sizes());
        let ints = |node: usize, name: &str| graph.node[node].ints(name).to_vec();
        assert_eq!((ints(0, "kernel_shape"), ints(0, "strides")), (vec![5], vec![1]));
        assert_eq!((ints(1, "kernel_shape"), ints(1, "dilations")), (vec![], vec![1]));
        assert_eq!((ints(2, "strides"), ints(2, "dilations")), (vec![1], vec![]));
        assert_eq!(ints(3, "strides"), vec![]);
    }
}
