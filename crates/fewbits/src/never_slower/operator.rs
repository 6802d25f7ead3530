//! The operators that a plan puts on integers, and how one of them is left float.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;

use crate::layers::is_product;
use crate::methods::bias_correction;
use crate::plan::{ActivationBecomes, Becomes, Plan, Readers};

/// A product that a plan computes on integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operator {
    /// The node's name, or its first output.
    pub label: String,
    /// Its position in the graph.
    pub node: usize,
    /// The activation that it reads.
    pub value: String,
    /// The weight that it reads.
    pub weight: String,
}

/// The products that read a quantized activation and a quantized weight. A weight that several nodes
/// read makes one operator, of the first of them: it can only be left float for all.
pub(crate) fn operators(model: &Model, plan: &Plan) -> Vec<Operator> {
    let weights: HashSet<&str> = plan.quantized().map(|(t, _)| t.tensor.as_str()).collect();
    let values: HashSet<&str> = plan
        .activations
        .iter()
        .filter(|a| !matches!(a.becomes, ActivationBecomes::Float(_)))
        .map(|a| a.value.as_str())
        .collect();
    let mut seen = HashSet::new();
    let nodes = model.graph().node.iter().enumerate().filter(|(_, node)| is_product(node));
    nodes
        .filter_map(|(position, node)| {
            let (value, weight) = (node.input.first()?, node.input.get(1)?);
            let on_integers = values.contains(value.as_str()) && weights.contains(weight.as_str());
            (on_integers && seen.insert(weight)).then(|| Operator {
                label: node.label().to_string(),
                node: position,
                value: value.clone(),
                weight: weight.clone(),
            })
        })
        .collect()
}

/// The plan with the operators of one weight in floats: the weight stays float with the bias that
/// made up for its rounding, and so do the activations that nothing on integers needs any more.
pub(crate) fn leave_float(model: &Model, mut plan: Plan, weight: &str, why: &str) -> Plan {
    for tensor in plan.tensors.iter_mut().filter(|t| t.tensor == weight) {
        tensor.becomes = Becomes::Float(why.to_string());
    }
    bias_correction::take_back(&mut plan.adjustments, model, weight);
    let needed: HashMap<String, Readers> =
        plan.placement(model).values.into_iter().map(|v| (v.value, v.readers)).collect();
    let index = Index::new(model.graph());
    let weights: HashSet<String> = plan.quantized().map(|(t, _)| t.tensor.clone()).collect();
    let multiplied = |value: &str| {
        index.consumers(value).iter().any(|&reader| {
            let node = &model.graph().node[reader];
            is_product(node) && node.input.get(1).is_some_and(|weight| weights.contains(weight))
        })
    };
    for activation in &mut plan.activations {
        let kept = match (&activation.becomes, needed.get(&activation.value)) {
            (ActivationBecomes::Float(_), _) => continue,
            // Only products read what is quantized dynamically.
            (ActivationBecomes::Dynamic, _) => multiplied(&activation.value),
            (ActivationBecomes::Static { .. }, Some(&readers)) => {
                activation.readers = readers;
                true
            }
            (ActivationBecomes::Static { .. }, None) => false,
        };
        if !kept {
            activation.becomes = ActivationBecomes::Float(why.to_string());
        }
    }
    plan
}
