//! Options that messages name.
//!
//! A message that says what to do names options, which are flags on the command line and arguments in Python.
//! The library names them by a [`Hint`]; a front end says once, when it starts, how it spells one. Where none
//! does, hints are in words of the library.

use std::fmt;
use std::sync::OnceLock;

/// An option of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Rows of one call.
    Batch,
    /// The width of weights.
    Bits,
    /// The data to calibrate on.
    Calibration,
    /// The data to measure on.
    Data,
    /// What shares a scale.
    Granularity,
    /// An input that has one value in every call.
    Input,
    /// What holds the labels.
    Label,
    /// How much worse the metric may be.
    MaxDrop,
    /// The metric.
    Metric,
    /// What float outputs must reach.
    MinSqnr,
    /// How integer images become floats.
    Normalize,
    /// The plan to carry out.
    Plan,
    /// What becomes integers.
    Recipe,
    /// That an existing file is replaced.
    Replace,
    /// That weights which are integers already become fewer bits.
    Requantize,
    /// The file of what is finished.
    Resume,
    /// How weights are rounded.
    Rounding,
    /// The plan that is made.
    SavedPlan,
    /// The type of scales.
    Scales,
    /// The numbers that weights become.
    Scheme,
    /// What the file is for.
    Target,
}

impl Setting {
    /// Names the option in words of the library.
    pub fn name(self) -> &'static str {
        match self {
            Setting::Batch => "batch",
            Setting::Bits => "bits",
            Setting::Calibration => "calibration data",
            Setting::Data => "data",
            Setting::Granularity => "granularity",
            Setting::Input => "input",
            Setting::Label => "label",
            Setting::MaxDrop => "max_drop",
            Setting::Metric => "metric",
            Setting::MinSqnr => "min_sqnr",
            Setting::Normalize => "normalize",
            Setting::Plan => "plan",
            Setting::Recipe => "recipe",
            Setting::Replace => "Replace::Existing",
            Setting::Requantize => "IntegerWeights::Requantized",
            Setting::Resume => "resume",
            Setting::Rounding => "rounding",
            Setting::SavedPlan => "Planned::plan",
            Setting::Scales => "scales",
            Setting::Scheme => "scheme",
            Setting::Target => "target",
        }
    }

    /// Names the option with a value.
    pub fn to(self, value: impl fmt::Display) -> Hint {
        Hint { setting: self, value: Some(value.to_string()) }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hint { setting: *self, value: None }.fmt(f)
    }
}

/// An option, and perhaps a value for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The option.
    pub setting: Setting,
    /// The value as the option's type is written.
    pub value: Option<String>,
}

/// How a front end spells hints.
pub type Spelling = fn(&Hint) -> String;

/// The spelling of the front end that this process is.
static SPELLING: OnceLock<Spelling> = OnceLock::new();

/// Lets every message of the library spell its hints so; only the first call in a process counts.
pub fn spell_hints(spelling: Spelling) {
    let _ = SPELLING.set(spelling);
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (SPELLING.get(), &self.value) {
            (Some(spelling), _) => f.write_str(&spelling(self)),
            (None, Some(value)) => write!(f, "{} {value}", self.setting.name()),
            (None, None) => f.write_str(self.setting.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_in_words_of_the_library_where_no_front_end_spells_them() {
        let told = format!("use {}, or leave {} out", Setting::Recipe.to("weights"), Setting::Bits);
        assert_eq!(told, "use recipe weights, or leave bits out");
    }
}
