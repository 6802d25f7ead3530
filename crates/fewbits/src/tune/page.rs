//! A search as a page.

use fewbits_onnx::Model;
use fewbits_runtime::RunOptions;

use super::{Checked, Tuned};
use crate::Result;
use crate::environment::environment;
use crate::report::{Choice, Point, Report, Sensitivity, worst_weights};

/// The report of a search that began with `source`.
///
/// # Errors
/// If the weights of the source cannot be read again.
pub fn report(tuned: &Tuned, source: &Model, run: &RunOptions) -> Result<Report> {
    let name = source.path().and_then(|p| p.file_name()).map(|name| name.to_string_lossy());
    let best = tuned.best.as_ref();
    let point = |checked: &Checked| Point {
        label: format!("{:.1}", checked.bits),
        metric: checked.metric,
        file_bytes: checked.file_bytes,
        weight_bytes: checked.weight_bytes,
        agreement: Some(checked.agreement),
        latency_ms: Some(checked.latency_ms),
        energy_j: None,
        drop_interval: checked.drop_interval,
        choice: match best.is_some_and(|best| best.checked == *checked) {
            true => Choice::Chosen,
            false => Choice::Measured,
        },
    };
    let mut environment = environment(run).lines();
    environment.push(("rows".to_string(), tuned.rows.to_string()));
    Ok(Report {
        title: format!(
            "{}: as small as {} allows",
            name.as_deref().unwrap_or("the model"),
            tuned.metric
        ),
        verdict: tuned.verdict.clone(),
        metric: tuned.metric,
        max_drop: Some(tuned.max_drop),
        reference: Point {
            label: "float".to_string(),
            metric: tuned.float.metric,
            file_bytes: tuned.float.file_bytes,
            weight_bytes: tuned.float.weight_bytes,
            agreement: None,
            latency_ms: tuned.float.latency_ms,
            energy_j: None,
            drop_interval: None,
            choice: Choice::Measured,
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
    [
        (
            "metric",
            format!(
                "{} of each saved file, opened again and run on all {} rows",
                tuned.metric, tuned.rows
            ),
        ),
        ("agreement", "rows on which a file predicts what the float model predicts".to_string()),
        ("file bytes", "the whole file, external data included".to_string()),
        (
            "weight bytes",
            "the constant tensors in the file, scales and zero points too".to_string(),
        ),
        (
            "sensitivity",
            "on a sample of the calibration data, with this weight quantized and all else float"
                .to_string(),
        ),
        (
            "search",
            "weights step along the convex hulls of their errors over bytes (Shoham and Gersho \
             1988); the drop of what is reached is measured, by bisection and then step by step"
                .to_string(),
        ),
    ]
    .map(|(figure, how)| (figure.to_string(), how))
    .to_vec()
}
