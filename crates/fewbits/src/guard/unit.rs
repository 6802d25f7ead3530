//! What of a plan can be left float by itself.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;

use crate::methods::bias_correction;
use crate::never_slower::leave_float;
use crate::plan::{ActivationBecomes, Plan};
use crate::sensitivity::Change;

/// A part of a layer that a plan quantizes and that can be left float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A weight. Its products compute in float then.
    Weight {
        /// Its name.
        tensor: String,
        /// How many values it holds.
        elements: usize,
    },
    /// Activations that share a scale. Products that read them compute in float then, with weights
    /// that stay integers in the file.
    Activations {
        /// Their names.
        values: Vec<String>,
    },
}

/// All units of a plan: weights in the order of the plan, then activations in theirs. `adjusted` is the
/// prepared model with the plan's adjustments.
pub(super) fn units(adjusted: &Model, plan: &Plan) -> Vec<Unit> {
    let weights = plan.quantized().map(|(planned, _)| Unit::Weight {
        tensor: planned.tensor.clone(),
        elements: planned.shape.iter().product(),
    });
    let mut units: Vec<Unit> = weights.collect();
    let groups: HashMap<String, usize> =
        plan.placement(adjusted).values.into_iter().map(|v| (v.value, v.group)).collect();
    let mut position: HashMap<usize, usize> = HashMap::new();
    for planned in &plan.activations {
        if matches!(planned.becomes, ActivationBecomes::Float(_)) {
            continue;
        }
        let value = planned.value.clone();
        let at = groups.get(&value).and_then(|group| position.get(group).copied());
        match at.map(|at| &mut units[at]) {
            Some(Unit::Activations { values }) => values.push(value),
            _ => {
                if let Some(&group) = groups.get(&value) {
                    position.insert(group, units.len());
                }
                units.push(Unit::Activations { values: vec![value] });
            }
        }
    }
    units
}

impl Unit {
    /// The names of its tensors.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Unit::Weight { tensor, .. } => vec![tensor],
            Unit::Activations { values } => values.iter().map(String::as_str).collect(),
        }
    }

    /// How many values of weights it holds.
    pub fn elements(&self) -> usize {
        match self {
            Unit::Weight { elements, .. } => *elements,
            Unit::Activations { .. } => 0,
        }
    }

    /// The layers that it belongs to, by the first of them: the node that reads it first.
    pub fn layer(&self, adjusted: &Model) -> Option<String> {
        let graph = adjusted.graph();
        let index = Index::new(graph);
        let readers = |name: &str| index.consumers(name).iter().min().copied();
        let first = self.names().into_iter().filter_map(readers).min()?;
        Some(graph.node[first].label().to_string())
    }

    /// What the plan does to each of its tensors. A weight takes along the bias that is corrected for it.
    pub fn changes(&self, adjusted: &Model, plan: &Plan) -> Vec<(String, Change)> {
        let change = |name: &str| match self {
            Unit::Weight { .. } => {
                let planned = plan.tensors.iter().find(|t| t.tensor == name)?;
                let bias = bias_correction::bias_of(adjusted, name).and_then(|bias| {
                    let tensor = adjusted.graph().find_initializer(&bias)?;
                    Some((bias, adjusted.floats_released(tensor).ok()?))
                });
                planned.integers().map(|integers| Change::Weight { integers, bias })
            }
            Unit::Activations { .. } => {
                let planned = plan.activations.iter().find(|a| a.value == name)?;
                match planned.becomes {
                    ActivationBecomes::Static { scheme, low, high, .. } => {
                        Some(Change::Activation { scheme, low, high })
                    }
                    ActivationBecomes::Dynamic => Some(Change::DynamicActivation),
                    ActivationBecomes::Float(_) => None,
                }
            }
        };
        let names = self.names().into_iter();
        names.filter_map(|name| Some((name.to_string(), change(name)?))).collect()
    }

    /// The plan with this left float.
    pub fn leave_float(&self, adjusted: &Model, mut plan: Plan, why: &str) -> Plan {
        match self {
            Unit::Weight { tensor, .. } => leave_float(adjusted, plan, tensor, why),
            Unit::Activations { values } => {
                for planned in &mut plan.activations {
                    let quantized = !matches!(planned.becomes, ActivationBecomes::Float(_));
                    if quantized && values.contains(&planned.value) {
                        planned.becomes = ActivationBecomes::Float(why.to_string());
                    }
                }
                plan
            }
        }
    }
}
