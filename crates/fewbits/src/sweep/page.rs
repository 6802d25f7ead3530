//! A sweep as a page.

use fewbits_onnx::Model;

use super::verdict::{affordable, affordable_drop};
use super::{Sweep, TIMING};
use crate::Result;
use crate::report::{Choice, Point, Report, worst_weights};

/// The report of a sweep of `source`.
///
/// # Errors
/// If the weights of the source cannot be read again.
pub fn report(sweep: &Sweep, source: &Model) -> Result<Report> {
    let name = source.path().and_then(|p| p.file_name()).map(|name| name.to_string_lossy());
    let chosen = affordable(sweep).map(|point| point.bits);
    let points = sweep.points.iter().map(|point| Point {
        label: point.bits.to_string(),
        metric: point.metric,
        file_bytes: point.file_bytes,
        weight_bytes: point.weight_bytes,
        agreement: Some(point.agreement),
        latency_ms: Some(point.latency_ms),
        energy_j: None,
        drop_interval: None,
        choice: if chosen == Some(point.bits) { Choice::Chosen } else { Choice::Measured },
    });
    // Where no width can be afforded, the widest shows what is lost even then.
    let widest = sweep.points.iter().map(|p| p.bits).max();
    let shown = sweep.points.iter().position(|p| Some(p.bits) == chosen.or(widest));
    let plan = shown.map(|at| &sweep.plans[at]);
    let mut environment = sweep.environment.lines();
    environment.push(("rows".to_string(), sweep.rows.to_string()));
    Ok(Report {
        title: format!("{}: how many bits?", name.as_deref().unwrap_or("the model")),
        verdict: sweep.verdict.clone(),
        metric: sweep.metric,
        max_drop: Some(affordable_drop(sweep)),
        reference: Point {
            label: "float".to_string(),
            metric: sweep.float.metric,
            file_bytes: sweep.float.file_bytes,
            weight_bytes: sweep.float.weight_bytes,
            agreement: None,
            latency_ms: Some(sweep.float.latency_ms),
            energy_j: None,
            drop_interval: None,
            choice: Choice::Measured,
        },
        points: points.collect(),
        sensitivity: Vec::new(),
        histograms: plan.map_or(Ok(Vec::new()), |plan| worst_weights(source, plan))?,
        plan: plan.cloned(),
        environment,
        how: how(sweep),
        notes: sweep.notes.clone(),
    })
}

fn how(sweep: &Sweep) -> Vec<(String, String)> {
    [
        (
            "metric",
            format!(
                "{} of each saved file, opened again and run on all {} rows",
                sweep.metric, sweep.rows
            ),
        ),
        ("agreement", "rows on which a file predicts what the float model predicts".to_string()),
        ("file bytes", "the whole file, external data included".to_string()),
        ("weight bytes", "the constant tensors in the file, scales and zero points too".to_string()),
        (
            "latency",
            format!(
                "the median call with one row; calls of all models take turns, about {} ms for each",
                TIMING.as_millis()
            ),
        ),
    ]
    .map(|(figure, how)| (figure.to_string(), how))
    .to_vec()
}
