//! The recipes `static` and `dynamic`: what activations become.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_onnx::facts::ProductForm;
use fewbits_onnx::proto::NodeProto;
use fewbits_quant::range::mse::sqnr_db;
use fewbits_quant::{Granularity, RangeMethod, Scheme, is_below_scales};

use super::{
    ActivationBecomes, ActivationScheme, ActivationUse, PlacedValue, Placement, Plan,
    PlannedActivation, Readers, has_dynamic_form, placement,
};
use crate::calibrate::Calibration;
use crate::layers::is_product;

/// What is known of a model's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelInputs {
    /// Calibration data held them.
    Seen,
    /// Nothing.
    Unseen,
}

impl Plan {
    /// The values that a static plan must know the range of.
    pub fn placement(&self, model: &Model) -> Placement {
        let (mut weights, mut others) = (HashSet::new(), HashMap::new());
        for (planned, scheme) in self.quantized() {
            match why_multiplied_as_floats(scheme) {
                None => {
                    weights.insert(planned.tensor.as_str());
                }
                Some(why) => {
                    others.insert(planned.tensor.as_str(), why);
                }
            }
        }
        let graph = model.graph();
        let mut placement = placement(graph, &weights, self.target.extent());
        let of_others = graph.node.iter().filter(|node| is_product(node)).filter_map(|node| {
            let why = others.get(node.input.get(1)?.as_str())?;
            Some((node.output[0].clone(), (*why).to_string()))
        });
        for (value, why) in of_others {
            match placement.kept.iter_mut().find(|(kept, _)| *kept == value) {
                Some(kept) => kept.1 = why,
                None => placement.kept.push((value, why)),
            }
        }
        placement
    }

    /// Why no activation becomes integers: the reason for most of those that were looked at.
    pub fn why_float_activations(&self) -> Option<String> {
        if self.activation_use() != ActivationUse::Float {
            return None;
        }
        let mut counted: Vec<(&str, usize)> = Vec::new();
        for (_, why) in self.float_activations() {
            match counted.iter_mut().find(|(known, _)| *known == why) {
                Some((_, count)) => *count += 1,
                None => counted.push((why, 1)),
            }
        }
        // Of equal ones the first.
        let most = counted.iter().rev().max_by_key(|(_, count)| *count);
        Some(most.map_or("no product reads one".to_string(), |(why, _)| (*why).to_string()))
    }

    /// Gives every value of `placement` the range that `method` finds in the calibration.
    pub fn with_static_activations(
        mut self,
        placement: &Placement,
        calibration: &Calibration,
        method: RangeMethod,
        activations: ActivationScheme,
    ) -> Plan {
        let levels = activations.levels();
        // Values of one group share the range that covers all of them.
        let mut ranges: HashMap<usize, (f32, f32)> = HashMap::new();
        for value in &placement.values {
            // What was not observed stays float, whatever it would share its range with.
            let observer = calibration.observers.get(&value.value);
            if let Some((low, high)) = observer.and_then(|o| method.range(o, levels)) {
                let range = ranges.entry(value.group).or_insert((low, high));
                *range = (range.0.min(low), range.1.max(high));
            }
        }
        self.activations = placement
            .values
            .iter()
            .map(|value| PlannedActivation {
                value: value.value.clone(),
                readers: value.readers,
                becomes: match (ranges.get(&value.group), calibration.observers.get(&value.value)) {
                    (Some(&range), Some(_)) if is_below_scales(range) => ActivationBecomes::Float(
                        "its values are so small that a scale of them would be subnormal".into(),
                    ),
                    (Some(&(low, high)), Some(observer)) => ActivationBecomes::Static {
                        scheme: activations.scheme(),
                        low,
                        high,
                        sqnr_db: sqnr_db(observer, levels, (low, high)),
                    },
                    _ => ActivationBecomes::Float(calibration.why_float(&value.value)),
                },
            })
            .chain(computed_in_float(placement))
            .collect();
        self
    }

    /// Keeps every value of `placement` float, for one reason.
    pub fn with_float_activations(mut self, placement: &Placement, why: &str) -> Plan {
        let float = |value: &PlacedValue| PlannedActivation {
            value: value.value.clone(),
            readers: value.readers,
            becomes: ActivationBecomes::Float(why.to_string()),
        };
        self.activations = placement.values.iter().map(float).collect();
        self
    }

    /// Keeps the activations of all products of `placement` that cannot read integers float.
    pub fn with_float_products(mut self, placement: &Placement) -> Plan {
        self.activations = computed_in_float(placement).collect();
        self
    }

    /// Lets every product of matrices quantize its activations dynamically. Convolutions keep
    /// float activations: runtimes compute their dynamic form slower than the float one. So do
    /// inputs of the model that were not seen: the columns of a table may be of any scale, and the
    /// narrow ones would be lost.
    pub fn with_dynamic_activations(mut self, model: &Model, inputs: ModelInputs) -> Plan {
        let placement = self.placement(model);
        let graph = model.graph();
        let unseen = |value: &str| {
            inputs == ModelInputs::Unseen && graph.input.iter().any(|i| i.name() == value)
        };
        let weights: HashMap<&str, (&[usize], Scheme)> =
            self.quantized().map(|(t, scheme)| (t.tensor.as_str(), (&*t.shape, scheme))).collect();
        let mut read_by_product: HashSet<&str> = HashSet::new();
        let mut read_by_matmul: HashSet<&str> = HashSet::new();
        let multiplies = |node: &&NodeProto| {
            ProductForm::on_integers(node).is_some_and(|form| !form.weight.is_convolution())
        };
        for node in graph.node.iter().filter(multiplies) {
            let [value, weight, ..] = node.input.as_slice() else { continue };
            let Some(&(shape, scheme)) = weights.get(weight.as_str()) else { continue };
            read_by_matmul.insert(value);
            if has_dynamic_form(node, shape, scheme.granularity()) {
                read_by_product.insert(value);
            }
        }
        self.activations = placement
            .values
            .iter()
            .cloned()
            .map(|value| PlannedActivation {
                becomes: match read_by_product.contains(value.value.as_str()) {
                    // A part of plans, as `why_multiplied_as_floats` is: no hint.
                    true if unseen(&value.value) => ActivationBecomes::Float(
                        "an input whose columns may be of any scale; --calibrate shows them".into(),
                    ),
                    true => ActivationBecomes::Dynamic,
                    false if read_by_matmul.contains(value.value.as_str()) => {
                        ActivationBecomes::Float(
                            "the products that read it have weights of more axes than a matrix, \
                             which have no dynamic form"
                                .into(),
                        )
                    }
                    false => ActivationBecomes::Float(
                        "only convolutions read it, whose dynamic form is slower than float".into(),
                    ),
                },
                readers: value.readers,
                value: value.value,
            })
            .chain(computed_in_float(&placement))
            .collect();
        self
    }
}

/// Why products cannot multiply integers of a weight by integers of an activation: they take weights
/// without zero points and with a scale an output.
///
/// It becomes part of a plan, whose digest stands in written files: other words, options spelled otherwise among
/// them, would make other files.
fn why_multiplied_as_floats(scheme: Scheme) -> Option<&'static str> {
    match scheme {
        Scheme::Symmetric { granularity: Granularity::Group { .. }, .. } => Some(
            "its weights have a scale a group, products of integers take one a channel: use \
             --granularity channel",
        ),
        Scheme::Symmetric { .. } => None,
        Scheme::Affine { .. } => Some(
            "its weights have zero points, products of integers take weights without: use --scheme \
             symmetric",
        ),
        Scheme::FixedPoint { .. } => Some(
            "its weights are of fixed point, products of integers take a scale a channel: use \
             --scheme symmetric",
        ),
        Scheme::Float { .. } | Scheme::Mx { .. } | Scheme::NvFp4 { .. } => {
            Some("its weights are small floats and multiplied as floats")
        }
    }
}

/// Entries for the results of products that no recipe quantizes.
fn computed_in_float(placement: &Placement) -> impl Iterator<Item = PlannedActivation> {
    // What another product reads is decided about already.
    let read: HashSet<&str> = placement.values.iter().map(|v| v.value.as_str()).collect();
    let results = placement.kept.iter().filter(move |(value, _)| !read.contains(value.as_str()));
    results.map(|(value, why)| PlannedActivation {
        value: value.clone(),
        readers: Readers::Products,
        becomes: ActivationBecomes::Float(why.clone()),
    })
}
