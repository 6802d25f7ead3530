//! Running a model over rows of a data set.

use std::ops::Range;

use fewbits_onnx::Model;
pub use fewbits_runtime::RunOptions;
use fewbits_runtime::{FloatRunner, IntegerRunner, Reach, Runner, RuntimeError, Tensor};

use crate::data::Dataset;
use crate::{Error, Result};

/// Rows at a time: enough to keep threads busy, few enough that the activations of an image model
/// stay small.
pub const BATCH_ROWS: usize = 64;

/// Loads a model for running, its quantized parts on integers; errors name its file.
pub fn runner(model: &Model, options: &RunOptions) -> Result<IntegerRunner> {
    IntegerRunner::new(model, options).map_err(|source| named(model, source))
}

/// Loads a model for running in floats, its quantized parts as the floats they stand for; errors
/// name its file.
pub fn float_runner(model: &Model, options: &RunOptions) -> Result<FloatRunner> {
    FloatRunner::new(model, options).map_err(|source| named(model, source))
}

/// Loads what computes `values` of a model, as far as the executor can; errors name its file.
pub fn part_for(model: &Model, values: &[String], options: &RunOptions) -> Result<Reach> {
    FloatRunner::for_values(model, values, options).map_err(|source| named(model, source))
}

fn named(model: &Model, source: RuntimeError) -> Error {
    match model.path() {
        Some(path) => Error::Model { path: path.to_path_buf(), source },
        None => Error::Runtime(source),
    }
}

/// The outputs of `runner` for the rows `range` of `data`.
///
/// A model that fixes the number of rows is run as often as needed, the last time on rows filled
/// up with copies of the last one.
pub fn run_rows(
    runner: &dyn Runner,
    data: &Dataset,
    range: Range<usize>,
) -> Result<Vec<(String, Tensor)>> {
    let Some(fixed) = runner.inputs().iter().find_map(|spec| spec.fixed_rows()) else {
        return Ok(runner.run(&data.batch(range))?);
    };
    let mut joined: Vec<(String, Vec<Tensor>)> = Vec::new();
    for start in range.clone().step_by(fixed) {
        let rows = start..(start + fixed).min(range.end);
        let inputs = filled(data.batch(rows.clone()), fixed)?;
        for (i, (name, tensor)) in runner.run(&inputs)?.into_iter().enumerate() {
            if joined.len() == i {
                joined.push((name, Vec::new()));
            }
            joined[i].1.push(if tensor.rows() == fixed {
                tensor.slice_rows(0..rows.len())
            } else {
                tensor
            });
        }
    }
    joined.into_iter().map(|(name, parts)| Ok((name, Tensor::concat_rows(parts)?))).collect()
}

/// One row of data, or as many as the model insists on: the input of one call.
pub fn one_call(runner: &dyn Runner, data: &Dataset) -> Result<Vec<(String, Tensor)>> {
    let rows = runner.inputs().iter().find_map(|spec| spec.fixed_rows()).unwrap_or(1);
    filled(data.batch(0..rows), rows)
}

fn filled(inputs: Vec<(String, Tensor)>, rows: usize) -> Result<Vec<(String, Tensor)>> {
    inputs
        .into_iter()
        .map(|(name, tensor)| {
            let have = tensor.rows();
            if have >= rows {
                return Ok((name, tensor));
            }
            let last = tensor.slice_rows(have.saturating_sub(1)..have);
            let mut parts = vec![tensor];
            parts.resize(1 + rows - have, last);
            Ok((name, Tensor::concat_rows(parts)?))
        })
        .collect()
}
