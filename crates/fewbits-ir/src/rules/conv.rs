//! A convolution of bytes with constant integer weights, as bytes.

use crate::example::{Example, Net, Scale, ints};
use crate::lower::window::{kernel_of, window_of};
use crate::lower::{Lowering, Sums, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{Activations, ByteScale, Conv, Epilogue, Op, OutputAxis, Product};
use crate::program::{Layout, ValueId};
use crate::refusal::{Refusal, input, only};
use crate::rules::matrix::{bias, groups, has_weights};

pub(crate) const RULE: Rule = Rule { name: "conv", takes: Takes::ToBytes(conv), example };

fn conv<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let Wanted { node, to, .. } = *wanted;
    let behind = &wanted.behind;
    only(&["Conv"], node)?;
    let (weights, scale) = lowering.view.weights(input(node, 1)?, OutputAxis::First)?;
    let shape = weights.tensor.layout().shape();
    let (kernel, rank) = kernel_of(shape)?;
    let window = window_of(node, kernel, rank)?;
    let groups = groups(node, shape[0])?;
    let from = lowering.source(input(node, 0)?)?;
    let bias = bias(lowering, node.input.get(2), &scale, from)?;
    let sums = Sums::new(&scale, bias, from);
    let product = Product {
        bias: sums.ints()?,
        scale: sums.scale.iter().map(|s| s / to.scale).collect(),
        weights,
        activations: Activations::Static { zero_point: from.ty.scale.zero_point },
        epilogue: Epilogue::Bytes { to, add: None },
    };
    has_weights(&product.weights)?;
    let conv = Conv { product, window, groups };
    let what = match conv.is_depthwise() {
        true => format!("depth-wise Conv{behind}"),
        false => format!("Conv{behind}"),
    };
    let input = lowering.as_image(from, conv.halo(), node);
    let output = bytes(ByteScale::of(to), Layout::IMAGES);
    Ok(lowering.step(output, &[input], what, node, Op::Conv(Box::new(conv))))
}

/// Filters that are no multiple of a vector, over images that are padded unevenly.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[2, 3, 7, 6], Scale::UNSIGNED);
    let w = net.random_weights(&[5, 3, 3, 3], 0);
    let bias = net.random_floats(&[5]);
    let attributes = [ints("pads", &[1, 0, 2, 1]), ints("strides", &[2, 1])];
    let y = net.node("Conv", &[&x, &w, &bias], &attributes);
    net.ends_in_bytes(&y)
}

#[cfg(test)]
mod tests {
    use fewbits_kernels::Halo;
    use fewbits_onnx::proto::{
        AttributeProto, DataType, GraphProto, NodeProto, TensorProto, ValueInfoProto,
    };

    use super::*;
    use crate::rules::RULES;
    use crate::view::GraphView;

    /// A convolution of padded bytes, whose bias a caller feeds, and a MaxPool of the same bytes.
    fn graph() -> GraphProto {
        let node = |op: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]| {
            let mut node = NodeProto::new(op, inputs, &[output]);
            node.attribute = attributes.to_vec();
            node
        };
        let pads = AttributeProto::of_ints("pads", &[1, 1, 1, 1]);
        let size = AttributeProto::of_ints("kernel_shape", &[2, 2]);
        let float = DataType::Float as i32;
        GraphProto {
            input: vec![
                ValueInfoProto::tensor("x", float, &[None, Some(1), Some(6), Some(6)]),
                ValueInfoProto::tensor("b", float, &[Some(2)]),
            ],
            initializer: vec![
                TensorProto::from_f32("s", &[], &[0.1]),
                TensorProto::from_u8("z", &[], &[3]),
                TensorProto::from_i8("w", &[2, 1, 3, 3], &[1; 18]),
            ],
            node: vec![
                node("QuantizeLinear", &["x", "s", "z"], "q", &[]),
                node("DequantizeLinear", &["q", "s", "z"], "d", &[]),
                node("DequantizeLinear", &["w", "s"], "wd", &[]),
                node("Conv", &["d", "wd", "b"], "c", &[pads]),
                node("QuantizeLinear", &["c", "s", "z"], "cq", &[]),
                node("MaxPool", &["d"], "p", &[size]),
                node("QuantizeLinear", &["p", "s", "z"], "pq", &[]),
            ],
            output: vec![
                ValueInfoProto::tensor("cq", DataType::Uint8 as i32, &[]),
                ValueInfoProto::tensor("pq", DataType::Uint8 as i32, &[]),
            ],
            ..GraphProto::default()
        }
    }

    #[test]
    fn a_convolution_that_is_refused_widens_no_halo() {
        let graph = graph();
        let mut lowering = Lowering::new(GraphView::new(&graph, 17), &RULES);
        for output in &graph.output {
            lowering.tensor(output.name());
        }
        let whys: Vec<&str> = lowering.steps.iter().map(|step| step.what.as_str()).collect();
        assert!(whys.contains(&"MaxPool") && !whys.contains(&"Conv"), "{whys:?}");
        assert_eq!(
            lowering.why(&[3]),
            ["Conv: its bias is not constant, or not one number for each filter"]
        );
        assert!(lowering.values.iter().all(|value| value.layout.halo() == Halo::default()));
    }
}
