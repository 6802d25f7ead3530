//! Options that the library's messages name, as arguments of Python's functions.

use fewbits::hint::{Hint, Setting};

/// Spells a hint as it is written in a call.
pub fn as_argument(hint: &Hint) -> String {
    let name = match hint.setting {
        // An argument whose one value says it.
        Setting::Replace => return "force=True".to_string(),
        Setting::Requantize => return "requantize=True".to_string(),
        Setting::SavedPlan => return "fewbits.plan".to_string(),
        Setting::Batch => "batch",
        Setting::Bits => "bits",
        Setting::Calibration => "calibration",
        Setting::Data => "X",
        Setting::Granularity => "granularity",
        Setting::Input => "input",
        Setting::Label => "y",
        Setting::MaxDrop => "max_drop",
        Setting::Metric => "metric",
        Setting::MinSqnr => "min_sqnr",
        Setting::Normalize => "normalize",
        Setting::Plan => "plan",
        Setting::Recipe => "recipe",
        Setting::Resume => "resume",
        Setting::Rounding => "rounding",
        Setting::Scales => "scales",
        Setting::Scheme => "scheme",
        Setting::Target => "target",
    };
    match hint.value.as_deref() {
        None => name.to_string(),
        Some("none") => format!("{name}=None"),
        Some(number) if number.parse::<f64>().is_ok() => format!("{name}={number}"),
        Some(text) => format!("{name}=\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_arguments_with_their_values() {
        assert_eq!(as_argument(&Setting::Recipe.to("static")), "recipe=\"static\"");
        assert_eq!(as_argument(&Setting::Bits.to(8)), "bits=8");
        assert_eq!(as_argument(&Setting::MinSqnr.to("none")), "min_sqnr=None");
        assert_eq!(as_argument(&Hint { setting: Setting::Replace, value: None }), "force=True");
    }
}
