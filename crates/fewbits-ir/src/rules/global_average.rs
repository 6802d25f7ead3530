//! The average over the spatial axes of images: of bytes, and of floats.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::Divisor;
use fewbits_onnx::proto::NodeProto;

use crate::lower::{Lowering, bytes};
use crate::op::{ByteScale, GlobalAverage, Op, Reduction};
use crate::program::{Layout, ValueId};
use crate::refusal::{Refusal, check, only};
use crate::rules::reduce::reduce;
use crate::rules::window::{MORE_AXES, spatial_axes};
use crate::rules::{Rewrite, Rule, Takes, Wanted};

pub(crate) const RULE: Rule = Rule { name: "global_average", takes: Takes::ToBytes(of_bytes) };
pub(crate) const OF_FLOATS: Rule =
    Rule { name: "global_average_of_floats", takes: Takes::Floats(of_floats) };

fn of_bytes<'a>(lowering: &mut Lowering<'a>, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
    let Wanted { node, to, .. } = *wanted;
    only(&["GlobalAveragePool"], node)?;
    check(spatial_axes(lowering, node)? <= 2, MORE_AXES)?;
    let from = lowering.source(&node.input[0])?;
    let input = lowering.as_image(from, Halo::default(), node);
    let averaging = from.ty.scale.averaging(Divisor::PixelsInside, to);
    let op = Op::GlobalAverage(GlobalAverage { averaging, keep_axes: true });
    let what = format!("GlobalAveragePool{}", wanted.behind);
    // One pixel an image: in the order of ONNX already.
    let output = bytes(ByteScale::of(to), Layout::RowMajor);
    Ok(lowering.step(output, &[input], what, node, op))
}

fn of_floats<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["GlobalAveragePool"], node)?;
    let axes = spatial_axes(lowering, node)?;
    Ok(Box::new(move |lowering| reduce(lowering, node, Reduction::Mean, axes)))
}
