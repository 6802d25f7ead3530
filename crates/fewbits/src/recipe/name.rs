//! The recipes by their names.

use std::fmt;
use std::str::FromStr;

use fewbits_quant::Bits;

use super::request::{Activations, RangeChoice};

/// What becomes integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Every weight; activations stay float.
    Weights,
    /// Weights, and activations that are quantized dynamically: with a scale measured at every call.
    Dynamic,
    /// Weights, and activations with scales from calibration data.
    Static,
}

/// A recipe that is asked for, or what there is data for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipeChoice {
    /// This one.
    Only(Recipe),
    /// Static with calibration data and dynamic without, but what measures slower than in float stays float.
    Auto,
}

impl Recipe {
    /// All of them.
    pub const ALL: [Recipe; 3] = [Recipe::Weights, Recipe::Dynamic, Recipe::Static];

    /// Names the recipe.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Weights => "weights",
            Recipe::Dynamic => "dynamic",
            Recipe::Static => "static",
        }
    }

    /// Tells what activations become; where their scales come from data, by ranges found so and integers of so
    /// many bits.
    pub fn activations(self, range: RangeChoice, bits: Bits) -> Activations {
        match self {
            Recipe::Weights => Activations::Float,
            Recipe::Dynamic => Activations::Dynamic,
            Recipe::Static => Activations::Static { range, bits },
        }
    }
}

impl RecipeChoice {
    /// Tells the recipe to start from; `calibration` is the data, if there is some.
    pub fn recipe<T>(self, calibration: Option<&T>) -> Recipe {
        match (self, calibration) {
            (RecipeChoice::Only(recipe), _) => recipe,
            (RecipeChoice::Auto, Some(_)) => Recipe::Static,
            (RecipeChoice::Auto, None) => Recipe::Dynamic,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for RecipeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecipeChoice::Only(recipe) => recipe.fmt(f),
            RecipeChoice::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Recipe, String> {
        let found = Recipe::ALL.into_iter().find(|recipe| recipe.name() == text);
        found.ok_or_else(|| "recipes are weights, dynamic and static".to_string())
    }
}

impl FromStr for RecipeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<RecipeChoice, String> {
        match text {
            "auto" => Ok(RecipeChoice::Auto),
            _ => text
                .parse()
                .map(RecipeChoice::Only)
                .map_err(|_: String| "recipes are weights, dynamic, static and auto".to_string()),
        }
    }
}

/// Reads the bits that activations have in [`Recipe::Static`].
///
/// # Errors
/// Unless they are 2 to 8.
pub fn activation_bits(text: &str) -> Result<Bits, String> {
    match text.parse::<Bits>()? {
        bits if bits.get() >= 2 => Ok(bits),
        _ => Err("activations have 2 to 8 bits".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_read_as_they_are_written() {
        for recipe in Recipe::ALL {
            assert_eq!(recipe.to_string().parse(), Ok(recipe));
            assert_eq!(recipe.to_string().parse(), Ok(RecipeChoice::Only(recipe)));
        }
        assert_eq!(RecipeChoice::Auto.to_string().parse(), Ok(RecipeChoice::Auto));
        assert!("auto".parse::<Recipe>().is_err() && "all".parse::<RecipeChoice>().is_err());
    }

    #[test]
    fn what_is_chosen_follows_from_the_data_there_is() {
        let chosen = |data| RecipeChoice::Auto.recipe::<()>(data);
        assert_eq!([chosen(Some(&())), chosen(None)], [Recipe::Static, Recipe::Dynamic]);
        let only = RecipeChoice::Only(Recipe::Weights);
        assert_eq!(only.recipe(Some(&())), Recipe::Weights);
    }

    #[test]
    fn activations_have_at_least_two_bits() {
        assert_eq!(activation_bits("2"), Ok(Bits::new(2).unwrap()));
        assert!(activation_bits("1").is_err() && activation_bits("9").is_err());
    }
}
