//! A sweep as a page.

use fewbits_onnx::Model;

use super::verdict::affordable_drop;
use super::{Sweep, TIMING};
use crate::Result;
use crate::report::{Choice, Point, Report, how_files, worst_weights};

/// The report of a sweep of `source`.
///
/// # Errors
/// If the weights of the source cannot be read again.
pub fn report(sweep: &Sweep, source: &Model) -> Result<Report> {
    let name = source.path().and_then(|p| p.file_name()).map(|name| name.to_string_lossy());
    let chosen = sweep.advised.map(|advised| advised.bits);
    let points = sweep.points.iter().map(|p| Point {
        agreement: Some(p.agreement),
        latency_ms: Some(p.latency_ms),
        choice: if chosen == Some(p.bits) { Choice::Chosen } else { Choice::Measured },
        ..Point::new(&p.bits.to_string(), p.metric, p.file_bytes, p.weight_bytes)
    });
    // Where no width is advised, the widest shows what is lost even then.
    let widest = sweep.points.iter().map(|p| p.bits).max();
    let shown = sweep.points.iter().position(|p| Some(p.bits) == chosen.or(widest));
    let plan = shown.map(|at| &sweep.plans[at]);
    let float = &sweep.float;
    let mut environment = sweep.environment.lines();
    environment.push(("rows".to_string(), sweep.rows.to_string()));
    Ok(Report {
        title: format!("{}: how many bits?", name.as_deref().unwrap_or("the model")),
        verdict: sweep.verdict.clone(),
        metric: sweep.metric,
        max_drop: Some(affordable_drop(sweep)),
        reference: Point {
            latency_ms: Some(float.latency_ms),
            ..Point::new("float", float.metric, float.file_bytes, float.weight_bytes)
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
    let mut how = how_files(sweep.metric, sweep.rows);
    let latency = format!(
        "the median call with one row; calls of all models take turns, about {} ms for each",
        TIMING.as_millis()
    );
    how.push(("latency".to_string(), latency));
    how
}
