//! What people are told of steps: where they compute, and which nodes they take the place of.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::proto::DataType;

use crate::lower::Lowering;
use crate::op::Op;
use crate::program::{Backend, ValueId};

impl Lowering<'_> {
    /// Notes in the steps `live` where they compute and how many nodes each takes the place of.
    pub(crate) fn account(&mut self, live: &HashSet<usize>, constant: &HashSet<usize>) {
        // Labels count as floats: no step on integers makes them.
        let integers = [DataType::Int8, DataType::Uint8, DataType::Int32];
        let is_integer = |name: &str| self.types.get(name).is_some_and(|t| integers.contains(t));
        let floats: HashSet<ValueId> =
            self.tensors.iter().filter(|(name, _)| !is_integer(name)).map(|(_, &id)| id).collect();
        let counts = self.nodes_of_steps(live, constant);
        for &position in live {
            let step = &mut self.steps[position];
            step.nodes = counts.get(&position).copied().unwrap_or(0);
            let mut values = step.inputs.iter().chain(step.outputs.first());
            let may_be_floats = !matches!(step.op, Op::MatMul(_) | Op::Conv(_) | Op::Quantize(_));
            if may_be_floats && values.all(|id| floats.contains(id)) {
                step.backend = Backend::Floats;
            }
        }
    }

    /// How many nodes the steps take the place of. A node whose value no step writes counts with the
    /// step that computes what reads it.
    fn nodes_of_steps(
        &self,
        live: &HashSet<usize>,
        constant: &HashSet<usize>,
    ) -> HashMap<usize, usize> {
        let graph = self.view.graph;
        let mut step_of: HashMap<usize, usize> = HashMap::new();
        let mut counts = HashMap::new();
        for (position, node) in graph.node.iter().enumerate().rev() {
            if constant.contains(&position) || self.rest.contains(&position) {
                continue;
            }
            let outputs = || node.output.iter().map(String::as_str);
            let written = outputs().find_map(|name| self.step_that_writes(name, live));
            let step = written.or_else(|| {
                let mut readers = outputs().flat_map(|name| self.view.index.consumers(name));
                readers.find_map(|reader| step_of.get(reader).copied())
            });
            if let Some(step) = step {
                step_of.insert(position, step);
                *counts.entry(step).or_default() += 1;
            }
        }
        counts
    }

    fn step_that_writes(&self, name: &str, live: &HashSet<usize>) -> Option<usize> {
        let bytes = self.bytes.get(name).and_then(|bytes| Some(bytes.as_ref().ok()?.id));
        let reordered = bytes.and_then(|id| self.other_layout.get(&id).copied());
        let floats = self.tensors.get(name).copied();
        let dynamic = |are_images| self.dynamic.get(&(name, are_images)).copied();
        let ids = [floats, bytes, reordered, dynamic(false), dynamic(true)];
        let mut steps = ids.into_iter().flatten().filter_map(|id| self.step_of[id.index()]);
        steps.find(|step| live.contains(step))
    }
}
