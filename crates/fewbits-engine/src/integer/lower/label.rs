//! From scores to labels: the integers behind a classifier.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::movement::VIEWS;
use crate::integer::lower::rules::Rewrite;
use crate::integer::lower::{Form, Lowering};
use crate::integer::refusal::{Refusal, check, input, only};
use crate::integer::state::ValueId;
use crate::integer::steps::label::{ArgMax, Positive, Table};

impl<'a> Lowering<'a> {
    /// Finds the place of the largest score.
    pub(super) fn arg_max(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["ArgMax"], node)?;
        let scores = input(node, 0)?;
        if !self.is_float(scores) {
            return Err(self.no_kernel_for(scores));
        }
        check(self.is_last_axis(node, 0), "its axis is not known to be the last")?;
        check(node.int("select_last_index", 0) == 0, "select_last_index is set")?;
        let keep_axis = node.int("keepdims", 1) != 0;
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(scores);
            let id = lowering.step(Form::Plain, &[input], "ArgMax", node, |output| ArgMax {
                input,
                output,
                keep_axis,
            });
            lowering.ints(id)
        }))
    }

    /// Looks one of the constant labels up, at a place that was computed.
    pub(super) fn label_of(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Gather"], node)?;
        self.is_of_labels(&node.output[0])?;
        check(node.int("axis", 0) == 0, "it looks up along another axis than the first")?;
        let labels = self.label_table(node);
        let labels = labels.ok_or(Refusal::of_node("it looks up no constant row of int64"))?;
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[1]);
            let id = lowering.step(Form::Plain, &[input], "labels", node, |output| Table {
                input,
                output,
                labels,
            });
            lowering.ints(id)
        }))
    }

    /// Whether scores are above a threshold, as an integer: a Cast of a comparison.
    pub(super) fn above_threshold(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        let (scores, threshold) = self.threshold(node).ok_or(Refusal::other())?;
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(scores);
            let what = "Greater + Cast";
            let id = lowering.step(Form::Plain, &[input], what, node, |output| Positive {
                input,
                output,
                threshold,
            });
            lowering.ints(id)
        }))
    }

    /// Casts what are 64-bit integers already.
    pub(super) fn cast_of_labels(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&["Cast"], node)?;
        self.is_of_labels(&node.output[0])?;
        if self.is_of_labels(input(node, 0)?).is_err() {
            return Err(Refusal::other());
        }
        Ok(Box::new(move |lowering| {
            let id = lowering.tensor(&node.input[0]);
            lowering.ints(id)
        }))
    }

    /// Gives labels another shape.
    pub(super) fn view_of_labels(&self, node: &'a NodeProto) -> Result<Rewrite<'a>, Refusal> {
        only(&VIEWS, node)?;
        self.is_of_labels(&node.output[0])?;
        let to = self.new_shape(node)?;
        Ok(Box::new(move |lowering| {
            let input = lowering.tensor(&node.input[0]);
            let id = lowering.reshape(input, to, node);
            lowering.ints(id)
        }))
    }

    /// Refuses other values than 64-bit integers.
    fn is_of_labels(&self, name: &str) -> Result<(), Refusal> {
        match self.types.get(name) {
            Some(DataType::Int64) => Ok(()),
            _ => Err(self.no_kernel_for(name)),
        }
    }

    /// Whether a comparison is computed with the Cast of its result.
    pub(super) fn is_inside_threshold(&self, node: &NodeProto) -> bool {
        let readers =
            node.output.first().map_or(&[][..], |output| self.net.index.consumers(output));
        let [reader] = readers else { return false };
        node.is("Greater") && self.threshold(&self.net.graph.node[*reader]).is_some()
    }

    /// Marks a value as one of 64-bit integers.
    pub(super) fn ints(&mut self, id: ValueId) -> ValueId {
        self.values[id.index()].is_ints = true;
        id
    }

    /// The constant labels among which a Gather chooses.
    fn label_table(&self, node: &NodeProto) -> Option<Vec<i64>> {
        let tensor = self.net.initializer(node.input.first()?)?;
        let index = self.types.get(node.input.get(1)?.as_str())?;
        let fits = tensor.element_type().ok()? == DataType::Int64
            && tensor.dims.len() == 1
            && *index == DataType::Int64
            && self.net.initializer(&node.input[1]).is_none();
        fits.then(|| tensor.ints().ok()).flatten()
    }

    /// The scores and the constant that they are compared with, before a Cast.
    fn threshold(&self, cast: &NodeProto) -> Option<(&'a str, f32)> {
        (cast.is("Cast") && cast.int("to", 0) == DataType::Int64 as i64).then_some(())?;
        let (_, greater) = self.net.producer(cast.input.first()?)?;
        (greater.is("Greater") && self.net.has_one_use(&cast.input[0])).then_some(())?;
        self.threshold_of(greater)
    }

    fn threshold_of<'n>(&self, greater: &'n NodeProto) -> Option<(&'n str, f32)> {
        let [scores, threshold] = greater.input.as_slice() else { return None };
        self.is_float(scores).then_some((scores.as_str(), self.net.scalar(threshold)?))
    }
}
