//! How many bits can be afforded.

use super::{Point, Sweep};
use crate::metric::Metric;

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

/// The narrowest width that keeps to that; of equal ones the first.
pub fn affordable(sweep: &Sweep) -> Option<&Point> {
    let most = affordable_drop(sweep);
    sweep.points.iter().filter(|p| Metric::allows(most, p.drop)).min_by_key(|p| p.bits)
}

/// The answer in a sentence.
pub fn verdict(sweep: &Sweep) -> String {
    let (metric, float) = (sweep.metric, sweep.float);
    let most = affordable_drop(sweep);
    let Some(point) = affordable(sweep) else {
        let best = sweep.points.iter().min_by(|a, b| a.drop.total_cmp(&b.drop));
        let best = best
            .map_or(String::new(), |p| format!("; the best is {}, {:.4} worse", width(p), p.drop));
        return format!(
            "No width that was measured keeps {metric} within {most:.4} of the float model's {:.4}{best}",
            float.metric
        );
    };
    let size = match float.file_bytes as f64 / point.file_bytes.max(1) as f64 {
        times if times >= 1.0 => format!("{times:.1} times smaller"),
        times => format!("{:.2} times LARGER", 1.0 / times),
    };
    format!(
        "{} can be afforded: the narrowest width that keeps {metric} within {most:.4} of the float \
         model's {:.4} ({:.4}), in a file {size}",
        width(point),
        float.metric,
        point.metric,
    )
}

fn width(point: &Point) -> String {
    match point.bits.get() {
        1 => "1 bit".to_string(),
        bits => format!("{bits} bits"),
    }
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
    use fewbits_quant::Bits;
    use fewbits_runtime::RunOptions;

    use super::super::FloatPoint;
    use super::*;
    use crate::environment::environment;

    fn of(metric: Metric, float: f64, values: &[(u8, f64)]) -> Sweep {
        let point = |&(bits, value): &(u8, f64)| Point {
            bits: Bits::new(bits).unwrap(),
            metric: value,
            drop: metric.drop(float, value),
            agreement: 1.0,
            file_bytes: 250,
            weight_bytes: 1,
            latency_ms: 1.0,
            max_abs_error: 0.0,
            sqnr_db: None,
            quantized: 1,
            path: None,
        };
        Sweep {
            metric,
            rows: 200,
            float: FloatPoint { metric: float, file_bytes: 1000, weight_bytes: 1, latency_ms: 1.0 },
            points: values.iter().map(point).collect(),
            verdict: String::new(),
            notes: Vec::new(),
            environment: environment(&RunOptions::default()),
            plans: Vec::new(),
        }
    }

    #[test]
    fn the_narrowest_within_the_drop_is_named() {
        let sweep = of(Metric::Accuracy, 0.9, &[(8, 0.9), (4, 0.895), (2, 0.5)]);
        assert_eq!(
            verdict(&sweep),
            "4 bits can be afforded: the narrowest width that keeps accuracy within 0.0050 of the \
             float model's 0.9000 (0.8950), in a file 4.0 times smaller"
        );
        let perplexity = of(Metric::Perplexity, 5.0, &[(8, 5.02), (4, 5.03)]);
        assert_eq!(affordable(&perplexity).unwrap().bits.get(), 8);
    }

    #[test]
    fn none_may_be_affordable() {
        let sweep = of(Metric::Accuracy, 0.9, &[(1, 0.5), (2, 0.7), (3, f64::NAN)]);
        assert!(verdict(&sweep).ends_with("; the best is 2 bits, 0.2000 worse"));
    }

    #[test]
    fn few_rows_are_told() {
        let sweep = of(Metric::Accuracy, 0.9, &[(8, 0.9)]);
        assert!(too_few_rows(&sweep).unwrap().contains("by 0.0050"));
        assert_eq!(too_few_rows(&Sweep { rows: 10_000, ..sweep.clone() }), None);
        assert_eq!(too_few_rows(&Sweep { metric: Metric::R2, ..sweep }), None);
    }
}
