//! What a search makes as small as it can be, by its names.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::recipe::Recipe;

/// What is made as small as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The file.
    Size,
    /// The time of a call on this machine.
    Latency,
}

impl Objective {
    /// All of them.
    pub const ALL: [Objective; 2] = [Objective::Size, Objective::Latency];

    /// Names the objective.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Size => "size",
            Objective::Latency => "latency",
        }
    }

    /// Tells the recipe that serves it best.
    pub fn recipe(self) -> Recipe {
        match self {
            Objective::Size => Recipe::Weights,
            Objective::Latency => Recipe::Static,
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let found = Objective::ALL.into_iter().find(|objective| objective.name() == text);
        found.ok_or_else(|| "objectives are size and latency".to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_as_they_are_written() {
        for objective in Objective::ALL {
            assert_eq!(objective.to_string().parse(), Ok(objective));
            assert_eq!(serde_json::to_value(objective).unwrap(), objective.name());
        }
        assert!("joy".parse::<Objective>().is_err());
    }
}
