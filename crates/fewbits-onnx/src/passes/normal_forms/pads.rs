//! Padding that is to keep sizes (`auto_pad`) is written out as numbers, where it follows from what is known.

use std::collections::HashMap;

use crate::facts::{Dims, Windows};
use crate::proto::{AttributeProto, GraphProto, NodeProto};

/// Writes out the pads of every convolution and pooling that leaves them to `auto_pad`.
pub(super) fn write_out(graph: &mut GraphProto, sizes: &HashMap<String, Dims>) {
    let is_auto = |node: &NodeProto| {
        let windows = ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"];
        let auto_pad = node.string("auto_pad", "NOTSET");
        windows.iter().any(|op| node.is(op)) && !matches!(auto_pad.as_str(), "NOTSET" | "")
    };
    for node in graph.node.iter_mut().filter(|node| is_auto(node)) {
        let Some(pads) = pads(node, node.input.first().and_then(|name| sizes.get(name))) else {
            continue;
        };
        let pads: Vec<i64> = pads.into_iter().map(|pad| pad as i64).collect();
        node.attribute.retain(|a| !matches!(a.name(), "auto_pad" | "pads"));
        node.attribute.push(AttributeProto::of_ints("pads", &pads));
    }
}

/// The pads of a node that reads a value of these sizes; none where they depend on others.
fn pads(node: &NodeProto, input: Option<&Dims>) -> Option<Vec<usize>> {
    let kernel = node.ints("kernel_shape").iter().map(|&k| usize::try_from(k).ok());
    let kernel: Vec<usize> = kernel.collect::<Option<_>>()?;
    if kernel.is_empty() {
        return None;
    }
    if node.is("ConvTranspose") {
        return of_transposed(node, &kernel);
    }
    let spatial = input.and_then(|dims| dims.get(2..)).unwrap_or_default();
    Windows::of(node, &kernel)?.pads(spatial)
}

/// Those of a `ConvTranspose`, whose results are `stride` times as long as its input: whatever the input is.
fn of_transposed(node: &NodeProto, kernel: &[usize]) -> Option<Vec<usize>> {
    (node.ints("output_shape").is_empty()).then_some(())?;
    let each = |name: &str, default: usize| -> Option<Vec<usize>> {
        match node.ints(name) {
            [] => Some(vec![default; kernel.len()]),
            ints => ints.iter().map(|&i| usize::try_from(i).ok()).collect(),
        }
    };
    let (strides, dilations) = (each("strides", 1)?, each("dilations", 1)?);
    let output_padding = each("output_padding", 0)?;
    let auto_pad = node.string("auto_pad", "NOTSET");
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    for (axis, &size) in kernel.iter().enumerate() {
        let extent = size.checked_sub(1)? * dilations.get(axis)? + 1;
        let total = match auto_pad.as_str() {
            "VALID" => 0,
            _ => (extent + output_padding.get(axis)?).checked_sub(*strides.get(axis)?)?,
        };
        let less = total / 2;
        let (first, last) = match auto_pad.as_str() {
            "SAME_LOWER" => (total - less, less),
            _ => (less, total - less),
        };
        before.push(first);
        behind.push(last);
    }
    Some([before, behind].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, auto_pad: &str, kernel: i64, stride: i64) -> NodeProto {
        NodeProto::new(op, &["x", "w"], &["y"])
            .with(AttributeProto::of_string("auto_pad", auto_pad))
            .with(AttributeProto::of_ints("kernel_shape", &[kernel]))
            .with(AttributeProto::of_ints("strides", &[stride]))
    }

    #[test]
    fn an_odd_pad_lies_where_the_name_says() {
        for (op, auto_pad, kernel, stride, size, expected) in [
            ("Conv", "SAME_UPPER", 4, 1, None, Some(vec![1, 2])),
            ("Conv", "SAME_LOWER", 4, 1, None, Some(vec![2, 1])),
            ("Conv", "SAME_LOWER", 3, 2, Some(8), Some(vec![1, 0])),
            ("Conv", "SAME_LOWER", 3, 2, Some(9), Some(vec![1, 1])),
            ("Conv", "SAME_LOWER", 3, 2, None, None),
            ("MaxPool", "VALID", 3, 2, None, Some(vec![0, 0])),
            ("ConvTranspose", "SAME_UPPER", 3, 2, None, Some(vec![0, 1])),
            ("ConvTranspose", "SAME_LOWER", 3, 2, None, Some(vec![1, 0])),
        ] {
            let dims = vec![None, Some(1), size];
            let found = pads(&node(op, auto_pad, kernel, stride), Some(&dims));
            assert_eq!(found, expected, "{op} {auto_pad} {kernel} {stride} {size:?}");
        }
    }
}
