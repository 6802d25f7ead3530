//! When a measured drop is believed.

use super::Checked;
use crate::metric::Metric;

/// Whether a model stays within the drop that is allowed.
///
/// The measured drop must. A search measures many models and keeps one that came off well, by
/// chance too, and few rows leave much to chance: where the interval of the drop reaches beyond what
/// is allowed, what accuracy would drop if the float model's probabilities were right must stay
/// within it as well. That counts how near a decision every changed answer was, with or against the
/// label, so it varies far less than the number of errors.
pub(super) fn holds(checked: &Checked, metric: Metric, max_drop: f64) -> bool {
    let within = |drop: f64| Metric::allows(max_drop, drop);
    let shown = checked.drop_interval.is_some_and(|(_, high)| within(high));
    let expected = match metric {
        Metric::Accuracy | Metric::F1 => checked.expected_regret,
        _ => None,
    };
    within(checked.drop) && (shown || expected.is_none_or(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_need_a_second_witness() {
        let checked = |drop, high, regret| Checked {
            bits: 4.0,
            metric: 0.9,
            drop,
            drop_interval: Some((-0.1, high)),
            expected_regret: regret,
            agreement: 1.0,
            worst_output: None,
            file_bytes: 1,
            weight_bytes: 1,
            latency_ms: 1.0,
        };
        for (checked, expected) in [
            (checked(0.001, 0.002, None), true),
            (checked(0.003, 0.002, None), false),
            (checked(f64::NAN, 0.002, None), false),
            (checked(0.001, 0.02, None), true),
            (checked(0.001, 0.02, Some(0.001)), true),
            (checked(0.001, 0.02, Some(0.003)), false),
            (checked(0.001, 0.002, Some(0.003)), true),
        ] {
            assert_eq!(holds(&checked, Metric::Accuracy, 0.002), expected, "{checked:?}");
        }
        assert!(holds(&checked(0.001, 0.02, Some(0.003)), Metric::Perplexity, 0.002));
    }
}
