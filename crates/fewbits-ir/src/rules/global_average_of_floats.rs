//! The average over the spatial axes of images of floats.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net};
use crate::lower::Lowering;
use crate::lower::window::spatial_axes;
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::Reduction;
use crate::refusal::{Refusal, only};
use crate::rules::reduce::reduce;

pub(crate) const RULE: Rule =
    Rule { name: "global_average_of_floats", takes: Takes::Floats(global_average), example };

fn global_average<'a>(
    lowering: &Lowering<'a>,
    node: &'a NodeProto,
) -> Result<Rewrite<'a>, Refusal> {
    only(&["GlobalAveragePool"], node)?;
    let axes = spatial_axes(lowering, node)?;
    Ok(Box::new(move |lowering| reduce(lowering, node, Reduction::Mean, axes)))
}

/// Images of a number of pixels that is no power of two.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[2, 5, 7, 6]);
    let y = net.node("GlobalAveragePool", &[&x], &[]);
    net.ends_in_floats(&y)
}
