//! Operators on two floats.

use fewbits_kernels::float::{Binary, Function};
use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{DequantizedBinary, Epilogue, Op};
use crate::program::ValueId;
use crate::refusal::Refusal;

pub(crate) const RULE: Rule =
    Rule { name: "float_binary", takes: Takes::Floats(float_binary), example };

fn float_binary<'a>(_: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    let operation = binary_of(node).ok_or(Refusal::other())?;
    Ok(Box::new(move |lowering| binary(lowering, operation, node)))
}

/// An operator on two values that are bytes, and a function of its result: in one pass, since
/// floats of images take more time to write and read than to compute.
pub(crate) fn dequantized_binary<'a>(
    lowering: &mut Lowering<'a>,
    node: &'a NodeProto,
    function: Option<Function>,
) -> Option<ValueId> {
    let operation = binary_of(node)?;
    let [a, b] = node.input.as_slice() else { return None };
    (lowering.is_source(a) && lowering.is_source(b)).then_some(())?;
    let (a, b) = (lowering.source(a).ok()?, lowering.source(b).ok()?);
    let are_images = [a, b].map(|x| lowering.layout(x.id).is_channels_last());
    (are_images[0] == are_images[1]).then_some(())?;
    let what = match function {
        Some(function) => format!("{} + {function:?}", node.op_type()),
        None => node.op_type().to_string(),
    };
    let scales = [a.ty.scale, b.ty.scale];
    let op = Op::DequantizedBinary(DequantizedBinary { scales, operation, function });
    Some(lowering.step(floats(), &[a.id, b.id], what, node, op))
}

fn binary<'a>(lowering: &mut Lowering<'a>, operation: Binary, node: &'a NodeProto) -> ValueId {
    if let Some(id) = dequantized_binary(lowering, node, None) {
        return id;
    }
    let (a_name, b_name) = (node.input[0].as_str(), node.input[1].as_str());
    let (a, b) = (lowering.tensor(a_name), lowering.tensor(b_name));
    if operation == Binary::Add {
        for ((name, id), (other_name, other)) in
            [((a_name, a), (b_name, b)), ((b_name, b), (a_name, a))]
        {
            if let Some(sum) = added_to_product(lowering, name, id, other_name, other) {
                return sum;
            }
        }
    }
    lowering.step(floats(), &[a, b], node.op_type(), node, Op::Binary(operation))
}

/// Adds `other` inside the product that gives `id`, if nothing else reads it.
fn added_to_product(
    lowering: &mut Lowering,
    name: &str,
    id: ValueId,
    other_name: &str,
    other: ValueId,
) -> Option<ValueId> {
    // More axes than the product has would be axes of the sum.
    let rank = lowering.rank(name).unwrap_or(1);
    let row = lowering.view.floats(other_name).filter(|(_, shape)| {
        shape.len() <= 1
            || (shape.len() <= rank && shape[..shape.len() - 1].iter().all(|&d| d == 1))
    });
    let is_constant = lowering.view.initializer(other_name).is_some();
    let product = lowering.open_product(name, id)?;
    let columns = product.scale.len();
    let Epilogue::Floats { offset, function, adds_input, quantize: None } = &mut product.epilogue
    else {
        return None;
    };
    if *adds_input {
        return None;
    }
    if let Some((values, _)) = row
        && offset.is_none()
        && function.is_none()
        && values.len() == columns
    {
        *offset = Some(values);
        return Some(lowering.fuse(id, floats(), " + Add"));
    }
    (id != other && !is_constant).then_some(())?;
    *adds_input = true;
    let step = lowering.step_of[id.index()]?;
    let on_the_way = [lowering.value(floats()), lowering.value(floats())];
    let output = lowering.fuse(id, floats(), " + Add");
    let step = &mut lowering.steps[step];
    step.inputs.push(other);
    step.outputs.extend(on_the_way);
    Some(output)
}

/// The operator on two values that a node is.
pub(crate) fn binary_of(node: &NodeProto) -> Option<Binary> {
    (node.is_onnx() && node.input.len() == 2).then_some(())?;
    Some(match node.op_type() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => return None,
    })
}

/// An operator whose operands are no equals, one of them a row.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 37]);
    let row = net.feed_floats(&[1, 37]);
    let y = net.node("Sub", &[&x, &row], &[]);
    net.ends_in_floats(&y)
}
