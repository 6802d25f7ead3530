//! Sums, means and maxima over the last axes.

use fewbits_onnx::proto::NodeProto;

use crate::example::{Example, Net, int, ints};
use crate::lower::{Lowering, floats};
use crate::lower::{Rewrite, Rule, Takes};
use crate::op::{Op, Reduce, Reduction};
use crate::program::ValueId;
use crate::refusal::{Refusal, check, input, only};

pub(crate) const RULE: Rule = Rule { name: "reduce", takes: Takes::Floats(reduction), example };

fn reduction<'a>(lowering: &Lowering<'a>, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
    only(&["ReduceSum", "ReduceMean", "ReduceMax"], node)?;
    let reduction = match node.op_type() {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        _ => Reduction::Max,
    };
    let axes = reduced_axes(lowering, node)?;
    // Counted from the end.
    let rank = lowering.rank(input(node, 0)?).map(|rank| rank as i64);
    let from_end = |axis| if axis < 0 { Some(axis) } else { Some(axis - rank?) };
    let axes: Option<Vec<i64>> = axes.into_iter().map(from_end).collect();
    let mut axes = axes.ok_or(Refusal::of_node("the rank of what it reduces is not known"))?;
    axes.sort_unstable();
    let count = axes.len();
    let are_last = count > 0 && axes.into_iter().eq(-(count as i64)..0);
    check(are_last, "it reduces other axes than the last")?;
    Ok(Box::new(move |lowering| reduce(lowering, node, reduction, count)))
}

/// Joins the last `axes` axes; they stay as 1 unless the node says otherwise.
pub(crate) fn reduce<'a>(
    lowering: &mut Lowering<'a>,
    node: &'a NodeProto,
    reduction: Reduction,
    axes: usize,
) -> ValueId {
    let keep_axes = node.int("keepdims", 1) != 0;
    let input = lowering.tensor(&node.input[0]);
    let op = Op::Reduce(Reduce { reduction, axes, keep_axes });
    lowering.step(floats(), &[input], node.op_type(), node, op)
}

/// The axes that a node reduces, as ONNX counts them; all if there are none.
pub(crate) fn reduced_axes(lowering: &Lowering, node: &NodeProto) -> Result<Vec<i64>, Refusal> {
    match node.given_input(1) {
        Some(name) => lowering.view.ints(name).ok_or(Refusal::of_node("its axes are not constant")),
        None => Ok(node.ints("axes").to_vec()),
    }
}

/// The last two of three axes.
fn example() -> Example {
    let mut net = Net::new();
    let x = net.feed_floats(&[3, 5, 7]);
    let attributes = [ints("axes", &[1, 2]), int("keepdims", 0)];
    let y = net.node("ReduceMean", &[&x], &attributes);
    net.ends_in_floats(&y)
}
