//! What is asked of a recipe.

use std::fmt;
use std::str::FromStr;

use fewbits_quant::{Bits, RangeMethod, Rounding};

use crate::data::Dataset;
use crate::hint::Setting;
use crate::methods::Methods;
use crate::plan::{ActivationUse, IntegerWeights, ReduceRange, Target, WeightOptions};

/// What activations are to become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activations {
    /// They stay float.
    Float,
    /// Integers with a scale measured at every call.
    Dynamic,
    /// Integers with a scale from calibration data.
    Static {
        /// How a range follows from it.
        range: RangeChoice,
        /// How many bits of the integers are used.
        bits: Bits,
    },
}

impl Activations {
    /// The same without how.
    pub fn activation_use(self) -> ActivationUse {
        match self {
            Activations::Float => ActivationUse::Float,
            Activations::Dynamic => ActivationUse::Dynamic,
            Activations::Static { .. } => ActivationUse::Static,
        }
    }

    /// Why a model of this opset cannot have such activations.
    ///
    /// Preparation brings every model to an opset that can, but for some with operators of old.
    pub(super) fn obstacle(&self, opset: i64) -> Option<String> {
        let needed = match self {
            Activations::Float => return None,
            // DynamicQuantizeLinear.
            Activations::Dynamic => 11,
            // DequantizeLinear with a scale a channel, for the weights and biases beside them.
            Activations::Static { .. } => 13,
        };
        (opset < needed).then(|| {
            format!("they need opset {needed}, the model has {opset}; export it with a newer opset")
        })
    }
}

/// A method that is asked for, or the best of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MethodChoice<T> {
    /// The one that gives the smallest error of the outputs.
    #[default]
    Measured,
    /// This one.
    Only(T),
}

/// How the ranges of activations are found; of [`RangeChoice::TRIED`] where that is measured.
pub type RangeChoice = MethodChoice<RangeMethod>;

/// How the values of weights become integers; measured where only weights become integers, of fewer
/// than 8 bits, and there is data to measure on, otherwise to nearest.
pub type RoundingChoice = MethodChoice<Rounding>;

impl RangeChoice {
    /// The methods that are measured; the first one where nothing can be.
    pub const TRIED: [RangeMethod; 2] = [RangeMethod::MinMax, RangeMethod::Mse];

    pub(super) fn first(self) -> RangeMethod {
        match self {
            RangeChoice::Measured => RangeChoice::TRIED[0],
            RangeChoice::Only(method) => method,
        }
    }
}

impl<T: FromStr> FromStr for MethodChoice<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> std::result::Result<Self, T::Err> {
        match text {
            "auto" => Ok(MethodChoice::Measured),
            method => method.parse().map(MethodChoice::Only),
        }
    }
}

impl<T: fmt::Display> fmt::Display for MethodChoice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MethodChoice::Measured => f.write_str("auto"),
            MethodChoice::Only(method) => method.fmt(f),
        }
    }
}

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The runtime that the file is for.
    pub target: Target,
    /// Of weights.
    pub weights: WeightOptions,
    /// How their values become integers.
    pub rounding: RoundingChoice,
    /// Which of them are left out.
    pub reduce_range: ReduceRange,
    /// Of weights that are integers already.
    pub integer_weights: IntegerWeights,
    /// Of activations.
    pub activations: Activations,
    /// Of the methods that make both lose less.
    pub methods: Methods,
    /// Data to calibrate on; a static recipe needs it.
    pub data: Option<&'a Dataset>,
}

impl Request<'_> {
    /// What of it does not go together, and what does.
    pub fn contradiction(&self) -> Option<String> {
        let scheme = self.weights.scheme();
        match self.rounding {
            RoundingChoice::Only(rounding)
                if rounding != Rounding::Nearest && scheme.float_format().is_some() =>
            {
                Some(format!(
                    "{rounding} rounds to integers, not to {scheme}; use {}",
                    Setting::Rounding.to(Rounding::Nearest)
                ))
            }
            _ => self.weights.obstacle(self.activations.activation_use()),
        }
    }
}
