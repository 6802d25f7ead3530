//! Options that the library's messages name, as flags.

use fewbits::hint::{Hint, Setting};

/// Spells a hint as it is typed.
pub fn as_flag(hint: &Hint) -> String {
    let flag = match hint.setting {
        Setting::Batch => "--batch",
        Setting::Bits => "--bits",
        Setting::Calibration => "--calibrate",
        Setting::Data => "--data",
        Setting::Granularity => "--granularity",
        Setting::Input => "--input",
        Setting::Label => "--label",
        Setting::MaxDrop => "--max-drop",
        Setting::Metric => "--metric",
        Setting::MinSqnr => "--min-sqnr",
        Setting::Normalize => "--normalize",
        Setting::Plan => "--plan",
        Setting::Recipe => "--recipe",
        Setting::Replace => "--force",
        Setting::Requantize => "--requantize",
        Setting::Resume => "--resume",
        Setting::Rounding => "--rounding",
        Setting::SavedPlan => "--save-plan",
        Setting::Scales => "--scales",
        Setting::Scheme => "--scheme",
        Setting::Target => "--target",
    };
    match &hint.value {
        Some(value) => format!("{flag} {value}"),
        None => flag.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_flags_with_their_values() {
        assert_eq!(as_flag(&Setting::Recipe.to("static")), "--recipe static");
        assert_eq!(as_flag(&Hint { setting: Setting::MaxDrop, value: None }), "--max-drop");
    }
}
