//! What people are told of steps: where they compute, and which nodes they take the place of.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::proto::DataType;

use crate::integer::lower::{Form, Lowering};
use crate::integer::program::{AnyStep, Place};
use crate::integer::state::ValueId;

impl Lowering<'_> {
    /// Notes in the units `live` where they compute and how many nodes each takes the place of.
    pub(crate) fn account(&mut self, live: &HashSet<usize>, constant: &HashSet<usize>) {
        // Labels count as floats: no step on integers makes them.
        let integers = [DataType::Int8, DataType::Uint8, DataType::Int32];
        let is_integer = |name: &str| self.types.get(name).is_some_and(|t| integers.contains(t));
        let floats: HashSet<ValueId> =
            self.tensors.iter().filter(|(name, _)| !is_integer(name)).map(|(_, &id)| id).collect();
        let counts = self.nodes_of_units(live, constant);
        for &position in live {
            let unit = &mut self.units[position];
            unit.nodes = counts.get(&position).copied().unwrap_or(0);
            let mut values = unit.inputs.iter().chain(unit.outputs.first());
            let may_be_floats = matches!(unit.step, AnyStep::Other(_) | AnyStep::Convolution(_));
            if may_be_floats && values.all(|id| floats.contains(id)) {
                unit.place = Place::Floats;
            }
        }
    }

    /// How many nodes the units take the place of. A node whose value no step writes counts with the
    /// step that computes what reads it.
    fn nodes_of_units(
        &self,
        live: &HashSet<usize>,
        constant: &HashSet<usize>,
    ) -> HashMap<usize, usize> {
        let graph = self.net.graph;
        let mut unit_of: HashMap<usize, usize> = HashMap::new();
        let mut counts = HashMap::new();
        for (position, node) in graph.node.iter().enumerate().rev() {
            if constant.contains(&position) || self.rest.contains(&position) {
                continue;
            }
            let outputs = || node.output.iter().map(String::as_str);
            let written = outputs().find_map(|name| self.unit_that_writes(name, live));
            let unit = written.or_else(|| {
                let mut readers = outputs().flat_map(|name| self.net.index.consumers(name));
                readers.find_map(|reader| unit_of.get(reader).copied())
            });
            if let Some(unit) = unit {
                unit_of.insert(position, unit);
                *counts.entry(unit).or_default() += 1;
            }
        }
        counts
    }

    fn unit_that_writes(&self, name: &str, live: &HashSet<usize>) -> Option<usize> {
        let bytes = self.bytes.get(name).and_then(|bytes| Some(bytes.as_ref().ok()?.id));
        let reordered = bytes.and_then(|id| self.other_form.get(&id).copied());
        let floats = self.tensors.get(name).copied();
        let dynamic = |form| self.dynamic.get(&(name, form)).copied();
        let ids = [floats, bytes, reordered, dynamic(Form::Plain), dynamic(Form::Image)];
        let mut units = ids.into_iter().flatten().filter_map(|id| self.values[id.index()].unit);
        units.find(|unit| live.contains(unit))
    }
}
