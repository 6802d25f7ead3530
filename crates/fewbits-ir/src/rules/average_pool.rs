//! AveragePool of bytes.

use fewbits_kernels::Halo;

use crate::lower::window::{divisor, pool_window};
use crate::lower::{Lowering, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{ByteScale, BytesPool, Op};
use crate::program::{Layout, ValueId};
use crate::refusal::{Refusal, only};

pub(crate) const RULE: Rule = Rule { name: "average_pool", takes: Takes::ToBytes(average_pool) };

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
