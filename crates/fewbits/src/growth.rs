//! Files that do not grow: what of a plan would make a file larger than its source is left float.
//!
//! Scales, zero points and the operators beside them take bytes that few weights do not pay for. What
//! grows a file is found by building it without each part of the plan, so sizes are exact. All sizes
//! are those of [`Model::encoded_bytes`].

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_onnx::passes::single_precision::{constant_types, store_as_before};
use fewbits_onnx::proto::DataType;
use fewbits_quant::{QTensor, Rounding};
use rayon::prelude::*;

use crate::Result;
use crate::adjust::adjust;
use crate::apply::{weights_of, write};
use crate::layers::is_product;
use crate::never_slower::leave_float;
use crate::plan::{ActivationBecomes, ActivationUse, Becomes, Edit, Plan};
use crate::progress::Silent;

/// A source of at most so many bytes may grow.
const SMALL_BYTES: u64 = 16_000;
/// By so many.
const SMALL_GROWTH_BYTES: u64 = 1_000;

/// The bytes that a file made from one of `source_bytes` may take: no more than that, but for small
/// ones.
pub fn most_bytes(source_bytes: u64) -> u64 {
    match source_bytes <= SMALL_BYTES {
        true => source_bytes + SMALL_GROWTH_BYTES,
        false => source_bytes,
    }
}

/// The bytes of a model as it came: of its file, or of the one it would be.
pub(crate) fn source_bytes(source: &Model) -> u64 {
    match source.file_bytes() {
        0 => source.encoded_bytes(),
        bytes => bytes,
    }
}

/// The plan of a model, prepared from `source`, with all that left float which makes its file larger than `most`
/// bytes, those parts first that grow it most. A plan that is small enough stays as it is; one that
/// cannot be made so quantizes nothing.
///
/// # Errors
/// If the plan does not fit the model.
pub(crate) fn without_growth(
    source: &Model,
    prepared: &Model,
    plan: Plan,
    most: u64,
) -> Result<Plan> {
    if plan.why_nothing().is_some() || !may_exceed(prepared, &plan, most) {
        return Ok(plan);
    }
    let Trimmed { plan, bytes } = trim(source, prepared, plan, most)?;
    if bytes <= most {
        return Ok(plan);
    }
    // Operators that scale activations stay as long as these are quantized.
    let why = larger(bytes, most);
    let mut weights_alone = plan;
    weights_alone.adjustments.clear();
    for activation in &mut weights_alone.activations {
        if !matches!(activation.becomes, ActivationBecomes::Float(_)) {
            activation.becomes = ActivationBecomes::Float(why.clone());
        }
    }
    let Trimmed { mut plan, bytes } = trim(source, prepared, weights_alone, most)?;
    if bytes > most {
        let why = larger(bytes, most);
        for tensor in plan.tensors.iter_mut().filter(|t| t.becomes.scheme().is_some()) {
            tensor.becomes = Becomes::Float(why.clone());
        }
    }
    Ok(plan)
}

fn larger(bytes: u64, most: u64) -> String {
    format!("with it the file would take {bytes} bytes, more than the {most} that it may")
}

/// A plan, and the bytes of its file.
struct Trimmed {
    plan: Plan,
    bytes: u64,
}

/// Leaves parts of a plan float until its file takes at most `most` bytes, or nothing is left that
/// makes it larger.
fn trim(source: &Model, prepared: &Model, mut plan: Plan, most: u64) -> Result<Trimmed> {
    let draft = Draft::new(source, prepared, &plan)?;
    let mut bytes = draft.bytes(&plan)?;
    while bytes > most {
        // A weight pays for itself more often than the operators beside it.
        let mut growing = draft.growing(&plan, bytes, Part::activations(&plan))?;
        if growing.is_empty() {
            growing = draft.growing(&plan, bytes, Part::weights(&plan))?;
        }
        if growing.is_empty() {
            break;
        }
        let trimmed = fewest(&draft, &plan, &growing, most)?;
        (plan, bytes) = (trimmed.plan, trimmed.bytes);
    }
    Ok(Trimmed { plan, bytes })
}

/// The plan with the fewest of `growing`, from the first on, left out that are enough; with all of them
/// if none are.
fn fewest(draft: &Draft, plan: &Plan, growing: &[(Part, u64)], most: u64) -> Result<Trimmed> {
    let without = |count: usize| {
        let left_out = growing[..count].iter().fold(plan.clone(), |plan, (part, cost)| {
            let why = format!(
                "its scales and operators would make the file {cost} bytes larger than it is as float"
            );
            part.left_out(&draft.adjusted, &plan, &why)
        });
        let bytes = draft.bytes(&left_out)?;
        Ok::<_, crate::Error>(Trimmed { plan: left_out, bytes })
    };
    let (mut too_few, mut enough) = (0, growing.len());
    let mut best = without(enough)?;
    if best.bytes > most {
        return Ok(best);
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        let trial = without(middle)?;
        match trial.bytes <= most {
            true => (enough, best) = (middle, trial),
            false => too_few = middle,
        }
    }
    Ok(best)
}

/// What can be left float by itself.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// A weight, by its position in the plan, and the activations that nothing else needs.
    Weight(usize),
    /// An activation, by its position in the plan.
    Activation(usize),
}

impl Part {
    fn weights(plan: &Plan) -> Vec<Part> {
        let weights = plan.tensors.iter().enumerate();
        let quantized = weights.filter(|(_, t)| t.becomes.scheme().is_some());
        quantized.map(|(i, _)| Part::Weight(i)).collect()
    }

    fn activations(plan: &Plan) -> Vec<Part> {
        let activations = plan.activations.iter().enumerate();
        let quantized =
            activations.filter(|(_, a)| !matches!(a.becomes, ActivationBecomes::Float(_)));
        quantized.map(|(i, _)| Part::Activation(i)).collect()
    }

    fn left_out(self, adjusted: &Model, plan: &Plan, why: &str) -> Plan {
        let mut plan = plan.clone();
        match self {
            Part::Weight(i) => {
                let weight = plan.tensors[i].tensor.clone();
                leave_float(adjusted, plan, &weight, why)
            }
            Part::Activation(i) => {
                plan.activations[i].becomes = ActivationBecomes::Float(why.to_string());
                plan
            }
        }
    }
}

/// The files of a model's plans, without those: weights are quantized once for all of them.
struct Draft {
    adjusted: Model,
    weights: HashMap<String, QTensor>,
    /// The element types of the source's constants.
    types: HashMap<String, DataType>,
}

impl Draft {
    /// For a plan and those with less of it.
    fn new(source: &Model, prepared: &Model, plan: &Plan) -> Result<Draft> {
        let mut adjusted = prepared.clone();
        adjust(&mut adjusted, &plan.adjustments)?;
        // Another rounding gives other integers, and as many.
        let weights = weights_of(&adjusted, &plan.rounded_by(Rounding::Nearest), None, &Silent)?;
        // As long as that of a file.
        adjusted.set_metadata("fewbits.source", "0123456789abcdef");
        Ok(Draft { adjusted, weights, types: constant_types(source.graph()) })
    }

    fn bytes(&self, plan: &Plan) -> Result<u64> {
        let of_plan = plan
            .quantized()
            .filter_map(|(t, _)| Some((t.tensor.clone(), self.weights.get(&t.tensor)?.clone())));
        let mut model = write(self.adjusted.clone(), plan, of_plan.collect())?;
        store_as_before(model.graph_mut(), &self.types)?;
        Ok(model.encoded_bytes())
    }

    /// Those of `parts` that make a file of `bytes` bytes larger, and by how many, from the most on.
    fn growing(&self, plan: &Plan, bytes: u64, parts: Vec<Part>) -> Result<Vec<(Part, u64)>> {
        let without = |part: &Part| self.bytes(&part.left_out(&self.adjusted, plan, ""));
        let sizes = parts.par_iter().map(without).collect::<Result<Vec<u64>>>()?;
        let mut growing: Vec<(Part, u64)> = parts
            .into_iter()
            .zip(sizes)
            .filter(|&(_, without)| without < bytes)
            .map(|(part, without)| (part, bytes - without))
            .collect();
        // In the plan's order where they cost the same.
        growing.sort_by_key(|&(_, cost)| std::cmp::Reverse(cost));
        Ok(growing)
    }
}

/// Whether a file may exceed `most` bytes, by a bound that needs no file: most are far below.
fn may_exceed(prepared: &Model, plan: &Plan, most: u64) -> bool {
    /// What metadata takes.
    const METADATA: u64 = 200;
    /// The operators and names of a weight that is unpacked or looked up.
    const OF_WEIGHT: u64 = 800;
    /// Those of an activation.
    const OF_ACTIVATION: u64 = 400;
    /// Those of a product.
    const OF_PRODUCT: u64 = 500;
    let graph = prepared.graph();
    let (mut more, mut less) = (METADATA, 0);
    for (planned, scheme) in plan.quantized() {
        let stored = graph.find_initializer(&planned.tensor).map_or(0, |t| t.stored_bytes());
        let elements = planned.shape.iter().product::<usize>() as u64;
        let params = fewbits_quant::Layout::new(&planned.shape, scheme.granularity())
            .map_or(elements, |layout| layout.params() as u64);
        let wide = matches!(scheme, fewbits_quant::Scheme::FixedPoint { .. });
        more += OF_WEIGHT + elements * if wide { 2 } else { 1 } + 6 * params;
        less += stored;
    }
    for activation in &plan.activations {
        if !matches!(activation.becomes, ActivationBecomes::Float(_)) {
            more += OF_ACTIVATION + 4 * activation.value.len() as u64;
        }
    }
    if plan.activation_use() != ActivationUse::Float {
        for node in graph.node.iter().filter(|node| is_product(node)) {
            let bias = node.input.get(2).and_then(|bias| graph.find_initializer(bias));
            // Integers and their scales.
            more +=
                OF_PRODUCT + bias.map_or(0, |bias| 8 * bias.dims.iter().product::<i64>() as u64);
        }
    }
    for adjustment in &plan.adjustments {
        if matches!(adjustment.edit, Edit::MultiplyForProducts { .. }) {
            more += OF_PRODUCT + 4 * adjustment.values.len() as u64;
        }
    }
    (prepared.encoded_bytes() + more).saturating_sub(less) > most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{ModelInputs, Target, WeightOptions, plan_weights};
    use fewbits_onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

    #[test]
    fn small_files_may_grow_a_little_and_others_not_at_all() {
        assert_eq!(most_bytes(500), 1_500);
        assert_eq!(most_bytes(16_000), 17_000);
        assert_eq!(most_bytes(16_001), 16_001);
    }

    /// A chain of `products` over one weight of `n` × `n`.
    fn chain(products: usize, n: usize) -> Model {
        let value = |i: usize| format!("a_value_of_the_chain_{i}");
        let weights: Vec<f32> = (0..n * n).map(|i| (i % 17) as f32 - 8.0).collect();
        let dims = [None, Some(n as i64)];
        let graph = GraphProto {
            node: (0..products)
                .map(|i| NodeProto::new("MatMul", &[&value(i), "w"], &[&value(i + 1)]))
                .collect(),
            input: vec![ValueInfoProto::tensor(&value(0), 1, &dims)],
            output: vec![ValueInfoProto::tensor(&value(products), 1, &dims)],
            initializer: vec![TensorProto::from_f32("w", &[n, n], &weights)],
            ..GraphProto::default()
        };
        Model::from_graph(graph, 17)
    }

    fn dynamic(model: &Model) -> Plan {
        let options = WeightOptions::default();
        plan_weights(model, &options, ActivationUse::Dynamic, Target::default(), &Silent)
            .unwrap()
            .with_dynamic_activations(model, ModelInputs::Seen)
    }

    fn bytes(model: &Model, plan: &Plan) -> u64 {
        Draft::new(model, model, plan).unwrap().bytes(plan).unwrap()
    }

    #[test]
    fn what_is_small_enough_stays_as_it_is() {
        let model = chain(3, 64);
        let plan = dynamic(&model);
        assert_eq!(
            without_growth(&model, &model, plan.clone(), model.encoded_bytes()).unwrap(),
            plan
        );
    }

    #[test]
    fn only_as_much_is_left_float_as_needs_be() {
        // Sixty products take more in operators than the weight of 4 kB saves.
        let model = chain(60, 32);
        let plan = dynamic(&model);
        let most = model.encoded_bytes();
        assert!(bytes(&model, &plan) > most);
        let fitted = without_growth(&model, &model, plan.clone(), most).unwrap();
        let size = bytes(&model, &fitted);
        assert!(size <= most, "{size} > {most}");
        assert_eq!(fitted.quantized().count(), 1, "the weight itself does not grow the file");
        let left = fitted.float_activations().count() - plan.float_activations().count();
        assert!((1..60).contains(&left), "{left} of 60");
        assert!(fitted.float_activations().any(|(_, why)| why.contains("bytes larger")));
        // The same again, and never more than is needed: one more would exceed.
        assert_eq!(without_growth(&model, &model, plan, most).unwrap(), fitted);
    }

    #[test]
    fn a_file_that_grows_in_any_form_is_left_as_it_came() {
        let model = chain(2, 16);
        let fitted = without_growth(&model, &model, dynamic(&model), 10).unwrap();
        assert!(fitted.why_nothing().unwrap().contains("the file would take"));
    }
}
