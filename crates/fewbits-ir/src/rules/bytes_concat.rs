//! Bytes joined along an axis.

use crate::example::{Example, Net, Scale, int};
use crate::lower::{Bytes, Lowering, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{ByteScale, Concat, Op};
use crate::program::{Layout, ValueId};
use crate::refusal::Refusal;
use crate::rules::float_concat::concat_axis;

pub(crate) const RULE: Rule = Rule { name: "bytes_concat", takes: Takes::ToBytes(concat), example };

fn concat<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let (node, to) = (wanted.node, wanted.to);
    let axis = concat_axis(node)?;
    let parts: Vec<Bytes> =
        node.input.iter().map(|name| lowering.source(name)).collect::<Result<_, _>>()?;
    let are_images = parts.iter().any(|part| lowering.layout(part.id).is_channels_last());
    let layout = if axis == 1 && are_images { Layout::IMAGES } else { Layout::RowMajor };
    let mut inputs = Vec::new();
    for from in parts {
        let id = lowering.requantized(from, to, node);
        let mut ty = from.ty;
        ty.scale = ByteScale::of(to);
        inputs.push(lowering.in_layout(Bytes { id, ty }, layout, node));
    }
    let op = Op::Concat(Concat { axis, zero_point: to.zero_point });
    Ok(lowering.step(bytes(ByteScale::of(to), layout), &inputs, "Concat", node, op))
}

/// Bytes of two scales, and of two widths.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[3, 5], Scale::UNSIGNED);
    let wide = net.feed_bytes(&[3, 37], Scale::SIGNED);
    let y = net.node("Concat", &[&x, &wide], &[int("axis", 1)]);
    net.ends_in_bytes(&y)
}
