//! AveragePool of bytes.

use fewbits_kernels::Halo;

use crate::example::{Example, Net, Scale, ints};
use crate::lower::window::{divisor, pool_window};
use crate::lower::{Lowering, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{ByteScale, BytesPool, Op};
use crate::program::{Layout, ValueId};
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule =
    Rule { name: "average_pool", takes: Takes::ToBytes(average_pool), example };

fn average_pool<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let Wanted { node, to, .. } = *wanted;
    only(&["AveragePool"], node)?;
    let window = pool_window(node)?;
    let from = lowering.source(&node.input[0])?;
    let input = lowering.as_image(from, Halo::default(), node);
    let averaging = from.ty.scale.averaging(divisor(node), to);
    let op = Op::BytesPool(BytesPool::Average { window, averaging });
    let output = bytes(ByteScale::of(to), Layout::IMAGES);
    Ok(lowering.step(output, &[input], format!("AveragePool{}", wanted.behind), node, op))
}

/// Windows that reach over some edges of the images.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[2, 3, 7, 6], Scale::UNSIGNED);
    let attributes = [ints("kernel_shape", &[3, 2]), ints("pads", &[1, 0, 2, 1])];
    let y = net.node("AveragePool", &[&x], &attributes);
    net.ends_in_bytes(&y)
}
