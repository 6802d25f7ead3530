//! What changes before anything is quantized.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A method that makes quantization lose less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The channels between two layers get ranges alike.
    Equalization,
    /// The channels that products read get ranges alike, at the cost of their weights.
    #[serde(rename = "smoothquant")]
    SmoothQuant,
    /// The weights of strong channels are made larger, and what they are multiplied by smaller.
    Awq,
    /// What the weights' rounding adds to the mean of an output is taken off its bias.
    BiasCorrection,
}

impl Method {
    /// All of them, in the order in which they are applied.
    pub const ALL: [Method; 4] =
        [Method::Equalization, Method::SmoothQuant, Method::Awq, Method::BiasCorrection];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Equalization => "equalization",
            Method::SmoothQuant => "smoothquant",
            Method::Awq => "awq",
            Method::BiasCorrection => "bias-correction",
        })
    }
}

/// An edit of a constant or an activation along one axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The method that asks for it.
    pub method: Method,
    /// What is done with the values.
    pub edit: Edit,
    /// One value for each index on the edit's axis.
    pub values: Vec<f32>,
}

/// What an [`Adjustment`] does with its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Multiplies a constant by them.
    Multiply {
        /// The constant.
        tensor: String,
        /// The axis along which the values lie.
        axis: usize,
    },
    /// Adds them to a constant.
    Add {
        /// The constant.
        tensor: String,
        /// The axis along which the values lie.
        axis: usize,
    },
    /// Multiplies an activation by them, along its last axis, for the products that read it;
    /// others read it as it was. The product is a value of the name that
    /// [`scaled_name`](fewbits_onnx::passes::qdq::scaled_name) gives.
    MultiplyForProducts {
        /// The activation.
        value: String,
    },
}
