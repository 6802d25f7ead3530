//! What every weight becomes, or why it stays float: plain data.

mod activation_params;
mod activation_scheme;
mod activation_use;
mod activations;
mod adjustment;
mod alone;
mod fit;
mod integer_weights;
mod placement;
mod reduce_range;
mod scores;
mod tables;
mod target;
mod weight_options;
mod weights;
mod width;

use std::path::{Path, PathBuf};

use fewbits_onnx::Model;
use fewbits_onnx::graph::Index;
use fewbits_quant::{
    Inputs as ProductInputs, Limits, QTensor, RangeMethod, Rounding, ScaleType, Scheme,
    WeightRange, fixed_point_floats, quantize_on,
};
use serde::{Deserialize, Serialize};

pub use activation_scheme::{ActivationKind, ActivationScheme};
pub use activation_use::ActivationUse;
pub use activations::ModelInputs;
pub use adjustment::{Adjustment, Edit, Method};
pub(crate) use alone::Alone;
pub use integer_weights::IntegerWeights;
pub(crate) use placement::has_dynamic_form;
pub use placement::{PlacedValue, Placement, PlacementExtent, Readers, placement};
pub use reduce_range::{ReduceRange, Reduced};
pub use target::{BiasForm, Target};
pub use weight_options::{GranularityKind, SchemeKind, WeightOptions};
pub(crate) use weights::plan_as_narrow_as_asked;
pub use weights::plan_weights;
pub use width::Width;

use crate::digest::short_digest;
use crate::hint::Setting;
use crate::layers::{Product, products};
use crate::{Error, Result};

/// The format of plan files.
const FORMAT: u32 = 1;

/// A decision for every weight of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this format.
    fewbits_plan: u32,
    /// The runtime that the file is for.
    #[serde(default, skip_serializing_if = "Target::is_default")]
    pub target: Target,
    /// What becomes of weights that are integers already.
    #[serde(default, skip_serializing_if = "is_default")]
    pub integer_weights: IntegerWeights,
    /// Edits that leave the float model's outputs as they are, or correct them, before anything is
    /// quantized.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<Adjustment>,
    /// What was measured to choose this plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
    /// The weights that use fewer integers than they could, to be read: it is found anew from what follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reduced_range: Vec<Reduced>,
    /// One entry a tensor, in the order in which the model reads them.
    pub tensors: Vec<PlannedTensor>,
    /// One entry an activation that a recipe looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activations: Vec<PlannedActivation>,
}

/// Something that was measured on a sample of the calibration data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The methods in use.
    pub methods: Vec<Method>,
    /// How weights were rounded, where that was to be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    /// How the ranges of weights were found, where that was to be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_range: Option<WeightRange>,
    /// How wide tables and last products were, where that was to be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widths: Option<Widths>,
    /// How ranges were found, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeMethod>,
    /// The power of the float model's outputs over that of the difference to them, in decibels;
    /// none where nothing differs.
    pub sqnr_db: Option<f64>,
    /// Whether the plan, or what was tried after it, goes on from it.
    pub kept: bool,
}

/// How wide the weights are that few bits cost most: tables that only look-ups read, and last products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Widths {
    /// Wider than the others.
    KeptWide,
    /// As was asked of all.
    AsAsked,
}

/// A decision for one activation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedActivation {
    /// The value's name in the prepared model.
    pub value: String,
    /// Who reads its integers.
    pub readers: Readers,
    /// What it becomes.
    #[serde(flatten)]
    pub becomes: ActivationBecomes,
}

/// What an activation becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationBecomes {
    /// Integers with a scale that is fixed beforehand.
    Static {
        /// Affine for unsigned, symmetric for signed integers, of 8 bits.
        scheme: Scheme,
        /// The smallest value that is not cut off.
        low: f32,
        /// The largest value that is not cut off.
        high: f32,
        /// Signal to quantization noise on the calibration data, in decibels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sqnr_db: Option<f32>,
    },
    /// Integers with a scale measured at every call.
    Dynamic,
    /// It stays float, and why.
    Float(String),
}

/// A decision for one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTensor {
    /// The tensor's name in the prepared model.
    pub tensor: String,
    /// Its shape, to tell a plan made for another model.
    pub shape: Vec<usize>,
    /// The operators that read it.
    pub read_by: Vec<String>,
    /// The smallest and the largest value, where it becomes integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(f32, f32)>,
    /// Signal to quantization noise, in decibels, before any adjustment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f32>,
    /// How the ranges of its integers are found.
    #[serde(default, skip_serializing_if = "is_default")]
    pub range_method: WeightRange,
    /// How its values become integers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rounding: Rounding,
    /// The type of their scales.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale_type: ScaleType,
    /// Which integers of 8 bits are left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reduce_range: ReduceRange,
    /// What it becomes.
    #[serde(flatten)]
    pub becomes: Becomes,
}

/// The integers of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightScheme {
    /// Their scheme.
    pub scheme: Scheme,
    /// How their ranges are found.
    #[serde(default, skip_serializing_if = "is_default")]
    pub range_method: WeightRange,
    /// How their values become integers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rounding: Rounding,
    /// The type of their scales.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale_type: ScaleType,
}

impl WeightScheme {
    /// What of it does not go together.
    fn contradiction(&self) -> Option<String> {
        let WeightScheme { scheme, range_method, rounding, scale_type } = *self;
        scheme.float_format()?;
        let coded = matches!(scheme, Scheme::Mx { .. } | Scheme::NvFp4 { .. });
        if rounding != Rounding::Nearest {
            Some(format!("{rounding} rounds to integers; small floats take rounding nearest"))
        } else if range_method != WeightRange::MinMax {
            Some(format!("small floats have no range {range_method}; use min_max"))
        } else if coded && scale_type != ScaleType::F32 {
            Some(format!(
                "its scheme has scales of its own, not {scale_type}; leave scale_type out"
            ))
        } else {
            None
        }
    }

    /// Quantizes a row-major tensor of `shape` within `limits`. A method that needs inputs rounds to nearest where
    /// there are none: an embedding is multiplied by nothing.
    ///
    /// # Errors
    /// Those of [`fewbits_quant::quantize_on`].
    pub fn quantize(
        &self,
        values: &[f32],
        shape: &[usize],
        inputs: Option<ProductInputs>,
        limits: &Limits,
    ) -> fewbits_quant::Result<QTensor> {
        let WeightScheme { scheme, range_method, rounding, scale_type } = *self;
        let rounding = match rounding.needs_inputs() && inputs.is_none() {
            true => Rounding::Nearest,
            false => rounding,
        };
        let quantized = quantize_on(values, shape, scheme, range_method, rounding, inputs, limits)?;
        Ok(quantized.with_scales(scale_type))
    }
}

impl WeightScheme {
    /// The floats that what becomes of a row-major tensor of `shape` stands for, where nothing is known of what
    /// it is multiplied by.
    ///
    /// # Errors
    /// Those of [`fewbits_quant::quantize_on`].
    pub fn rounded(
        &self,
        values: &[f32],
        shape: &[usize],
        limits: &Limits,
    ) -> fewbits_quant::Result<Vec<f32>> {
        match self.scheme {
            // Whatever bits their integers need.
            Scheme::FixedPoint { fraction_bits } => Ok(fixed_point_floats(values, fraction_bits)),
            _ => Ok(self.quantize(values, shape, None, limits)?.dequantize()),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a tensor becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// Integers.
    Scheme(Scheme),
    /// It stays float, and why.
    Float(String),
}

impl PlannedTensor {
    /// The integers that it becomes.
    pub fn integers(&self) -> Option<WeightScheme> {
        let PlannedTensor { range_method, rounding, scale_type, .. } = *self;
        let of = |scheme| WeightScheme { scheme, range_method, rounding, scale_type };
        self.becomes.scheme().map(of)
    }
}

impl Becomes {
    /// The scheme of its integers.
    pub fn scheme(&self) -> Option<Scheme> {
        match self {
            Becomes::Scheme(scheme) => Some(*scheme),
            Becomes::Float(_) => None,
        }
    }
}

impl Plan {
    /// A plan of these decisions.
    pub fn new(tensors: Vec<PlannedTensor>, target: Target) -> Plan {
        Plan {
            fewbits_plan: FORMAT,
            target,
            integer_weights: IntegerWeights::default(),
            adjustments: Vec::new(),
            tried: Vec::new(),
            reduced_range: Vec::new(),
            tensors,
            activations: Vec::new(),
        }
    }

    /// The tensors that become integers.
    pub fn quantized(&self) -> impl Iterator<Item = (&PlannedTensor, Scheme)> + Clone {
        self.tensors.iter().filter_map(|t| match t.becomes {
            Becomes::Scheme(scheme) => Some((t, scheme)),
            Becomes::Float(_) => None,
        })
    }

    /// The products of a model whose weights become integers.
    pub fn products(&self, model: &Model) -> Vec<Product> {
        let quantized = self.quantized().map(|(planned, _)| planned.tensor.as_str()).collect();
        let graph = model.graph();
        products(graph, &Index::new(graph), &quantized)
    }

    /// The tensors that stay float, and why.
    pub fn kept_float(&self) -> impl Iterator<Item = (&PlannedTensor, &str)> {
        self.tensors.iter().filter_map(|t| match &t.becomes {
            Becomes::Scheme(_) => None,
            Becomes::Float(why) => Some((t, why.as_str())),
        })
    }

    /// The activations that stay float although a recipe looked at them, and why.
    pub fn float_activations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.activations.iter().filter_map(|a| match &a.becomes {
            ActivationBecomes::Float(why) => Some((a.value.as_str(), why.as_str())),
            _ => None,
        })
    }

    /// The opset that the target asks for, for the planned widths.
    pub fn least_opset(&self) -> i64 {
        let integers = self.tensors.iter().filter_map(PlannedTensor::integers);
        let weights = integers.map(|i| WeightOptions::of(i.scheme, i.scale_type));
        let opsets = weights.map(|weights| self.target.opset_for(&weights));
        opsets.max().unwrap_or(0)
    }

    /// Which weights a recipe keeps wider than the others, for the report; none where none is.
    pub fn wider(&self) -> Option<String> {
        let of_bits = self.quantized().filter_map(|(t, scheme)| Some((t, scheme.bits()?)));
        let narrowest = of_bits.clone().map(|(_, bits)| bits).min()?;
        let wider: Vec<String> = of_bits
            .filter(|(_, bits)| *bits > narrowest)
            .map(|(planned, bits)| format!("'{}' {bits} bits", planned.tensor))
            .collect();
        (!wider.is_empty()).then(|| {
            format!(
                "wider than the rest, because fewer bits cost most there: {}; {} takes other widths",
                wider.join(", "),
                Setting::Plan
            )
        })
    }

    /// The same with another way of rounding. All but [`Rounding::Nearest`] go with ranges of the
    /// least squared error.
    pub fn rounded_by(&self, rounding: Rounding) -> Plan {
        let mut plan = self.clone();
        for planned in &mut plan.tensors {
            planned.rounding = rounding;
            if rounding != Rounding::Nearest {
                planned.range_method = WeightRange::Mse;
            }
        }
        plan
    }

    /// The same with every weight's range reduced so.
    pub fn with_reduced_range(mut self, reduce_range: ReduceRange) -> Plan {
        self.tensors.iter_mut().for_each(|planned| planned.reduce_range = reduce_range);
        self
    }

    /// Whether a method of rounding looks at what weights are multiplied by.
    pub fn needs_data(&self) -> bool {
        let mut integers = self.tensors.iter().filter_map(PlannedTensor::integers);
        integers.any(|integers| integers.rounding.needs_inputs())
    }

    /// What activations become, if any does.
    pub fn activation_use(&self) -> ActivationUse {
        let activations = self.activations.iter().find_map(|a| match a.becomes {
            ActivationBecomes::Static { .. } => Some(ActivationUse::Static),
            ActivationBecomes::Dynamic => Some(ActivationUse::Dynamic),
            ActivationBecomes::Float(_) => None,
        });
        activations.unwrap_or(ActivationUse::Float)
    }

    /// Why the plan makes no sense, by itself or for its target.
    pub fn obstacle(&self) -> Option<String> {
        let activations = self.activation_use();
        let mut weights = self.tensors.iter().filter_map(|t| Some((t, t.integers()?)));
        weights.find_map(|(planned, integers)| {
            let weights = WeightOptions::of(integers.scheme, integers.scale_type);
            let why = self.target.obstacle(&weights, activations);
            why.or_else(|| {
                Some(format!("tensor '{}': {}", planned.tensor, integers.contradiction()?))
            })
        })
    }

    /// Why nothing is quantized: the reason for the largest weight; none if something is.
    pub fn why_nothing(&self) -> Option<String> {
        if self.quantized().next().is_some() {
            return None;
        }
        let largest = self.kept_float().max_by_key(|(t, _)| t.shape.iter().product::<usize>());
        Some(match largest {
            Some((t, why)) => format!("'{}' stays float: {why}", t.tensor),
            None => "it has no float weights".to_string(),
        })
    }

    /// The plan as people read and edit it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan holds nothing that JSON lacks")
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// If it cannot be read, or is not a plan.
    pub fn read(path: &Path) -> Result<Plan> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Plan::parse(&text).map_err(|reason| Error::PlanFile { path: path.to_path_buf(), reason })
    }

    /// Reads what [`to_json`](Plan::to_json) wrote.
    ///
    /// # Errors
    /// If the text is not a plan.
    pub fn from_json(text: &str) -> Result<Plan> {
        Plan::parse(text)
            .map_err(|reason| Error::PlanFile { path: PathBuf::from("the plan"), reason })
    }

    fn parse(text: &str) -> std::result::Result<Plan, String> {
        let plan: Plan = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if plan.fewbits_plan != FORMAT {
            return Err(format!(
                "its format is {}, this fewbits reads {FORMAT}",
                plan.fewbits_plan
            ));
        }
        Ok(plan)
    }

    /// Identifies the plan's decisions: the first 64 bits of its BLAKE3 hash, in hexadecimal.
    pub fn digest(&self) -> String {
        let decisions = Plan { reduced_range: Vec::new(), ..self.clone() };
        let canonical =
            serde_json::to_vec(&decisions).expect("a plan holds nothing that JSON lacks");
        short_digest(&blake3::hash(&canonical))
    }
}
