//! Observing activations: one batch at a time, in bounded memory.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_quant::Observer;
use fewbits_runtime::{RunOptions, Runner, Tensor, Values};
use rayon::prelude::*;

use crate::data::Dataset;
use crate::progress::Progress;
use crate::run::{run_rows, runner};
use crate::{Error, Result};

/// Rows at a time: every observed activation of a batch is in memory at once.
const BATCH_ROWS: usize = 16;
/// Rows whose outputs are kept, to measure candidates against.
pub const REFERENCE_ROWS: usize = 64;

/// What was observed.
pub struct Calibration {
    /// One observer for each value asked for.
    pub observers: HashMap<String, Observer>,
    /// Rows observed.
    pub rows: usize,
    /// The float model's outputs for the first rows.
    pub reference: Vec<Tensor>,
}

/// Runs the data through the float model and observes `values`.
///
/// # Errors
/// If the model cannot be run, or an input or activation holds NaN or infinities, by name.
pub fn calibrate(
    model: &Model,
    data: &Dataset,
    values: &[String],
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Calibration> {
    let is_input = |v: &String| model.graph().input.iter().any(|i| i.name() == v);
    let intermediates: Vec<String> = values.iter().filter(|v| !is_input(v)).cloned().collect();
    let options = RunOptions { intermediates, ..run.clone() };
    let runner = runner(model, &options)?;
    let own_outputs = model.graph().output.len();
    let mut observers: HashMap<String, Observer> =
        values.iter().map(|v| (v.clone(), Observer::new())).collect();
    let mut reference: Vec<Vec<Tensor>> = vec![Vec::new(); own_outputs];
    progress.start("calibrating", data.rows() as u64);
    for rows in data.batches(
        BATCH_ROWS.min(runner.inputs().iter().find_map(|i| i.fixed_rows()).unwrap_or(BATCH_ROWS)),
    ) {
        let inputs: HashMap<String, Tensor> = data.batch(rows.clone()).into_iter().collect();
        let outputs = run_rows(&runner, data, rows.clone())?;
        if rows.start < REFERENCE_ROWS {
            for (kept, (_, tensor)) in reference.iter_mut().zip(&outputs) {
                kept.push(tensor.clone());
            }
        }
        let seen: HashMap<&str, &Tensor> = outputs
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .chain(inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)))
            .collect();
        observers.par_iter_mut().for_each(|(name, observer)| {
            if let Some(Values::F32(values)) = seen.get(name.as_str()).map(|t| t.values()) {
                observer.observe(values);
            }
        });
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    for value in values {
        if observers[value].count_not_finite() > 0 {
            return Err(Error::Calibration {
                path: data.path().to_path_buf(),
                reason: match is_input(value) {
                    true => format!("input '{value}' holds NaN or infinities; clean the data"),
                    false => format!(
                        "value '{value}' becomes NaN or infinite on this data; check that it is what the model \
                         was trained on, for example with --normalize"
                    ),
                },
            });
        }
    }
    let reference = reference
        .into_iter()
        .map(|parts| Ok(Tensor::concat_rows(parts)?))
        .collect::<Result<_>>()?;
    Ok(Calibration { observers, rows: data.rows(), reference })
}

/// The mean squared error of a candidate's float outputs on the reference rows, relative to the
/// mean square of the float model's.
pub fn output_error(
    candidate: &Model,
    data: &Dataset,
    reference: &[Tensor],
    run: &RunOptions,
) -> Result<f64> {
    let runner = runner(candidate, run)?;
    let rows = reference.first().map_or(0, Tensor::rows).min(data.rows());
    let (mut noise, mut signal) = (0.0, 0.0);
    for start in (0..rows).step_by(BATCH_ROWS) {
        let end = (start + BATCH_ROWS).min(rows);
        let outputs = run_rows(&runner, data, start..end)?;
        for ((_, output), expected) in outputs.iter().zip(reference) {
            let expected = expected.slice_rows(start..end);
            let (Values::F32(a), Values::F32(b)) = (output.values(), expected.values()) else {
                continue;
            };
            for (&x, &y) in a.iter().zip(b) {
                noise += f64::from(x - y) * f64::from(x - y);
                signal += f64::from(y) * f64::from(y);
            }
        }
    }
    Ok(noise / signal.max(f64::MIN_POSITIVE))
}
