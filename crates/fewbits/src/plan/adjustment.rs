//! What changes before anything is quantized.

use serde::{Deserialize, Serialize};

use crate::methods::Method;

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
    /// others read it as it was. The product is a value of the name that [`scaled_name`] gives.
    MultiplyForProducts {
        /// The activation.
        value: String,
    },
}

/// The name of the value that products read instead of `value`.
pub fn scaled_name(value: &str) -> String {
    format!("{value}_scaled")
}
