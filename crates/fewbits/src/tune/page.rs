//! A search as a page.

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;

use super::{Checked, Objective, Tuned};
use crate::Result;
use crate::environment::environment;
use crate::report::{Choice, Point, Report, Sensitivity, how_files, worst_weights};

/// The report of a search that began with `source`.
///
/// # Errors
/// If the weights of the source cannot be read again.
pub fn report(tuned: &Tuned, source: &Model, run: &RunOptions) -> Result<Report> {
    let name = source.path().and_then(|p| p.file_name()).map(|name| name.to_string_lossy());
    let best = tuned.best.as_ref();
    let point = |checked: &Checked| Point {
        agreement: Some(checked.agreement),
        latency_ms: Some(checked.latency_ms),
        drop_interval: checked.drop_interval,
        choice: match best.is_some_and(|best| best.checked == *checked) {
            true => Choice::Chosen,
            false => Choice::Measured,
        },
        ..Point::new(
            &format!("{:.1}", checked.bits),
            checked.metric,
            checked.file_bytes,
            checked.weight_bytes,
        )
    };
    let float = &tuned.float;
    let superlative = match tuned.objective {
        Objective::Size => "small",
        Objective::Latency => "fast",
    };
    let mut environment = environment(run).lines();
    environment.push(("rows".to_string(), tuned.rows.to_string()));
    Ok(Report {
        title: format!(
            "{}: as {superlative} as {} allows",
            name.as_deref().unwrap_or("the model"),
            tuned.metric
        ),
        verdict: tuned.verdict.clone(),
        metric: tuned.metric,
        max_drop: Some(tuned.max_drop),
        reference: Point {
            latency_ms: float.latency_ms,
            ..Point::new("float", float.metric, float.file_bytes, float.weight_bytes)
        },
        points: tuned.points.iter().map(point).collect(),
        sensitivity: sensitivities(tuned),
        histograms: best.map_or(Ok(Vec::new()), |best| worst_weights(source, &best.plan))?,
        plan: best.map(|best| best.plan.clone()),
        environment,
        how: how(tuned),
        notes: tuned.notes.clone(),
    })
}

/// What every weight costs alone as it is in the best model, or at its fewest bits.
fn sensitivities(tuned: &Tuned) -> Vec<Sensitivity> {
    let chosen = |tensor: &str| {
        let plan = &tuned.best.as_ref()?.plan;
        plan.tensors.iter().find(|t| t.tensor == tensor)?.integers()
    };
    let shown = |weight: &crate::sensitivity::Sensitivity| {
        let chosen = chosen(&weight.tensor);
        let cost = weight
            .costs
            .iter()
            .find(|cost| Some(cost.candidate.becomes) == chosen)
            .or(weight.costs.last())?;
        Some(Sensitivity {
            tensor: weight.tensor.clone(),
            scheme: cost.candidate.becomes.scheme.to_string(),
            file_bytes_saved: cost.candidate.file_bytes_saved,
            relative_error: cost.output_error.unwrap_or(0.0).sqrt(),
            drop: cost.drop,
        })
    };
    tuned.sensitivity.iter().filter_map(shown).collect()
}

fn how(tuned: &Tuned) -> Vec<(String, String)> {
    let of_objective: &[(&str, &str)] = match tuned.objective {
        Objective::Size => &[
            (
                "sensitivity",
                "on a sample of the calibration data, with this weight quantized and all else float",
            ),
            (
                "search",
                "weights step along the convex hulls of their errors over bytes (Shoham and Gersho \
                 1988); the drop of what is reached is measured, by bisection and then step by step",
            ),
        ],
        Objective::Latency => &[(
            "search",
            "operators step from float to integers, those first that move the outputs least for the \
             time they save; the drop of what is reached is measured, by bisection and then step by \
             step",
        )],
    };
    let of_objective = of_objective.iter().map(|(f, how)| (f.to_string(), how.to_string()));
    how_files(tuned.metric, tuned.rows).into_iter().chain(of_objective).collect()
}
