//! How far the outputs of a quantized model are from those of the float model.

use std::ops::Range;

use fewbits_engine::{Engine, RunOptions, Runner, Tensor, Values};
use fewbits_onnx::Model;
use rayon::prelude::*;

use crate::Result;
use crate::data::Dataset;
use crate::evaluate::{OutputError, OutputErrors};
use crate::padding::Tokens;
use crate::progress::Progress;
use crate::run::{ConcurrentCalls, batches_at_once, run_rows, runner};

/// Rows at a time.
const BATCH_ROWS: usize = 8;

/// The float model's outputs on some rows.
pub struct Trial {
    sample: Dataset,
    run: RunOptions,
    outputs: Vec<Output>,
    expected: Vec<Vec<Tensor>>,
}

/// An output of the model.
pub struct Output {
    /// Its name.
    pub name: String,
    /// Whether it holds floats: labels and indices have no error.
    pub is_float: bool,
}

impl Trial {
    /// Runs the float model.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn new(model: &Model, sample: Dataset, run: &RunOptions) -> Result<Trial> {
        let run = run.clone();
        let runner = runner(model, &run)?;
        let expected = outputs(&runner, &sample)?;
        let first = expected.iter().flatten();
        let outputs = runner.outputs().iter().zip(first).map(|(spec, tensor)| Output {
            name: spec.name.clone(),
            is_float: matches!(tensor.values(), Values::F32(_) | Values::F64(_)),
        });
        Ok(Trial { outputs: outputs.collect(), sample, run, expected })
    }

    /// The model's outputs, in their order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The error of the outputs of `model` relative to their power, the mean of all float outputs.
    /// `None`, with a warning that `what` was not tried, if there are none or the model cannot be run:
    /// other runtimes may well run a form that ours lacks.
    pub fn error(&self, model: Model, what: &str, progress: &dyn Progress) -> Option<f64> {
        let why = match self.measured(model) {
            Ok(Some(error)) => return Some(error),
            Ok(None) => "the model has no float output, or none but zeros".to_string(),
            Err(error) => error.to_string(),
        };
        progress.warn(&format!("{what} could not be tried on the data: {why}"));
        None
    }

    fn measured(&self, model: Model) -> Result<Option<f64>> {
        let errors = self.errors(model)?;
        let relative: Vec<f64> = errors.each().filter_map(OutputError::relative).collect();
        let mean = relative.iter().sum::<f64>() / relative.len() as f64;
        Ok((!relative.is_empty()).then_some(mean))
    }

    /// The errors of the outputs of `model`.
    ///
    /// # Errors
    /// If the model cannot be run.
    pub fn errors(&self, model: Model) -> Result<OutputErrors> {
        let runner = runner(&model, &self.run)?;
        // The executor has its own copy of the weights.
        drop(model);
        let mut errors = OutputErrors::default();
        for (expected, given) in self.expected.iter().zip(outputs(&runner, &self.sample)?) {
            errors.push(expected, &given, None)?;
        }
        Ok(errors)
    }
}

fn outputs(runner: &Engine, sample: &Dataset) -> Result<Vec<Vec<Tensor>>> {
    let runner = ConcurrentCalls(runner);
    let of_batch = |rows: &Range<usize>| {
        let tokens = Tokens::of(&sample.batch(rows.clone()));
        let outputs = run_rows(&runner, sample, rows.clone())?;
        let outputs: Vec<Tensor> =
            outputs.into_iter().map(|(_, tensor)| tensor.widened()).collect();
        Ok(match tokens {
            Some(tokens) => tokens.only(&outputs),
            None => outputs,
        })
    };
    let batches: Vec<Range<usize>> = sample.batches(BATCH_ROWS).collect();
    let mut outputs = Vec::with_capacity(batches.len());
    for together in batches.chunks(batches_at_once()) {
        outputs.extend(together.par_iter().map(of_batch).collect::<Result<Vec<_>>>()?);
    }
    Ok(outputs)
}
