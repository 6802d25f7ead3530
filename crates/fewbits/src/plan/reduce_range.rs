//! Weights that use fewer than all integers of 8 bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which integers of 8-bit weights are left out, so that kernels which add pairs of products in 16 bits
/// do not saturate (`vpmaddubsw` on CPUs with AVX2 and no VNNI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReduceRange {
    /// Those of channels with a pair that could, where the file's runtimes have such kernels.
    #[default]
    Auto,
    /// The eighth bit of every weight.
    All,
    /// None.
    None,
}

impl ReduceRange {
    const ALL: [ReduceRange; 3] = [ReduceRange::Auto, ReduceRange::All, ReduceRange::None];
}

impl fmt::Display for ReduceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReduceRange::Auto => "auto",
            ReduceRange::All => "all",
            ReduceRange::None => "none",
        })
    }
}

impl FromStr for ReduceRange {
    type Err = String;

    fn from_str(text: &str) -> Result<ReduceRange, String> {
        let found = ReduceRange::ALL.into_iter().find(|range| range.to_string() == text);
        found.ok_or_else(|| "the ranges to reduce are auto, all and none".to_string())
    }
}

/// Channels of a weight that use fewer integers than they could, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduced {
    /// The weight.
    pub tensor: String,
    /// Which of its scales; the only one, 0, where it has one scale.
    pub channels: Vec<usize>,
    /// Why.
    pub why: String,
}
