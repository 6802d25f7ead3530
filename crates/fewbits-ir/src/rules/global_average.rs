//! The average over the spatial axes of images of bytes.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::Divisor;
use fewbits_onnx::facts::place;
use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, Scale};
use crate::lower::window::{MORE_AXES, spatial_axes};
use crate::lower::{Lowering, bytes};
use crate::lower::{Rule, Takes, Wanted};
use crate::op::{ByteScale, GlobalAverage, Op};
use crate::program::{Layout, ValueId};
use crate::refusal::{Refusal, check, only};
use crate::rules::reduce::reduced_axes;

pub(crate) const RULE: Rule =
    Rule { name: "global_average", takes: Takes::ToBytes(global_average), example };

fn global_average<'a>(
    lowering: &mut Lowering<'a>,
    wanted: &Wanted<'a>,
) -> Result<ValueId, Refusal> {
    let Wanted { node, to, .. } = *wanted;
    only(&["GlobalAveragePool", "ReduceMean"], node)?;
    check(spatial_axes(lowering, node)? <= 2, MORE_AXES)?;
    let is_mean = node.is("ReduceMean");
    if is_mean {
        check(is_over_images(lowering, node)?, "it reduces other axes than those of images")?;
    }
    let from = lowering.source(&node.input[0])?;
    let input = lowering.as_image(from, Halo::default(), node);
    let averaging = from.ty.scale.averaging(Divisor::PixelsInside, to);
    let keep_axes = !is_mean || node.int("keepdims", 1) != 0;
    let op = Op::GlobalAverage(GlobalAverage { averaging, keep_axes });
    let what = format!("{}{}", node.op_type(), wanted.behind);
    // One pixel an image: in the order of ONNX already.
    let output = bytes(ByteScale::of(to), Layout::RowMajor);
    Ok(lowering.step(output, &[input], what, node, op))
}

/// Whether a mean is over height and width of images.
fn is_over_images(lowering: &Lowering, node: &NodeProto) -> Result<bool, Refusal> {
    let rank = lowering.rank(&node.input[0]).unwrap_or(0);
    let axes = reduced_axes(lowering, node)?.into_iter().map(|axis| place(axis, rank));
    let mut axes = axes.collect::<Option<Vec<usize>>>().unwrap_or_default();
    axes.sort_unstable();
    Ok(rank == 4 && axes == [2, 3])
}

/// Images of a number of pixels that is no power of two.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_bytes(&[2, 5, 7, 6], Scale::UNSIGNED);
    let y = net.node("GlobalAveragePool", &[&x], &[]);
    net.ends_in_bytes(&y)
}
