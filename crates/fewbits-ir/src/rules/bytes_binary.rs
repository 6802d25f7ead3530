//! Sums and products of two activations in bytes.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::AddScales;
use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, Scale};
use crate::lower::{Bytes, Lowering, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{AddBytes, ByteScale, BytesBinary, BytesOperator, Epilogue, Op};
use crate::program::{Layout, ValueId};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule = Rule { name: "bytes_binary", takes: Takes::ToBytes(binary), example };

fn binary<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let Wanted { node, to, .. } = *wanted;
    only(&["Add", "Mul"], node)?;
    let (a_name, b_name) = (input(node, 0)?, input(node, 1)?);
    let (a, b) = (lowering.source(a_name)?, lowering.source(b_name)?);
    let operator = if node.is("Add") { BytesOperator::Add } else { BytesOperator::Mul };
    if operator == BytesOperator::Add {
        for ((name, product), other) in [((b_name, b), a), ((a_name, a), b)] {
            if let Some(id) = residual(lowering, name, product, other, wanted) {
                return Ok(id);
            }
        }
    }
    let are_images = [a, b].iter().any(|x| lowering.layout(x.id).is_channels_last());
    let layout = match same_rank(lowering, node) && are_images {
        true => Layout::IMAGES,
        false => Layout::RowMajor,
    };
    let inputs = [lowering.in_layout(a, layout, node), lowering.in_layout(b, layout, node)];
    let scales = AddScales {
        a_scale: a.ty.scale.scale,
        a_zero_point: a.ty.scale.zero_point,
        b_scale: b.ty.scale.scale,
        b_zero_point: b.ty.scale.zero_point,
        to,
    };
    let what = format!("{}{}", node.op_type(), wanted.behind);
    let op = Op::BytesBinary(BytesBinary { operator, scales });
    Ok(lowering.step(bytes(ByteScale::of(to), layout), &inputs, what, node, op))
}

/// Whether both operands are known to have as many axes: as images their axes must be the same.
fn same_rank(lowering: &Lowering, node: &NodeProto) -> bool {
    let mut ranks = node.input.iter().map(|name| lowering.rank(name));
    matches!((ranks.next(), ranks.next()), (Some(Some(a)), Some(Some(b))) if a == b)
}

/// Adds `other` where `product`, behind the float value `name`, is computed, if nothing else
/// reads it.
fn residual<'a>(
    lowering: &mut Lowering<'a>,
    name: &str,
    product: Bytes,
    other: Bytes,
    wanted: &Wanted<'a>,
) -> Option<ValueId> {
    let Wanted { node, to, .. } = *wanted;
    let (_, dequantize) = lowering.view.producer(name)?;
    let q = dequantize.input.first()?;
    let alone = dequantize.is("DequantizeLinear")
        && lowering.view.has_one_use(name)
        && lowering.view.has_one_use(q)
        && !lowering.shared.contains(&product.id)
        && product.id != other.id;
    alone.then_some(())?;
    let id = product.id;
    let step = lowering.step_of[id.index()]?;
    let takes = match &lowering.steps[step].op {
        Op::MatMul(product) => Some(&product.epilogue),
        Op::Conv(conv) if !conv.is_depthwise() => Some(&conv.product.epilogue),
        _ => None,
    };
    let is_open = matches!(takes, Some(Epilogue::Bytes { add: None, .. }));
    (is_open && lowering.steps[step].outputs[0] == id).then_some(())?;
    let layout = lowering.layout(id);
    (layout == Layout::RowMajor || same_rank(lowering, node)).then_some(())?;
    let (other_id, layout) = match layout {
        Layout::ChannelsLast(_) => {
            (lowering.as_image(other, Halo::default(), node), Layout::IMAGES)
        }
        Layout::RowMajor => (lowering.in_layout(other, layout, node), layout),
    };
    let sum = bytes(ByteScale::of(to), layout);
    let output = lowering.fuse(id, sum, &format!(" + Add{}", wanted.behind));
    lowering.steps[step].inputs.push(other_id);
    lowering.steps[step].outputs.push(id);
    if let Some(product) = lowering.product_of(output)
        && let Epilogue::Bytes { add, .. } = &mut product.epilogue
    {
        *add = Some(AddBytes { scale: other.ty.scale, to });
    }
    Some(output)
}

/// A product of bytes of two scales, one of them a row.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 37], Scale::UNSIGNED);
    let row = net.feed_bytes(&[1, 37], Scale::SIGNED);
    let y = net.node("Mul", &[&x, &row], &[]);
    net.ends_in_bytes(&y)
}
