//! ConvInteger that is no part of a chain which ends in floats: int32 sums.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, INT32, Net, Scale, ints};
use crate::lower::window::sizes_of;
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{ConvInteger, Op, Padding, WindowsOfAnyRank, ZeroPoints};
use crate::refusal::{Refusal, input, only};

pub(crate) const RULE: Rule = Rule { name: "conv_integer", takes: Takes::Anywhere(conv), example };

fn conv<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["ConvInteger"], node)?;
    if !lowering.is_among(&lowering.integer_products, node) {
        return Err(Refusal::other());
    }
    let padding = match node.string("auto_pad", "NOTSET").as_str() {
        "NOTSET" | "" => Padding::Given(sizes_of(node, "pads")?),
        "VALID" => Padding::Given(Vec::new()),
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        other => return Err(Refusal::of_node(format!("auto_pad is {other}"))),
    };
    let groups = usize::try_from(node.int("group", 1));
    let windows = WindowsOfAnyRank {
        padding,
        strides: sizes_of(node, "strides")?,
        dilations: sizes_of(node, "dilations")?,
        groups: groups.map_err(|_| Refusal::of_node("its groups are negative"))?,
    };
    let factors = [input(node, 0)?, input(node, 1)?];
    Ok(Box::new(move |lowering| {
        let zero_points = [2, 3].map(|at| node.given_input(at));
        let names = factors.into_iter().chain(zero_points.into_iter().flatten());
        let inputs: Vec<_> = names.map(|name| lowering.tensor(name)).collect();
        let zero_points = zero_points.map(|name| name.is_some());
        let zero_points = ZeroPoints::given(zero_points[0], zero_points[1]);
        let op = Op::ConvInteger(ConvInteger { windows, zero_points });
        lowering.step(floats(), &inputs, "ConvInteger", node, op)
    }))
}

/// Images of unsigned bytes, padded unevenly with their zero point.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_integers(&[2, 3, 7, 6]);
    let w = net.random_codes(&[5, 3, 3, 3]);
    let zero_point = net.zero_point(Scale::UNSIGNED);
    let pads = ints("pads", &[1, 0, 2, 1]);
    let y = net.node("ConvInteger", &[&x, &w, &zero_point], &[pads]);
    net.ends_in(&y, INT32)
}
