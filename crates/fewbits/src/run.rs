//! Running a model over rows of a data set.

use std::ops::Range;

pub use fewbits_engine::RunOptions;
use fewbits_engine::{Engine, Reach, Runner, RuntimeError, Tensor, ValueSpec};
use fewbits_onnx::{Model, facts};

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

/// Whether a model has convolutions: it computes long with few weights.
pub fn convolves(model: &Model) -> bool {
    model.graph().node.iter().any(facts::convolves)
}

/// A runner that is called for [`batches_at_once`].
pub struct ConcurrentCalls<'a>(pub &'a dyn Runner);

impl Runner for ConcurrentCalls<'_> {
    fn inputs(&self) -> &[ValueSpec] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[ValueSpec] {
        self.0.outputs()
    }

    fn run(&self, inputs: &[(String, Tensor)]) -> fewbits_engine::Result<Vec<(String, Tensor)>> {
        match each_on_a_thread() {
            true => self.0.run_alone(inputs),
            false => self.0.run(inputs),
        }
    }
}

/// Loads a model for running, its quantized parts on integers; errors name its file.
///
/// # Errors
/// If the model is damaged, or no executor has an operator of it.
pub fn runner(model: &Model, options: &RunOptions) -> Result<Engine> {
    Engine::new(model, options).map_err(|source| named(model, source))
}

/// Loads what computes `values` of a model, as far as the executor can; errors name its file.
///
/// # Errors
/// If the model is damaged.
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
///
/// # Errors
/// If the model fails on them, or its outputs do not join.
pub fn run_rows(
    runner: &dyn Runner,
    data: &Dataset,
    range: Range<usize>,
) -> Result<Vec<(String, Tensor)>> {
    let fixed = if data.is_one_call() { None } else { rows_a_call(runner, data) };
    let Some(fixed) = fixed else {
        return Ok(runner.run(&data.batch(range))?);
    };
    let mut outputs = Vec::new();
    for start in range.clone().step_by(fixed) {
        let rows = start..(start + fixed).min(range.end);
        let count = rows.len();
        outputs.push((runner.run(&data.filled(rows, fixed))?, count));
    }
    joined(runner.outputs(), outputs, fixed)
}

/// The outputs of calls that each took `fixed` rows, of which the first `count` matter.
fn joined(
    specs: &[ValueSpec],
    calls: Vec<(Vec<(String, Tensor)>, usize)>,
    fixed: usize,
) -> Result<Vec<(String, Tensor)>> {
    let is_one = calls.len() == 1;
    let mut parts: Vec<(String, Vec<Tensor>)> = Vec::new();
    for (outputs, count) in calls {
        for (i, (name, tensor)) in outputs.into_iter().enumerate() {
            if parts.len() == i {
                parts.push((name, Vec::new()));
            }
            parts[i].1.push(match row_axis(specs.get(i), &tensor, fixed) {
                Some(axis) if count < fixed => tensor.slice_axis(axis, 0..count),
                // What one example gives without an axis of its own gets one in front.
                None if fixed == 1 && !is_one => {
                    let shape = [&[1], tensor.shape()].concat();
                    tensor.reshaped(shape)?
                }
                _ => tensor,
            });
        }
    }
    let join = |(i, (name, parts)): (usize, (String, Vec<Tensor>))| {
        let axis = row_axis(specs.get(i), &parts[0], fixed).unwrap_or(0);
        Ok((name, Tensor::concat_axis(axis, parts)?))
    };
    parts.into_iter().enumerate().map(join).collect()
}

/// The axis of an output that has so many rows: the one that its batch is called by, else the first,
/// else another.
pub(crate) fn row_axis(spec: Option<&ValueSpec>, tensor: &Tensor, rows: usize) -> Option<usize> {
    let has = |axis: &usize| tensor.shape().get(*axis) == Some(&rows);
    let named = spec.and_then(|spec| spec.row_axis).filter(has);
    named.or_else(|| (0..tensor.shape().len()).find(has))
}

/// One row of data, or as many as the model insists on: the input of one call.
pub fn one_call(runner: &dyn Runner, data: &Dataset) -> Vec<(String, Tensor)> {
    call_of(data, fixed_rows(runner).unwrap_or(1))
}

/// The first `rows` rows of data, over again where there are fewer: the input of one call.
pub fn call_of(data: &Dataset, rows: usize) -> Vec<(String, Tensor)> {
    data.filled(0..rows, rows)
}

/// The rows of every call, where the model or the data insist on a number.
pub fn rows_a_call(runner: &dyn Runner, data: &Dataset) -> Option<usize> {
    fixed_rows(runner).or(data.most_rows_a_call())
}

/// The number of rows that a model insists on.
pub fn fixed_rows(runner: &dyn Runner) -> Option<usize> {
    runner.inputs().iter().find_map(|spec| spec.fixed_rows())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        Tensor::new(shape.to_vec(), (0..count as i64).collect::<Vec<_>>()).unwrap()
    }

    fn join(shape: &[usize], counts: &[usize], fixed: usize) -> Vec<usize> {
        let call = |&count: &usize| (vec![("y".to_string(), tensor(shape))], count);
        let calls = counts.iter().map(call).collect();
        joined(&[], calls, fixed).unwrap().remove(0).1.shape().to_vec()
    }

    #[test]
    fn outputs_are_joined_along_the_axis_of_their_rows() {
        assert_eq!(join(&[4, 3], &[4, 4, 2], 4), [10, 3]);
        assert_eq!(join(&[5, 1, 3], &[1, 1, 1], 1), [5, 3, 3]);
        assert_eq!(join(&[5, 4, 3], &[4, 1], 4), [5, 5, 3]);
        assert_eq!(join(&[1, 1], &[1, 1], 1), [2, 1]);
        // What one example gives without an axis of its own gets one.
        assert_eq!(join(&[], &[1, 1], 1), [2]);
        assert_eq!(join(&[3], &[1, 1], 1), [2, 3]);
    }
}
