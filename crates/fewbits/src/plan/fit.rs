//! Whether a plan belongs to a model.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::passes::qdq::scaled_name;

use super::{ActivationBecomes, Edit, Plan};
use crate::nearest::nearest;
use crate::{Error, Result};

impl Plan {
    /// Checks that a prepared model has all that the plan names, be it to become integers or to stay
    /// float.
    ///
    /// # Errors
    /// If it names a tensor or value that the model does not have, or one of another shape, or one
    /// twice.
    pub fn check_fits(&self, model: &Model) -> Result<()> {
        match self.misfit(model)? {
            Some(reason) => Err(Error::PlanMismatch { reason }),
            None => Ok(()),
        }
    }

    fn misfit(&self, model: &Model) -> Result<Option<String>> {
        let graph = model.graph();
        let constants: HashMap<&str, _> =
            graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let no_constant = |name: &str| missing("constant tensor", name, constants.keys().copied());
        let mut decided = HashSet::new();
        for planned in &self.tensors {
            let name = planned.tensor.as_str();
            let Some(tensor) = constants.get(name) else { return Ok(Some(no_constant(name))) };
            let shape = tensor.shape()?;
            if shape != planned.shape {
                let of = &planned.shape;
                return Ok(Some(format!(
                    "tensor '{name}' has shape {shape:?}, the plan says {of:?}"
                )));
            }
            if !decided.insert(name) {
                return Ok(Some(format!("it decides about tensor '{name}' twice")));
            }
        }
        let reduced = self.reduced_range.iter().map(|reduced| reduced.tensor.as_str());
        if let Some(name) = reduced.into_iter().find(|name| !constants.contains_key(name)) {
            return Ok(Some(no_constant(name)));
        }
        let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
        let given = graph.input.iter().map(|input| input.name());
        let mut values: HashSet<&str> = made.chain(given).filter(|name| !name.is_empty()).collect();
        let mut scaled = Vec::new();
        for adjustment in &self.adjustments {
            match &adjustment.edit {
                Edit::Multiply { tensor, .. } | Edit::Add { tensor, .. } => {
                    if !constants.contains_key(tensor.as_str()) {
                        return Ok(Some(no_constant(tensor)));
                    }
                }
                Edit::MultiplyForProducts { value } => {
                    if !values.contains(value.as_str()) {
                        return Ok(Some(missing("value", value, values)));
                    }
                    scaled.push(scaled_name(graph, value));
                }
            }
        }
        values.extend(scaled.iter().map(String::as_str));
        let mut decided = HashSet::new();
        for planned in &self.activations {
            let name = planned.value.as_str();
            if !values.contains(name) {
                return Ok(Some(missing("value", name, values)));
            }
            if !decided.insert(name) {
                return Ok(Some(format!("it decides about value '{name}' twice")));
            }
            if let ActivationBecomes::Static { low, high, .. } = planned.becomes
                && !(low.is_finite() && high.is_finite() && low <= high)
            {
                return Ok(Some(format!("value '{name}' has no range from {low} to {high}")));
            }
        }
        Ok(None)
    }
}

fn missing<'a>(what: &str, name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = nearest(name, names);
    match nearest.is_empty() {
        true => format!("the model has no {what} '{name}'"),
        false => format!("the model has no {what} '{name}'; the nearest: {}", nearest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
    use serde_json::json;

    use super::*;

    fn model() -> Model {
        let graph = GraphProto {
            node: vec![NodeProto::new("MatMul", &["x", "weight"], &["scores"])],
            input: vec![ValueInfoProto::tensor("x", 1, &[None, Some(2)])],
            output: vec![ValueInfoProto::tensor("scores", 1, &[None, Some(3)])],
            initializer: vec![TensorProto::from_f32("weight", &[2, 3], &[0.0; 6])],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn why(tensors: serde_json::Value, activations: serde_json::Value) -> Option<String> {
        let plan = json!({"fewbits_plan": 1, "tensors": tensors, "activations": activations});
        let plan = Plan::from_json(&plan.to_string()).unwrap();
        plan.check_fits(&model()).err().map(|error| error.to_string())
    }

    #[test]
    fn what_is_not_there_is_refused_whatever_it_is_to_become() {
        let tensor = |name: &str, shape: &[usize]| json!({"tensor": name, "shape": shape, "read_by": ["MatMul"], "float": "asked for"});
        let value =
            |name: &str| json!({"value": name, "readers": "products", "float": "asked for"});
        assert_eq!(why(json!([tensor("weight", &[2, 3])]), json!([value("x")])), None);
        let refused = |tensors: serde_json::Value, values: serde_json::Value, part: &str| {
            let why = why(tensors, values).unwrap();
            assert!(why.contains(part), "{why}");
        };
        refused(json!([tensor("wieght", &[2, 3])]), json!([]), "the nearest: 'weight'");
        refused(json!([tensor("weight", &[3, 2])]), json!([]), "shape [2, 3]");
        let twice = json!([tensor("weight", &[2, 3]), tensor("weight", &[2, 3])]);
        refused(twice, json!([]), "'weight' twice");
        refused(json!([]), json!([value("score")]), "the nearest: 'scores'");
        refused(json!([]), json!([value("x"), value("x")]), "'x' twice");
    }
}
