//! Steps along the last axes: norms, Softmax, sums, means and maxima.

use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::{Refusal, check, input, only};
use crate::integer::state::ValueId;
use crate::integer::steps::float::{Norm, NormKind, Reduce, Reduction, Softmax};

/// Why a step along one axis does not take another.
const OTHER_AXIS: &str = "its axis is not known to be the last";

impl<'a> Lowering<'a> {
    /// Whether a node's `axis` is the last of its input.
    pub(super) fn is_last_axis(&self, node: &NodeProto, default: i64) -> bool {
        let axis = node.int("axis", default);
        axis == -1 || self.rank(&node.input[0]).is_some_and(|rank| axis + 1 == rank as i64)
    }

    /// Normalizes the last axis.
    pub(super) fn norm(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["LayerNormalization", "RMSNormalization"], node)?;
        check(node.output.len() == 1, "it has several outputs")?;
        check(self.is_last_axis(node, -1), OTHER_AXIS)?;
        let constant = |name: &str| {
            let floats = self.net.floats(name);
            Ok(floats.ok_or(Refusal::of_node("its scale or bias is not constant"))?.0)
        };
        let gain = constant(input(node, 1)?)?;
        let kind = match (node.is("LayerNormalization"), node.given_input(2)) {
            (true, Some(name)) => NormKind::Layer { bias: constant(name)? },
            (true, None) => NormKind::Layer { bias: Vec::new() },
            (false, _) => NormKind::RootMeanSquare,
        };
        let epsilon = node.float("epsilon", 1e-5);
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[0]);
            lowering.step(Form::Plain, &[input], node.op_type(), node, |output| Norm {
                input,
                output,
                kind,
                gain,
                epsilon,
            })
        }))
    }

    /// Computes a softmax along the last axis.
    pub(super) fn softmax(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Softmax"], node)?;
        // Before opset 13 all axes from `axis` on were one.
        let default = if self.net.opset >= 13 { -1 } else { 1 };
        check(self.is_last_axis(node, default), OTHER_AXIS)?;
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[0]);
            let what = "Softmax";
            lowering.step(Form::Plain, &[input], what, node, |output| Softmax { input, output })
        }))
    }

    /// Computes a sum, mean or maximum over the last axes.
    pub(super) fn reduction(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["ReduceSum", "ReduceMean", "ReduceMax"], node)?;
        let reduction = match node.op_type() {
            "ReduceSum" => Reduction::Sum,
            "ReduceMean" => Reduction::Mean,
            _ => Reduction::Max,
        };
        let axes = match node.input.get(1) {
            Some(name) => {
                self.net.ints(name).ok_or(Refusal::of_node("its axes are not constant"))?
            }
            None => node.ints("axes").to_vec(),
        };
        // Counted from the end.
        let rank = self.rank(input(node, 0)?).map(|rank| rank as i64);
        let from_end = |axis| if axis < 0 { Some(axis) } else { Some(axis - rank?) };
        let axes: Option<Vec<i64>> = axes.into_iter().map(from_end).collect();
        let mut axes = axes.ok_or(Refusal::of_node("the rank of what it reduces is not known"))?;
        axes.sort_unstable();
        let count = axes.len();
        let are_last = count > 0 && axes.into_iter().eq(-(count as i64)..0);
        check(are_last, "it reduces other axes than the last")?;
        Ok(Box::new(move |lowering| lowering.reduce(node, reduction, count)))
    }

    /// Joins the last `axes` axes; they stay as 1 unless the node says otherwise.
    pub(super) fn reduce(
        &mut self,
        node: &'a NodeProto,
        reduction: Reduction,
        axes: usize,
    ) -> ValueId {
        let keep_axes = node.int("keepdims", 1) != 0;
        let input = self.tensor(&node.input[0]);
        self.step(Form::Plain, &[input], node.op_type(), node, |output| Reduce {
            input,
            output,
            reduction,
            axes,
            keep_axes,
        })
    }
}
