//! What becomes of weights that are integers in the model as it comes.

use serde::{Deserialize, Serialize};

/// Whether integers that the model holds for weights stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegerWeights {
    /// As they are.
    #[default]
    Kept,
    /// Those of 8 bits are floats again, those that they stand for, and become what is asked of all weights.
    Requantized,
}
