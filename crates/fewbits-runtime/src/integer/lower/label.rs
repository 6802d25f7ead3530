//! From scores to labels: the integers behind a classifier.

use fewbits_onnx::proto::{DataType, NodeProto};

use crate::integer::lower::{Form, Lowering};
use crate::integer::state::ValueId;
use crate::integer::steps::label::{ArgMax, Positive, Table};

impl<'a> Lowering<'a> {
    /// Whether a step of ours computes this node, which gives 64-bit integers.
    pub(super) fn is_label_node(&self, node: &NodeProto) -> bool {
        let is = |name: &str, wanted| self.types.get(name) == Some(&wanted);
        let Some(input) = node.input.first() else { return false };
        match node.op_type() {
            "ArgMax" => {
                is(input, DataType::Float)
                    && self.is_last_axis(node, 0)
                    && node.int("select_last_index", 0) == 0
            }
            "Gather" => node.int("axis", 0) == 0 && self.label_table(node).is_some(),
            "Cast" => {
                node.int("to", 0) == DataType::Int64 as i64
                    && (is(input, DataType::Int64) || self.threshold(node).is_some())
            }
            // Of a comparison, which is computed with the Cast of its result.
            "Greater" => self.net.has_one_use(&node.output[0]) && self.threshold_of(node).is_some(),
            _ => is(input, DataType::Int64) && self.new_shape(node).is_some(),
        }
    }

    /// The integer value that `node` gives, as a step of ours.
    pub(super) fn label(&mut self, name: &'a str, node: &'a NodeProto) -> Option<ValueId> {
        let (position, _) = self.net.producer(name)?;
        (self.own_float.contains(&position) && self.is_label_node(node)).then_some(())?;
        if let Some((scores, threshold)) = self.threshold(node) {
            let input = self.tensor(scores);
            let id = self.step(Form::Plain, &[input], "Greater + Cast", node, |output| Positive {
                input,
                output,
                threshold,
            });
            return Some(self.ints(id));
        }
        let table = if node.is("Gather") { self.label_table(node) } else { None };
        let input = self.tensor(match table {
            Some(_) => node.input.get(1)?,
            None => &node.input[0],
        });
        let id = match node.op_type() {
            "ArgMax" => {
                let keep = node.int("keepdims", 1) != 0;
                self.step(Form::Plain, &[input], "ArgMax", node, |output| ArgMax {
                    input,
                    output,
                    keep_axis: keep,
                })
            }
            "Gather" => {
                let labels = table?;
                self.step(Form::Plain, &[input], "labels", node, |output| Table {
                    input,
                    output,
                    labels,
                })
            }
            "Cast" => input,
            _ => {
                let to = self.new_shape(node)?;
                self.reshape(input, to, node)
            }
        };
        Some(self.ints(id))
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
