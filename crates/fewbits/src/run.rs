//! Running a model over rows of a data set.

use std::ops::Range;

use fewbits_onnx::Model;
pub use fewbits_runtime::RunOptions;
use fewbits_runtime::{IntegerRunner, Reach, Runner, RuntimeError, Tensor, ValueSpec};

use crate::data::Dataset;
use crate::{Error, Result};

/// Rows at a time: enough to keep threads busy, few enough that the activations of an image model
/// stay small.
pub const BATCH_ROWS: usize = 64;

/// So many batches at once keep any number of threads busy: where there are more, each batch is
/// divided among them too. Every batch takes memory.
const MOST_BATCHES: usize = 4;

/// Batches that are run at once: less waiting than when each step of one is divided among the threads.
pub fn batches_at_once() -> usize {
    rayon::current_num_threads().min(MOST_BATCHES)
}

/// Whether each of them is computed on a thread of its own, so that more may be handed out together: no more
/// than there are threads are in memory.
pub fn each_on_a_thread() -> bool {
    rayon::current_num_threads() <= MOST_BATCHES
}

/// A runner that is called for [`batches_at_once`].
pub struct Beside<'a>(pub &'a dyn Runner);

impl Runner for Beside<'_> {
    fn inputs(&self) -> &[ValueSpec] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[ValueSpec] {
        self.0.outputs()
    }

    fn run(&self, inputs: &[(String, Tensor)]) -> fewbits_runtime::Result<Vec<(String, Tensor)>> {
        match each_on_a_thread() {
            true => self.0.run_alone(inputs),
            false => self.0.run(inputs),
        }
    }
}

/// Loads a model for running, its quantized parts on integers; errors name its file.
pub fn runner(model: &Model, options: &RunOptions) -> Result<IntegerRunner> {
    IntegerRunner::new(model, options).map_err(|source| named(model, source))
}

/// Loads what computes `values` of a model, as far as the executor can; errors name its file.
pub fn part_for(model: &Model, values: &[String], options: &RunOptions) -> Result<Reach> {
    Reach::of(model, values, options).map_err(|source| named(model, source))
}

/// An error of the executor with the name of the model's file.
pub(crate) fn named(model: &Model, source: RuntimeError) -> Error {
    match model.path() {
        Some(path) => Error::Model { path: path.to_path_buf(), source },
        None => Error::Runtime(source),
    }
}

/// The outputs of `runner` for the rows `range` of `data`.
///
/// A model that fixes the number of rows is run as often as needed, the last time on rows filled
/// up with the first ones again.
pub fn run_rows(
    runner: &dyn Runner,
    data: &Dataset,
    range: Range<usize>,
) -> Result<Vec<(String, Tensor)>> {
    let fixed = if data.is_one_call() { None } else { rows_a_call(runner, data) };
    let Some(fixed) = fixed else {
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
    call_of(data, fixed_rows(runner).unwrap_or(1))
}

/// The first `rows` rows of data, over again where there are fewer: the input of one call.
pub fn call_of(data: &Dataset, rows: usize) -> Result<Vec<(String, Tensor)>> {
    filled(data.batch(0..rows), rows)
}

/// The rows of every call, where the model or the data insist on a number.
pub fn rows_a_call(runner: &dyn Runner, data: &Dataset) -> Option<usize> {
    fixed_rows(runner).or(data.most_rows_a_call())
}

/// The number of rows that a model insists on.
pub fn fixed_rows(runner: &dyn Runner) -> Option<usize> {
    runner.inputs().iter().find_map(|spec| spec.fixed_rows())
}

/// Repeats the rows of each input until there are `rows`.
fn filled(inputs: Vec<(String, Tensor)>, rows: usize) -> Result<Vec<(String, Tensor)>> {
    inputs
        .into_iter()
        .map(|(name, tensor)| {
            let have = tensor.rows();
            if have >= rows || have == 0 {
                return Ok((name, tensor));
            }
            let parts: Vec<Tensor> = (0..rows)
                .step_by(have)
                .map(|start| tensor.slice_rows(0..have.min(rows - start)))
                .collect();
            Ok((name, Tensor::concat_rows(parts)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_repeated_in_order() {
        let rows = Tensor::new(vec![2, 2], vec![1i64, 2, 3, 4]).unwrap();
        let fill =
            |count: usize| filled(vec![("x".into(), rows.clone())], count).unwrap().remove(0).1;
        let expected = Tensor::new(vec![5, 2], vec![1i64, 2, 3, 4, 1, 2, 3, 4, 1, 2]).unwrap();
        assert_eq!(fill(5), expected);
        assert_eq!(fill(2), rows);
    }
}
