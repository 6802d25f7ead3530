//! What people are told of lowering: which nodes a step takes the place of, and why a node is left
//! to the float executor.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::proto::{DataType, NodeProto};
use fewbits_quant::Granularity;

use crate::integer::lower::movement::permutation;
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

    /// How many nodes the units take the place of. A node whose value no step writes counts with the step that computes what reads it.
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
        let bytes = self.bytes.get(name).copied().flatten().map(|b| b.id);
        let reordered = bytes.and_then(|id| self.other_form.get(&id).copied());
        let floats = self.tensors.get(name).copied();
        let dynamic = |form| self.dynamic.get(&(name, form)).copied();
        let ids = [floats, bytes, reordered, dynamic(Form::Plain), dynamic(Form::Image)];
        let mut units = ids.into_iter().flatten().filter_map(|id| self.values[id.index()].unit);
        units.find(|unit| live.contains(unit))
    }

    /// Why nodes were left to the float executor, each reason once.
    pub(crate) fn why(&self, nodes: &[usize]) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        for node in nodes.iter().map(|&n| &self.net.graph.node[n]) {
            let reason = format!("{}: {}", node.op_type(), self.why_not(node));
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    fn why_not(&self, node: &NodeProto) -> String {
        if !node.is_onnx() {
            return format!("operators of {} have no kernel here", node.domain());
        }
        match node.op_type() {
            "Conv" => self.why_not_conv(node),
            "MaxPool" | "AveragePool" | "GlobalAveragePool" => self.why_not_pool(node),
            "DynamicQuantizeLinear" => "it is not part of DynamicQuantizeLinear, MatMulInteger or \
                 ConvInteger, Cast and Mul by both scales with constant weights"
                .to_string(),
            "QuantizeLinear" | "DequantizeLinear" if self.net.byte_type(node).is_none() => {
                "its integers do not have 8 bits with one constant scale".to_string()
            }
            "QuantizeLinear" | "DequantizeLinear" => {
                "an operator without a kernel here reads or writes the integers".to_string()
            }
            _ => self.why_not_floats(node),
        }
    }

    fn why_not_conv(&self, node: &NodeProto) -> String {
        let weight = node.input.get(1).map_or("", String::as_str);
        let auto_pad = node.string("auto_pad", "NOTSET");
        match self.net.weight(weight) {
            None if !self.reads_bytes(node) => return self.why_not_bytes(node),
            None => return "its weights are not integers of up to 8 bits".to_string(),
            Some(quantized) => {
                let granularity = quantized.layout().granularity();
                match granularity {
                    Granularity::Tensor | Granularity::Channel { axis: 0 } => {}
                    _ => {
                        return format!(
                            "weights of {} bits {} are multiplied as floats",
                            quantized.codes().width(),
                            shared_by(granularity)
                        );
                    }
                }
                if quantized.layout().shape().len() > 4 {
                    return "it has more than 2 spatial axes".to_string();
                }
            }
        }
        match auto_pad.as_str() {
            "NOTSET" | "VALID" | "" => self.why_not_bytes(node),
            _ => format!("auto_pad is {auto_pad}"),
        }
    }

    fn why_not_pool(&self, node: &NodeProto) -> String {
        let auto_pad = node.string("auto_pad", "NOTSET");
        if !matches!(auto_pad.as_str(), "NOTSET" | "VALID" | "") {
            return format!("auto_pad is {auto_pad}");
        }
        if node.int("ceil_mode", 0) != 0 {
            return "ceil_mode is set".to_string();
        }
        if node.output.len() > 1 {
            return "it also gives positions".to_string();
        }
        self.why_not_bytes(node)
    }

    /// Of an operator that has a kernel on bytes alone.
    fn why_not_bytes(&self, node: &NodeProto) -> String {
        if !self.reads_bytes(node) {
            let before = node.input.first().and_then(|name| self.net.producer(name));
            return match before.is_some_and(|(_, n)| n.is("DequantizeLinear")) {
                true => "activations do not have 8 bits with one constant scale".to_string(),
                false => "activations are not quantized".to_string(),
            };
        }
        let output = node.output.first().map_or("", String::as_str);
        match self.leads_to_bytes(output) {
            false => "its result is not quantized, or also read as floats".to_string(),
            true => "not in this form on integers".to_string(),
        }
    }

    /// Of an operator that may have a kernel in floats, or in the integers of labels.
    fn why_not_floats(&self, node: &NodeProto) -> String {
        if self.can_be_ours(node) {
            return self.why_apart(node);
        }
        let output = node.output.first().map_or("", String::as_str);
        let reason = match node.op_type() {
            "Softmax" | "LayerNormalization" if node.output.len() > 1 => "it has several outputs",
            "Softmax" | "LayerNormalization" | "ArgMax" => "its axis is not known to be the last",
            "ReduceSum" | "ReduceMean" | "ReduceMax" => "it reduces other axes than the last",
            _ if !self.is_float(output) => {
                return match self.types.get(output) {
                    Some(t) => {
                        format!("{} values have no kernel here", format!("{t:?}").to_lowercase())
                    }
                    None => "the type of its values is not known".to_string(),
                };
            }
            "MatMul" => "a factor is a vector, or of unknown rank",
            "Gemm" => "transA is set",
            "Transpose" if permutation(node).is_none() => "it has no perm",
            "Reshape" | "Squeeze" | "Unsqueeze" => "the new shape is not constant",
            "Clip" => "its bounds are not constant",
            _ => "the operator has no integer or float kernel here",
        };
        reason.to_string()
    }

    /// Of a node that could have been a step of ours, had it been linked to integers.
    fn why_apart(&self, node: &NodeProto) -> String {
        if let Some(quantized) = node.input.iter().find_map(|name| self.net.weight(name)) {
            return format!(
                "weights of {} bits {} are multiplied as floats, and no step on integers is \
                 linked to it",
                quantized.codes().width(),
                shared_by(quantized.layout().granularity())
            );
        }
        let reason = match self.touches_integers() {
            true => "no step on integers is linked to it by nodes that have kernels",
            false => "no activation in the model is quantized",
        };
        reason.to_string()
    }

    fn touches_integers(&self) -> bool {
        let integer = ["QuantizeLinear", "DynamicQuantizeLinear"];
        self.net.graph.node.iter().any(|n| integer.iter().any(|op| n.is(op)))
    }

    /// Whether the first input is a DequantizeLinear of an activation, or elements of one moved.
    fn reads_bytes(&self, node: &NodeProto) -> bool {
        let mut name = node.input.first();
        while let Some((_, before)) = name.and_then(|name| self.net.producer(name)) {
            if before.is("DequantizeLinear") {
                return self.net.byte_type(before).is_some()
                    && before.input.first().is_some_and(|q| self.net.initializer(q).is_none());
            }
            let moves = before.is("MaxPool") || permutation(before).is_some();
            if !moves && self.new_shape(before).is_none() {
                return false;
            }
            name = before.input.first();
        }
        false
    }

    /// Whether a QuantizeLinear alone reads `name`, perhaps behind a Relu or Clip.
    fn leads_to_bytes(&self, name: &str) -> bool {
        let mut name = name;
        loop {
            if !self.net.has_one_use(name) {
                return false;
            }
            let reader = &self.net.graph.node[self.net.index.consumers(name)[0]];
            if reader.is("QuantizeLinear") {
                return self.net.byte_type(reader).is_some();
            }
            match (self.clip_bounds(reader), reader.output.first()) {
                (Some(_), Some(output)) => name = output,
                _ => return false,
            }
        }
    }
}

fn shared_by(granularity: Granularity) -> String {
    match granularity {
        Granularity::Tensor => "with one scale".to_string(),
        Granularity::Channel { axis } => format!("with scales along axis {axis}"),
        Granularity::Group { size, .. } => format!("in groups of {size}"),
    }
}
