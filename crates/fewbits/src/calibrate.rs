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

/// What was observed.
pub struct Calibration {
    /// One observer for each value asked for.
    pub observers: HashMap<String, Observer>,
    /// Rows observed.
    pub rows: usize,
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
    let mut observers: HashMap<String, Observer> =
        values.iter().map(|v| (v.clone(), Observer::new())).collect();
    progress.start("calibrating", data.rows() as u64);
    // One call at a time where the model fixes its rows: not every activation has them as an axis.
    let fixed = runner.inputs().iter().find_map(|i| i.fixed_rows());
    for rows in data.batches(BATCH_ROWS.min(fixed.unwrap_or(BATCH_ROWS))) {
        let inputs: HashMap<String, Tensor> = data.batch(rows.clone()).into_iter().collect();
        let outputs = run_rows(&runner, data, rows.clone())?;
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
    Ok(Calibration { observers, rows: data.rows() })
}
