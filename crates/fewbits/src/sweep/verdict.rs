//! How many bits can be afforded.

use super::{Advised, Point, Sweep};
use crate::hint::Setting;
use crate::metric::Metric;
use crate::plan::{ActivationUse, Width};
use crate::report::bytes;

/// What is called affordable: half a hundredth, of a metric between 0 and 1 as it is, of others of
/// the float model's.
const AFFORDABLE: f64 = 0.005;

/// The drop that is called affordable.
pub fn affordable_drop(sweep: &Sweep) -> f64 {
    match sweep.metric {
        Metric::Mae | Metric::Rmse | Metric::Perplexity => AFFORDABLE * sweep.float.metric.abs(),
        _ => AFFORDABLE,
    }
}

/// The widths that keep to that.
fn affordable(sweep: &Sweep) -> impl Iterator<Item = &Point> {
    let most = affordable_drop(sweep);
    sweep.points.iter().filter(move |p| Metric::allows(most, p.drop))
}

/// The smallest file of those that can be afforded, if it is smaller than the float model's: of equal
/// ones the most accurate, then the widest. So every other file that is as accurate is larger, or as
/// large with fewer bits.
pub fn advised(sweep: &Sweep) -> Option<Advised> {
    let smaller =
        affordable(sweep).filter(|p| p.quantized > 0 && p.file_bytes < sweep.float.file_bytes);
    let point = smaller.min_by(|a, b| {
        let metric = a.drop.total_cmp(&b.drop);
        a.file_bytes.cmp(&b.file_bytes).then(metric).then(b.bits.cmp(&a.bits))
    })?;
    Some(Advised { bits: point.bits, file_bytes: point.file_bytes, metric: point.metric })
}

/// The answer in a sentence.
pub fn verdict(sweep: &Sweep, activations: ActivationUse) -> String {
    let (metric, float) = (sweep.metric, sweep.float);
    let most = affordable_drop(sweep);
    let near = format!("{metric} within {most:.4} of the float model's {:.4}", float.metric);
    if let Some(advised) = sweep.advised {
        return format!(
            "{} can be afforded: the smallest file that keeps {near} ({:.4}), {} times smaller",
            bits(&[advised.bits]),
            advised.metric,
            match float.file_bytes as f64 / advised.file_bytes.max(1) as f64 {
                times if times < 1.1 => format!("{times:.2}"),
                times => format!("{times:.1}"),
            }
        );
    }
    let smallest =
        affordable(sweep).filter(|p| p.quantized > 0).min_by_key(|point| point.file_bytes);
    if let Some(point) = smallest {
        let instead = match activations {
            ActivationUse::Float => "keep the float model".to_string(),
            _ => format!("files of {} are smaller", Setting::Recipe.to("weights")),
        };
        return format!(
            "No width makes the file smaller and keeps {near}: the smallest takes {} bytes, at {}, \
             and the float model {}; {instead}",
            bytes(point.file_bytes),
            bits(&[point.bits]),
            bytes(float.file_bytes),
        );
    }
    if affordable(sweep).next().is_some() {
        return match sweep.points.iter().any(|p| p.quantized > 0) {
            true => format!("No width at which something is quantized keeps {near}"),
            false => "No width is advised: nothing is quantized at any".to_string(),
        };
    }
    let best = sweep.points.iter().min_by(|a, b| a.drop.total_cmp(&b.drop));
    let best = best.map_or(String::new(), |p| {
        format!("; the best is {}, {:.4} worse", bits(&[p.bits]), p.drop)
    });
    format!("No width that was measured keeps {near}{best}")
}

/// Widths in words: `1 bit`, `2 and 8 bits`, `1, 2 and 5 to 8 bits`.
fn bits(widths: &[Width]) -> String {
    let mut widths: Vec<u8> = widths.iter().map(|width| width.get()).collect();
    widths.sort_unstable();
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for &width in &widths {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == width => *last = width,
            _ => runs.push((width, width)),
        }
    }
    let mut words = Vec::new();
    for (first, last) in runs {
        match last - first {
            0 => words.push(first.to_string()),
            1 => words.extend([first.to_string(), last.to_string()]),
            _ => words.push(format!("{first} to {last}")),
        }
    }
    let unit = if widths == [1] { "bit" } else { "bits" };
    match words.split_last() {
        Some((last, [])) => format!("{last} {unit}"),
        Some((last, others)) => format!("{} and {last} {unit}", others.join(", ")),
        None => String::new(),
    }
}

/// Which output of the model that is advised is far from the float model's.
pub fn far_output(sweep: &Sweep) -> Option<String> {
    let advised = sweep.advised?;
    let point = sweep.points.iter().find(|point| point.bits == advised.bits)?;
    let note = point.worst_output.as_ref()?.note()?;
    Some(format!("at {} {note}", bits(&[advised.bits])))
}

/// At which widths nothing is quantized, and why.
pub fn nothing_quantized(sweep: &Sweep) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<Width>)> = Vec::new();
    for (point, plan) in sweep.points.iter().zip(&sweep.plans) {
        let Some(why) = plan.why_nothing() else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, widths)) => widths.push(point.bits),
            None => reasons.push((why, vec![point.bits])),
        }
    }
    let note = |(why, widths): (String, Vec<Width>)| {
        format!("at {} nothing is quantized: {why}", bits(&widths))
    };
    reasons.into_iter().map(note).collect()
}

/// Why some widths take as many bytes as others.
pub fn same_bytes(sweep: &Sweep) -> Option<String> {
    let mut sizes: Vec<(u64, Vec<Width>)> = Vec::new();
    for point in sweep.points.iter().filter(|p| p.quantized > 0) {
        match sizes.iter_mut().find(|(bytes, _)| *bytes == point.file_bytes) {
            Some((_, widths)) => widths.push(point.bits),
            None => sizes.push((point.file_bytes, vec![point.bits])),
        }
    }
    let same = sizes.into_iter().filter(|(_, widths)| widths.len() > 1);
    let same: Vec<String> = same
        .map(|(size, widths)| format!("{} take {} bytes", bits(&widths), bytes(size)))
        .collect();
    (!same.is_empty()).then(|| {
        format!(
            "{} alike: weights so small are stored as whole bytes, since the operators that unpack \
             narrower ones would take more than they save",
            same.join(", ")
        )
    })
}

/// A warning where a few rows decide.
pub fn too_few_rows(sweep: &Sweep) -> Option<String> {
    let counts_rows = matches!(sweep.metric, Metric::Accuracy | Metric::F1 | Metric::Agreement);
    // Less than ten rows lie within what is called affordable.
    let few = AFFORDABLE * (sweep.rows as f64) < 10.0;
    (counts_rows && few).then(|| {
        format!(
            "one of {} rows moves {} by {:.4}: differences of a few rows are chance",
            sweep.rows,
            sweep.metric,
            1.0 / sweep.rows as f64
        )
    })
}

#[cfg(test)]
mod tests {
    use fewbits_engine::RunOptions;
    use proptest::prelude::*;

    use super::super::FloatPoint;
    use super::*;
    use crate::environment::environment;

    const FLOAT_BYTES: u64 = 1000;

    fn point(metric: Metric, float: f64, bits: u8, value: f64, file_bytes: u64) -> Point {
        Point {
            bits: Width::new(bits).unwrap(),
            metric: value,
            drop: metric.drop(float, value),
            agreement: 1.0,
            file_bytes,
            weight_bytes: 1,
            latency_ms: 1.0,
            max_abs_error: 0.0,
            sqnr_db: None,
            worst_output: None,
            quantized: 1,
            path: None,
        }
    }

    fn sweep_of(metric: Metric, float: f64, points: Vec<Point>) -> Sweep {
        let (file_bytes, weight_bytes, latency_ms) = (FLOAT_BYTES, 1, 1.0);
        let mut sweep = Sweep {
            metric,
            rows: 200,
            float: FloatPoint { metric: float, file_bytes, weight_bytes, latency_ms },
            points,
            advised: None,
            verdict: String::new(),
            notes: Vec::new(),
            environment: environment(&RunOptions::default()),
            plans: Vec::new(),
        };
        sweep.advised = advised(&sweep);
        sweep.verdict = verdict(&sweep, ActivationUse::Float);
        sweep
    }

    /// Widths, metrics and bytes.
    fn of(metric: Metric, float: f64, values: &[(u8, f64, u64)]) -> Sweep {
        let points = values.iter().map(|&(bits, v, bytes)| point(metric, float, bits, v, bytes));
        sweep_of(metric, float, points.collect())
    }

    fn chosen(sweep: &Sweep) -> Option<u8> {
        sweep.advised.map(|advised| advised.bits.get())
    }

    #[test]
    fn the_smallest_file_within_the_drop_is_named() {
        let sweep = of(Metric::Accuracy, 0.9, &[(8, 0.9, 400), (4, 0.895, 250), (2, 0.5, 150)]);
        assert_eq!(
            sweep.verdict,
            "4 bits can be afforded: the smallest file that keeps accuracy within 0.0050 of the \
             float model's 0.9000 (0.8950), 4.0 times smaller"
        );
        let perplexity = of(Metric::Perplexity, 5.0, &[(8, 5.02, 400), (4, 5.03, 250)]);
        assert_eq!(chosen(&perplexity), Some(8));
    }

    #[test]
    fn what_is_no_smaller_than_a_better_file_is_not_advised() {
        // digits/logreg once: 3 bits took more than 8.
        let sweep = of(Metric::Accuracy, 0.96, &[(3, 0.96, 700), (8, 0.9622, 600)]);
        assert_eq!(chosen(&sweep), Some(8));
        // All weigh the same: the most accurate, and of equal ones the widest.
        let alike = of(Metric::Accuracy, 0.9, &[(2, 0.91, 500), (3, 0.9, 500), (8, 0.9, 500)]);
        assert_eq!(chosen(&alike), Some(2));
        let alike = of(Metric::Accuracy, 0.9, &[(3, 0.9, 500), (8, 0.9, 500)]);
        assert_eq!(chosen(&alike), Some(8));
        assert!(same_bytes(&alike).unwrap().starts_with("3 and 8 bits take 500 bytes alike"));
    }

    #[test]
    fn none_may_be_advised_and_why() {
        let sweep = of(Metric::Accuracy, 0.9, &[(1, 0.5, 1), (2, 0.7, 2), (3, f64::NAN, 3)]);
        assert!(sweep.verdict.ends_with("; the best is 2 bits, 0.2000 worse"));
        let larger = of(Metric::Accuracy, 0.9, &[(8, 0.9, 1000), (1, 0.9, 1290)]);
        assert_eq!(chosen(&larger), None);
        let said = "the smallest takes 1,000 bytes, at 8 bits, and the float model 1,000; keep";
        assert!(larger.verdict.contains(said), "{}", larger.verdict);
        let with = verdict(&larger, ActivationUse::Static);
        assert!(with.ends_with("files of recipe weights are smaller"), "{with}");
        let mut nothing = of(Metric::Accuracy, 0.9, &[(1, 0.9, 900)]);
        nothing.points[0].quantized = 0;
        let nothing = sweep_of(Metric::Accuracy, 0.9, nothing.points);
        assert_eq!(chosen(&nothing), None);
        assert!(nothing.verdict.contains("nothing is quantized"));
    }

    #[test]
    fn widths_have_words() {
        let words = |widths: &[u8]| {
            bits(&widths.iter().map(|&w| Width::new(w).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(words(&[1]), "1 bit");
        assert_eq!(words(&[8, 2]), "2 and 8 bits");
        assert_eq!(words(&[1, 2, 3, 4, 5, 6, 7, 8]), "1 to 8 bits");
        assert_eq!(words(&[1, 2, 5, 6, 7]), "1, 2 and 5 to 7 bits");
    }

    #[test]
    fn few_rows_are_told() {
        let sweep = of(Metric::Accuracy, 0.9, &[(8, 0.9, 500)]);
        assert!(too_few_rows(&sweep).unwrap().contains("by 0.0050"));
        assert_eq!(too_few_rows(&Sweep { rows: 10_000, ..sweep.clone() }), None);
        assert_eq!(too_few_rows(&Sweep { metric: Metric::R2, ..sweep }), None);
    }

    proptest! {
        #[test]
        fn the_rule_holds_for_whatever_is_measured(
            measured in prop::collection::vec((0u8..4, 900u64..1010, any::<bool>()), 8),
            lower_is_better in any::<bool>(),
        ) {
            let metric = if lower_is_better { Metric::Mae } else { Metric::Accuracy };
            let float = 0.9;
            let points = measured.iter().zip(1u8..).map(|(&(worse, bytes, quantized), bits)| {
                let value = metric.after_drop(float, f64::from(worse) * 0.002 - 0.002);
                Point {
                    quantized: usize::from(quantized),
                    ..point(metric, float, bits, value, bytes)
                }
            });
            let sweep = sweep_of(metric, float, points.collect());
            let most = affordable_drop(&sweep);
            if let Some(advised) = sweep.advised {
                let one = sweep.points.iter().find(|p| p.bits == advised.bits).unwrap();
                prop_assert!(one.quantized > 0 && one.file_bytes < FLOAT_BYTES);
                prop_assert!(Metric::allows(most, one.drop));
                for other in sweep.points.iter().filter(|p| p.quantized > 0) {
                    let better = other.drop < one.drop;
                    if better || other.drop == one.drop && other.bits > one.bits {
                        prop_assert!(one.file_bytes < other.file_bytes);
                    }
                }
            } else {
                let good = |p: &&Point| p.quantized > 0 && p.file_bytes < FLOAT_BYTES;
                prop_assert!(!sweep.points.iter().filter(good).any(|p| Metric::allows(most, p.drop)));
            }
        }
    }
}
