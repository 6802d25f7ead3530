//! Whether a model may be given the rows of data in parts: the answers must be those of one call.
//!
//! Where the graph tells that each row is computed from the same row of the inputs alone, nothing is
//! run. Elsewhere some rows are given together and one by one: a recurrence over the first axis or a
//! mean over the batch answers otherwise then. It also shows along which axis outputs have the rows.

use fewbits_engine::{RowsKnown, RunOptions, Runner, Tensor, rows_known};
use fewbits_onnx::Model;

use crate::data::{Cut, Dataset};
use crate::run::{row_axis, rows_a_call, runner};

/// Rows that are given together and one by one.
const TRIED: usize = 3;
/// Signal to noise in decibels above which two answers are the same but for rounding. A mean over the
/// batch may count for little in an answer, so that of floats no more is forgiven than their last bits.
const FLOAT_DB: f64 = 80.0;
/// The same where floats become one of few integers, which may be the next one now and then.
const ROUNDED_DB: f64 = 30.0;
/// The same where a batch has scales in common, as with `DynamicQuantizeLinear`.
const SCALED_DB: f64 = 10.0;

/// The data, with how it may be cut for `model` where it has more than `uncut` rows.
///
/// What cannot be run is left to whoever runs it.
pub fn for_model(data: Dataset, model: &Model, uncut: usize) -> Dataset {
    if data.rows() <= uncut || data.is_one_call() || rows_known(model) == RowsKnown::Apart {
        return data;
    }
    match runner(model, &RunOptions::default()) {
        Ok(runner) => {
            let cut = of_runner(&data, &runner);
            data.with_cut(cut)
        }
        Err(_) => data,
    }
}

/// How the rows of data may be cut for `runner`.
pub fn of_runner(data: &Dataset, runner: &dyn Runner) -> Cut {
    let known = runner.rows_known();
    if data.rows() < 2 {
        return Cut::Anywhere;
    }
    if let Some(rows) = rows_a_call(runner, data) {
        let Ok(outputs) = runner.run(&data.filled(0..rows, rows)) else { return Cut::Anywhere };
        let axes = runner.outputs().iter().zip(&outputs);
        let axes = axes.map(|(spec, (_, output))| row_axis(Some(spec), output, rows).unwrap_or(0));
        return Cut::Along(axes.collect());
    }
    let least_db = match known {
        RowsKnown::Apart => return Cut::Anywhere,
        RowsKnown::Mixed => return Cut::Nowhere,
        RowsKnown::Unknown => FLOAT_DB,
        RowsKnown::Rounded => ROUNDED_DB,
        RowsKnown::Scaled => SCALED_DB,
    };
    match tried(runner, data, least_db) {
        Ok(Some(axes)) => Cut::Along(axes),
        Ok(None) => Cut::Nowhere,
        // Whoever runs it tells.
        Err(_) => Cut::Anywhere,
    }
}

/// The axis of each output along which rows lie; `None` if they are not computed apart.
fn tried(
    runner: &dyn Runner,
    data: &Dataset,
    least_db: f64,
) -> fewbits_engine::Result<Option<Vec<usize>>> {
    let sample = data.sample(TRIED);
    let together = runner.run(&sample.batch(0..sample.rows()))?;
    let mut apart: Vec<Vec<Tensor>> = vec![Vec::new(); together.len()];
    for row in 0..sample.rows() {
        let outputs = runner.run(&sample.batch(row..row + 1));
        // A recurrence may insist on more than a row.
        let Ok(outputs) = outputs else { return Ok(None) };
        for (parts, (_, output)) in apart.iter_mut().zip(outputs) {
            parts.push(output);
        }
    }
    let axes = together.iter().zip(apart).map(|((_, whole), parts)| {
        let axis = (0..whole.shape().len()).find(|&axis| {
            let size = |tensor: &Tensor| tensor.shape().get(axis).copied();
            size(whole) == Some(sample.rows()) && parts.iter().all(|part| size(part) == Some(1))
        })?;
        let joined = Tensor::concat_axis(axis, parts).ok()?;
        are_same(whole, &joined, least_db).then_some(axis)
    });
    Ok(axes.collect())
}

/// Whether two answers are the same but for rounding.
fn are_same(a: &Tensor, b: &Tensor, least_db: f64) -> bool {
    if a.shape() != b.shape() {
        return false;
    }
    let (Some(a), Some(b)) = (a.to_f64(), b.to_f64()) else { return a == b };
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&a, &b) in a.iter().zip(&b) {
        if a == b || a.is_nan() && b.is_nan() {
            signal += if a.is_finite() { a * a } else { 0.0 };
            continue;
        }
        signal += a * a;
        noise += (a - b) * (a - b);
    }
    noise == 0.0 || 10.0 * (signal / noise).log10() >= least_db
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_same_but_for_rounding() {
        let of = |values: &[f32]| Tensor::new(vec![values.len()], values.to_vec()).unwrap();
        let a = of(&[1.0, -2.0, f32::NAN, f32::INFINITY]);
        assert!(are_same(&a, &a, ROUNDED_DB));
        assert!(are_same(&a, &of(&[1.001, -2.0, f32::NAN, f32::INFINITY]), ROUNDED_DB));
        let far = of(&[1.2, -2.0, f32::NAN, f32::INFINITY]);
        assert!(!are_same(&a, &far, ROUNDED_DB) && are_same(&a, &far, SCALED_DB));
        assert!(!are_same(&a, &of(&[1.0, -2.0, 0.0, f32::INFINITY]), SCALED_DB));
        assert!(!are_same(&a, &of(&[1.0]), SCALED_DB));
    }
}
