//! Constants of a model that hold NaN or an infinity by mistake.

use std::collections::{HashMap, HashSet};
use std::fmt;

use fewbits_onnx::Model;
use fewbits_onnx::facts::{ReadAs, held_tensor};
use fewbits_onnx::graph::Index;
use fewbits_onnx::proto::{AttributeProto, NodeProto, TensorProto};

use crate::Result;
use crate::layers::{Constant, Role, constants};

/// An element of a constant that is not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFinite {
    /// The constant.
    pub tensor: String,
    /// The position of the first such element, counted through the whole tensor.
    pub element: usize,
    /// What it is.
    pub value: f32,
    /// What depends on it.
    pub reach: Reach,
}

/// What an element that is not finite spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whatever is computed with the constant.
    Everything,
    /// What reads the element: another row of a table, or the other side of a choice, may be fine.
    Readers,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.value.is_nan() { "NaN" } else { "infinite" };
        write!(f, "element {} of '{}' is {what}", self.element, self.tensor)
    }
}

/// The constants among those of `names` that are not finite: those with a NaN, the weights, biases and scales
/// of norms and products with an infinity, and what adds one above all numbers. Masks are infinite below
/// them, and bounds may be either.
///
/// # Errors
/// If a tensor cannot be read.
pub fn not_finite(model: &Model, names: impl Fn(&str) -> bool) -> Result<Vec<NotFinite>> {
    let mut found = Vec::new();
    let graph = model.graph();
    let index = Index::new(graph);
    for constant in constants(graph).into_iter().filter(|constant| names(&constant.tensor)) {
        let Some(tensor) = index.initializer(&constant.tensor) else { continue };
        let values = model.floats_released(tensor)?;
        let is_mistake = |x: &f32| x.is_nan() || (x.is_infinite() && !takes(&constant, *x));
        if let Some(element) = values.iter().position(is_mistake) {
            let reads = |&node: &usize| graph.node[node].input.contains(&constant.tensor);
            let reach = match index.consumers(&constant.tensor).iter().any(reads) {
                true => reach(&constant),
                // Another branch may be taken.
                false => Reach::Readers,
            };
            let tensor = constant.tensor;
            found.push(NotFinite { tensor, element, value: values[element], reach });
        }
    }
    let mut inner = Inner { model, names: &names, found };
    for node in &graph.node {
        inner.subgraphs(node, &Scope::new())?;
    }
    for function in &model.proto().functions {
        inner.nodes(&function.node, Scope::new())?;
    }
    Ok(inner.found)
}

/// The constants that nodes see beside those of the main graph, by name.
type Scope<'a> = HashMap<&'a str, &'a TensorProto>;

/// Looks for those of subgraphs and functions.
struct Inner<'a, F> {
    model: &'a Model,
    names: &'a F,
    found: Vec<NotFinite>,
}

impl<F: Fn(&str) -> bool> Inner<'_, F> {
    fn subgraphs(&mut self, node: &NodeProto, around: &Scope) -> Result<()> {
        node.attribute.iter().flat_map(AttributeProto::subgraphs).try_for_each(|graph| {
            let own = graph.initializer.iter().map(|tensor| (tensor.name(), tensor));
            self.nodes(&graph.node, around.clone().into_iter().chain(own).collect())
        })
    }

    fn nodes<'a>(&mut self, nodes: &'a [NodeProto], mut scope: Scope<'a>) -> Result<()> {
        for node in nodes {
            scope.extend(node.output.first().map(String::as_str).zip(held_tensor(node)));
            for (input, name) in node.input.iter().enumerate() {
                let tensor = scope.get(name.as_str()).filter(|tensor| tensor.is_float());
                let known = self.found.iter().any(|known| known.tensor == *name);
                let Some(tensor) = tensor.filter(|_| !known && (self.names)(name)) else {
                    continue;
                };
                let values = self.model.floats_released(tensor)?;
                let is_weight = ReadAs::of(node, input).axes(tensor.dims.len()).is_some();
                let is_mistake = |x: &f32| x.is_nan() || (x.is_infinite() && is_weight);
                if let Some(element) = values.iter().position(is_mistake) {
                    // Another branch may be taken, and a function may not be called.
                    let (tensor, reach) = (name.clone(), Reach::Readers);
                    self.found.push(NotFinite { tensor, element, value: values[element], reach });
                }
            }
            self.subgraphs(node, &scope)?;
        }
        Ok(())
    }
}

/// Whether this infinity may be meant.
fn takes(constant: &Constant, infinity: f32) -> bool {
    let is_read = |read_as| constant.read_as.contains(&read_as);
    let is_mask = infinity < 0.0 || !is_read(ReadAs::Summand);
    match constant.role {
        Role::Weight(_) => false,
        Role::Bias => !is_read(ReadAs::Bias) && is_mask,
        Role::Other => !is_read(ReadAs::OfNorm) && !is_read(ReadAs::Factor) && is_mask,
    }
}

fn reach(constant: &Constant) -> Reach {
    match constant.role {
        Role::Weight(_) if constant.is_table() => Reach::Readers,
        Role::Weight(_) | Role::Bias => Reach::Everything,
        Role::Other if constant.read_as.contains(&ReadAs::OfNorm) => Reach::Everything,
        Role::Other => Reach::Readers,
    }
}

/// The one of the constants that are not finite that `value` is computed from.
///
/// # Errors
/// Those of [`not_finite`].
pub fn behind(model: &Model, value: &str) -> Result<Option<NotFinite>> {
    let graph = model.graph();
    let index = Index::new(graph);
    let mut before: HashSet<&str> = HashSet::from([value]);
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        let Some(producer) = index.producer(value) else { continue };
        let node = &graph.node[producer];
        let mut read = |name| {
            if before.insert(name) {
                open.push(name);
            }
        };
        node.input.iter().for_each(|name| read(name));
        let subgraphs = node.attribute.iter().flat_map(AttributeProto::subgraphs);
        subgraphs.for_each(|graph| graph.for_each_use(&mut |name| read(name)));
    }
    Ok(not_finite(model, |name| before.contains(name))?.into_iter().next())
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::{FunctionProto, GraphProto};

    use super::*;

    fn model(spoiled: &str, value: f32) -> Model {
        let tensor = |name: &str, shape: &[usize]| {
            let mut values = vec![1.0; shape.iter().product()];
            if name == spoiled {
                values[1] = value;
            }
            TensorProto::from_f32(name, shape, &values)
        };
        let graph = GraphProto {
            node: vec![
                NodeProto::new("Gather", &["table", "ids"], &["a"]),
                NodeProto::new("LayerNormalization", &["a", "scale"], &["b"]),
                NodeProto::new("Gemm", &["b", "weight", "bias"], &["c"]),
                NodeProto::new("Add", &["c", "mask"], &["d"]),
                NodeProto::new("MatMul", &["e", "other"], &["f"]),
            ],
            initializer: vec![
                tensor("table", &[3, 2]),
                tensor("scale", &[2]),
                tensor("weight", &[2, 2]),
                tensor("bias", &[2]),
                tensor("mask", &[2]),
                tensor("other", &[2, 2]),
            ],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    #[test]
    fn what_is_not_finite_is_found_wherever_it_is_a_mistake() {
        for (name, reach) in [
            ("table", Reach::Readers),
            ("scale", Reach::Everything),
            ("weight", Reach::Everything),
            ("bias", Reach::Everything),
            ("mask", Reach::Everything),
        ] {
            let found = not_finite(&model(name, f32::NAN), |_| true).unwrap();
            let [found] = found.as_slice() else { panic!("{name}: {found:?}") };
            assert_eq!((found.tensor.as_str(), found.element, found.reach), (name, 1, reach));
            assert_eq!(found.to_string(), format!("element 1 of '{name}' is NaN"));
            let below = not_finite(&model(name, f32::NEG_INFINITY), |_| true).unwrap();
            assert_eq!(below.is_empty(), name == "mask", "{name}");
            assert_eq!(
                not_finite(&model(name, f32::INFINITY), |_| true).unwrap().len(),
                1,
                "{name}"
            );
        }
        assert_eq!(not_finite(&model("", f32::NAN), |_| true).unwrap(), []);
    }

    #[test]
    fn what_branches_read_is_found_in_them_and_around() {
        let spoiled = |name: &str| TensorProto::from_f32(name, &[1, 2], &[1.0, f32::NAN]);
        let node = |inputs: &[&str]| NodeProto::new("MatMul", inputs, &["y"]);
        let branch = |name: &str, graph| AttributeProto {
            g: Some(graph),
            ..AttributeProto::of_int(name, 0)
        };
        let constant = NodeProto::new("Constant", &[], &["third"])
            .with(AttributeProto::of_tensor("value", spoiled("")));
        let inner =
            GraphProto { node: vec![constant, node(&["x", "third"])], ..GraphProto::default() };
        let taken = GraphProto {
            node: vec![
                node(&["x", "first"]),
                node(&["x", "second"]),
                NodeProto::new("If", &["c"], &["z"]).with(branch("then_branch", inner)),
            ],
            initializer: vec![spoiled("second")],
            ..GraphProto::default()
        };
        let graph = GraphProto {
            node: vec![NodeProto::new("If", &["c"], &["y"]).with(branch("then_branch", taken))],
            initializer: vec![spoiled("first"), spoiled("unread")],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, 17);
        let constant = NodeProto::new("Constant", &[], &["fourth"])
            .with(AttributeProto::of_tensor("value", spoiled("")));
        let node = vec![constant, node(&["x", "fourth"])];
        model.proto_mut().functions.push(FunctionProto { node, ..FunctionProto::default() });
        let found = not_finite(&model, |_| true).unwrap();
        let names: Vec<&str> = found.iter().map(|found| found.tensor.as_str()).collect();
        assert_eq!(names, ["first", "second", "third", "fourth"]);
        assert!(found.iter().all(|found| (found.element, found.reach) == (1, Reach::Readers)));
        assert_eq!(not_finite(&model, |name| name == "third").unwrap().len(), 1);
    }

    #[test]
    fn only_what_a_value_is_computed_from_is_to_blame() {
        for (name, blamed) in [("table", true), ("bias", true), ("mask", false), ("other", false)] {
            let found = behind(&model(name, f32::NAN), "c").unwrap();
            assert_eq!(found.is_some(), blamed, "{name}");
        }
    }
}
