//! Quantization that divides by its scale, as ONNX says: rten multiplies by the inverse of one, which rounds what
//! is near a tie to the other side at times.

use std::collections::HashMap;

use super::emit::Emit;
use crate::Model;
use crate::facts::{Dims, ElementTypes, Facts, place};
use crate::graph::Names;
use crate::proto::{AttributeProto, DataType, NodeProto};

/// The opset from which on `Unsqueeze` reads its axes.
const AXES_AS_INPUT: i64 = 13;

/// Rewrites every `QuantizeLinear` and `DynamicQuantizeLinear` of the main graph to bytes whose scales are known to
/// be one number, or one for each place of an axis.
pub fn exact_quantization(model: &mut Model) {
    let opset = model.opset();
    let graph = model.graph_mut();
    let wanted = |node: &NodeProto| node.is("QuantizeLinear") || node.is("DynamicQuantizeLinear");
    if opset < AXES_AS_INPUT || !graph.node.iter().any(wanted) {
        return;
    }
    let facts = Facts::of(graph);
    let (types, sizes) = (facts.types(), facts.sizes());
    let mut names = Names::new(graph);
    for mut node in std::mem::take(&mut graph.node) {
        let mut emit = Emit::new(&node, "exact", &mut names);
        if node.is("DynamicQuantizeLinear") && node.output.len() == 3 {
            // Its scale and its zero point are right.
            let bytes = std::mem::replace(&mut node.output[0], emit.fresh());
            for output in &mut node.output[1..] {
                if output.is_empty() {
                    *output = emit.fresh();
                }
            }
            let (x, scale, zero) = (&node.input[0], &node.output[1], &node.output[2]);
            let divided = divided_by_one(x, scale, &mut emit);
            rounded(&divided, Some(zero), DataType::Uint8, &bytes, &mut emit);
            graph.node.push(node);
            graph.node.append(&mut emit.into_nodes());
            continue;
        }
        match node.is("QuantizeLinear") && linear(&node, types, sizes, &mut emit).is_some() {
            true => graph.node.append(&mut emit.into_nodes()),
            false => graph.node.push(node),
        }
    }
}

/// A `QuantizeLinear`.
fn linear(
    node: &NodeProto,
    types: &ElementTypes,
    sizes: &HashMap<String, Dims>,
    emit: &mut Emit,
) -> Option<()> {
    let [x, scale] = node.input.get(..2)? else { return None };
    let zero = node.given_input(2);
    let to = *types.get(node.output.first()?)?;
    let is_plain = node.int("block_size", 0) == 0 && node.int("precision", 0) == 0;
    (is_plain && matches!(to, DataType::Int8 | DataType::Uint8)).then_some(())?;
    (types.get(x) == Some(&DataType::Float)).then_some(())?;
    let output = &node.output[0];
    if matches!(sizes.get(scale)?.as_slice(), [] | [Some(1)]) {
        let divided = divided_by_one(x, scale, emit);
        // A list of one number would add an axis to a scalar.
        let zero = zero.map(|zero| emit.reshape(zero, &[]));
        rounded(&divided, zero.as_deref(), to, output, emit);
        return Some(());
    }
    let [Some(_)] = sizes.get(scale)?.as_slice() else { return None };
    let rank = sizes.get(x)?.len();
    let axis = place(node.int("axis", 1), rank)?;
    let shape: Vec<i64> = (0..rank).map(|at| if at == axis { -1 } else { 1 }).collect();
    let scale = emit.reshape(scale, &shape);
    let zero = zero.map(|zero| emit.reshape(zero, &shape));
    let divided = emit.op("Div", &[x, &scale]);
    rounded(&divided, zero.as_deref(), to, output, emit);
    Some(())
}

/// The quotients of floats and one number. A list of two of that number is divided by number by number.
fn divided_by_one(x: &str, by: &str, emit: &mut Emit) -> String {
    let (last, two, first) = (emit.ints(&[-1]), emit.ints(&[2]), emit.index(0));
    let by = emit.op("Expand", &[by, &two]);
    let apart = emit.op("Unsqueeze", &[x, &last]);
    let pairs = emit.op("Div", &[&apart, &by]);
    emit.op_with("Gather", &[&pairs, &first], vec![AttributeProto::of_int("axis", -1)])
}

/// Rounds quotients to bytes, ties to even.
fn rounded(quotients: &str, zero: Option<&str>, to: DataType, output: &str, emit: &mut Emit) {
    let mut codes = emit.op("Round", &[quotients]);
    if let Some(zero) = zero {
        let zero = emit.cast(zero, DataType::Float);
        codes = emit.op("Add", &[&codes, &zero]);
    }
    let (least, most) = if to == DataType::Int8 { (-128.0, 127.0) } else { (0.0, 255.0) };
    let (least, most) = (emit.float(least), emit.float(most));
    let codes = emit.op("Clip", &[&codes, &least, &most]);
    emit.op_as("Cast", &[&codes], vec![AttributeProto::of_int("to", to as i64)], output);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{GraphProto, TensorProto, ValueInfoProto};

    fn ops_of(node: NodeProto) -> Vec<String> {
        let graph = GraphProto {
            node: vec![node],
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
            initializer: vec![
                TensorProto::from_f32("one", &[], &[0.5]),
                TensorProto::from_f32("two", &[2], &[0.5, 0.25]),
                TensorProto::from_f32("blocks", &[1, 2], &[0.5, 0.25]),
                TensorProto::from_i8("zero", &[], &[0]),
            ],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, 21);
        exact_quantization(&mut model);
        let nodes = model.graph().node.iter().filter(|node| !node.is("Constant"));
        nodes.map(|node| node.op_type().to_string()).collect()
    }

    #[test]
    fn scales_divide_where_they_are_known() {
        let node = |scale: &str| NodeProto::new("QuantizeLinear", &["x", scale, "zero"], &["y"]);
        let by_one = ["Reshape", "Expand", "Unsqueeze", "Div", "Gather"];
        let rounded = ["Round", "Cast", "Add", "Clip", "Cast"];
        let one = ops_of(node("one"));
        assert!(by_one.iter().chain(&rounded).all(|op| one.iter().any(|found| found == op)));
        assert_eq!(ops_of(node("two"))[..3], ["Reshape", "Reshape", "Div"]);
        for scale in ["blocks", "computed"] {
            assert_eq!(ops_of(node(scale)), ["QuantizeLinear"]);
        }
    }

    #[test]
    fn a_scale_that_is_found_stays() {
        let node = NodeProto::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]);
        let ops = ops_of(node);
        assert_eq!(
            (ops[0].as_str(), ops.last().unwrap().as_str()),
            ("DynamicQuantizeLinear", "Cast")
        );
    }
}
