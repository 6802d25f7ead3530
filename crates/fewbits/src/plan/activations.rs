//! The recipes `static` and `dynamic`: what activations become.

use std::collections::{HashMap, HashSet};

use fewbits_onnx::Model;
use fewbits_quant::range::mse::sqnr_db;
use fewbits_quant::{
    Bits, Granularity, Levels, RangeMethod, Scheme, affine_max, is_below_scales, symmetric_max,
};

use super::{ActivationBecomes, Plan, PlannedActivation, Readers, RegionValue, Regions, regions};
use crate::calibrate::Calibration;

/// How activations are to be represented: by 8 bits in the file, all of whose values are used or,
/// with fewer bits, some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationScheme {
    /// The kind of integers.
    pub kind: ActivationKind,
    /// How many of their bits are used.
    pub bits: Bits,
}

/// The kind of integers that activations become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationKind {
    /// Unsigned with a zero point: what fits one-sided activations best.
    Unsigned,
    /// Signed and symmetric: what some targets ask for.
    Signed,
}

/// What is known of a model's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Calibration data held them.
    Seen,
    /// Nothing.
    Unseen,
}

impl ActivationScheme {
    /// Unsigned integers of 8 bits, what `DynamicQuantizeLinear` gives.
    pub const UNSIGNED: ActivationScheme =
        ActivationScheme { kind: ActivationKind::Unsigned, bits: Bits::EIGHT };

    fn scheme(self) -> Scheme {
        let (bits, granularity) = (self.bits, Granularity::Tensor);
        match self.kind {
            ActivationKind::Unsigned => Scheme::Affine { bits, granularity },
            ActivationKind::Signed => Scheme::Symmetric { bits, granularity },
        }
    }

    pub(crate) fn levels(self) -> Levels {
        match self.kind {
            ActivationKind::Unsigned => Levels::Affine(affine_max(self.bits) as u16),
            ActivationKind::Signed => Levels::Symmetric(symmetric_max(self.bits) as u16),
        }
    }
}

impl Plan {
    /// The values that a static plan must know the range of.
    pub fn regions(&self, model: &Model) -> Regions {
        // Integer products take weights without zero points and with a scale an output.
        let weights: HashSet<&str> = self
            .quantized()
            .filter(|(_, scheme)| {
                matches!(scheme, Scheme::Symmetric { granularity, .. } if !matches!(granularity, Granularity::Group { .. }))
            })
            .map(|(t, _)| t.tensor.as_str())
            .collect();
        regions(model.graph(), &weights, self.target.extent())
    }

    /// Gives every value of `regions` the range that `method` finds in the calibration.
    pub fn with_static_activations(
        mut self,
        regions: &Regions,
        calibration: &Calibration,
        method: RangeMethod,
        activations: ActivationScheme,
    ) -> Plan {
        let levels = activations.levels();
        // Values of one group share the range that covers all of them.
        let mut ranges: HashMap<usize, (f32, f32)> = HashMap::new();
        for value in &regions.values {
            // What was not observed stays float, whatever it would share its range with.
            let observer = calibration.observers.get(&value.value);
            if let Some((low, high)) = observer.and_then(|o| method.range(o, levels)) {
                let range = ranges.entry(value.group).or_insert((low, high));
                *range = (range.0.min(low), range.1.max(high));
            }
        }
        self.activations = regions
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
            .collect();
        self
    }

    /// Keeps every value of `regions` float, for one reason.
    pub fn with_float_activations(mut self, regions: &Regions, why: &str) -> Plan {
        let float = |value: &RegionValue| PlannedActivation {
            value: value.value.clone(),
            readers: value.readers,
            becomes: ActivationBecomes::Float(why.to_string()),
        };
        self.activations = regions.values.iter().map(float).collect();
        self
    }

    /// Lets every product of matrices quantize its activations as they come. Convolutions keep
    /// float activations: runtimes compute their dynamic form slower than the float one. So do
    /// inputs of the model that were not seen: the columns of a table may be of any scale, and the
    /// narrow ones would be lost.
    pub fn with_dynamic_activations(mut self, model: &Model, inputs: Inputs) -> Plan {
        let regions = self.regions(model);
        let graph = model.graph();
        let unseen =
            |value: &str| inputs == Inputs::Unseen && graph.input.iter().any(|i| i.name() == value);
        let read_by_product = |value: &str| {
            graph.node.iter().any(|n| {
                matches!(n.op_type(), "MatMul" | "Gemm")
                    && n.is_onnx()
                    && n.input.first().is_some_and(|i| i == value)
            })
        };
        self.activations = regions
            .values
            .iter()
            .cloned()
            .map(|value| PlannedActivation {
                becomes: match read_by_product(&value.value) {
                    true if unseen(&value.value) => ActivationBecomes::Float(
                        "an input whose columns may be of any scale; --calibrate shows them".into(),
                    ),
                    true => ActivationBecomes::Dynamic,
                    false => ActivationBecomes::Float(
                        "only convolutions read it, whose dynamic form is slower than float".into(),
                    ),
                },
                readers: value.readers,
                value: value.value,
            })
            .chain(computed_in_float(&regions.kept))
            .collect();
        self
    }
}

/// Entries for the results of products that no recipe quantizes.
fn computed_in_float(kept: &[(String, String)]) -> impl Iterator<Item = PlannedActivation> {
    kept.iter().map(|(value, why)| PlannedActivation {
        value: value.clone(),
        readers: Readers::Products,
        becomes: ActivationBecomes::Float(why.clone()),
    })
}
