//! Observing activations: one batch at a time, in bounded memory.

mod watch;

use std::collections::HashMap;
use std::ops::Range;

use fewbits_engine::{Lacking, OutOfReach, Reach, RunOptions};
use fewbits_onnx::Model;
use fewbits_quant::{ChannelSeen, Observer};
use rayon::prelude::*;

use crate::data::{Dataset, missing_in};
use crate::error::file_of;
use crate::hint::Setting;
use crate::layers::ChannelAxis;
use crate::not_finite;
use crate::progress::Progress;
use crate::run::{ConcurrentCalls, batches_at_once, part_for, rows_a_call};
use crate::{Error, Result};

use watch::{Computed, Watchers};

/// What was seen of the channels of activations, by their names.
pub type Channels = HashMap<String, Vec<ChannelSeen>>;

/// An activation that is another one after edits that leave the outputs as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescaled {
    /// Its name before.
    pub value: String,
    /// Its name afterwards.
    pub now: String,
    /// What its channels are multiplied by.
    pub by: Vec<f32>,
    /// Activations before it that change too.
    pub between: Vec<String>,
}

/// What is to be observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Values of which a histogram is kept.
    pub values: Vec<String>,
    /// Values whose channels are watched, and where these lie.
    pub channels: Vec<(String, ChannelAxis)>,
    /// What is done with positions that only fill up a batch.
    pub padding: Padding,
}

/// What is done with the activations of padding, which attention leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// They are not observed.
    #[default]
    LeftOut,
    /// They are observed like others.
    Observed,
}

/// What was observed.
#[derive(Clone, Default)]
pub struct Calibration {
    /// One observer for each value asked for that could be computed.
    pub observers: HashMap<String, Observer>,
    /// What was seen of the channels of each value asked for that has floats.
    pub channels: Channels,
    /// The values asked for that could not be computed.
    pub out_of_reach: Vec<OutOfReach>,
    /// Rows observed.
    pub rows: usize,
    /// What the values of one row took, in bytes.
    pub bytes_per_row: usize,
}

impl Calibration {
    /// Why `value` has no range.
    pub fn why_float(&self, value: &str) -> String {
        match self.out_of_reach.iter().find(|o| o.value == value) {
            Some(lost) => format!(
                "it lies behind {}, which the executor lacks: no calibration data reaches it",
                lost.behind
            ),
            None => "it had no values on the calibration data".into(),
        }
    }

    /// What would have been observed of the model after edits that rescale some activations, as
    /// far as that follows: the histograms of those are taken from `sample`, what was observed of
    /// the edited model on some of the rows, their extremes and channels from all rows.
    pub fn rescaled(&self, rescaled: &[Rescaled], sample: &Calibration) -> Calibration {
        let mut after = self.clone();
        for (value, observer) in &sample.observers {
            let changed = rescaled.iter().any(|r| r.now == *value || r.between.contains(value));
            if changed || !after.observers.contains_key(value) {
                after.observers.insert(value.clone(), observer.clone());
            }
        }
        for Rescaled { value, now, by, .. } in rescaled {
            let Some(seen) = self.channels.get(value).filter(|s| s.len() == by.len()) else {
                continue;
            };
            let channels: Vec<ChannelSeen> =
                seen.iter().zip(by).map(|(c, &factor)| c.scaled(factor)).collect();
            if let Some(observer) = after.observers.get_mut(now) {
                let low = channels.iter().fold(0f32, |low, c| low.min(c.low));
                let high = channels.iter().fold(0f32, |high, c| high.max(c.high));
                observer.observe(&[low, high]);
            }
            after.channels.insert(now.clone(), channels);
        }
        after
    }
}

/// Rows at a time: every observed activation of a batch is in memory at once.
#[derive(Clone, Copy)]
enum Batch {
    /// As many as have so many bytes of observed activations, after the first row, which is run
    /// alone.
    OfBytes(usize),
    /// So many.
    #[cfg(test)]
    OfRows(usize),
}

/// Two rows of a small image model, one of a transformer. More took more memory and no less time.
const BATCH: Batch = Batch::OfBytes(1 << 20);
/// More rows at a time gain nothing however small they are.
const MOST_ROWS: usize = 64;

/// Runs the data through the float model and observes what is wanted.
///
/// Values behind a node that the executor lacks are not observed; a warning names it.
///
/// # Errors
/// If no value can be computed, the model cannot be run, or an input or activation holds NaN or
/// infinities, by name.
pub fn calibrate(
    model: &Model,
    data: &Dataset,
    wanted: &Wanted,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Calibration> {
    in_batches(BATCH, model, data, wanted, run, progress)
}

fn in_batches(
    batch: Batch,
    model: &Model,
    data: &Dataset,
    wanted: &Wanted,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Calibration> {
    let mut values: Vec<&String> = wanted.values.iter().collect();
    for (value, _) in &wanted.channels {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    if values.is_empty() {
        return Ok(Calibration::default());
    }
    let is_input = |v: &str| model.graph().input.iter().any(|i| i.name() == v);
    let inside: Vec<String> =
        values.iter().filter(|v| !is_input(v)).map(|v| v.to_string()).collect();
    let Reach { runner, lacking, out_of_reach } = part_for(model, &inside, run)?;
    let (runner, at_once) = (ConcurrentCalls(&*runner), batches_at_once());
    let lost = |value: &String| out_of_reach.iter().any(|o| o.value == *value);
    if !wanted.values.is_empty() && wanted.values.iter().all(lost) {
        return Err(Error::OutOfReach { file: file_of(model), lacking: listed(&lacking) });
    }
    let mut watchers = Watchers::new(wanted, lost);
    progress.start("calibrating", data.rows() as u64);
    // One call at a time where the model fixes its rows: not every activation has them as an axis.
    let fixed = rows_a_call(&runner, data);
    let mut size = fixed.unwrap_or(match batch {
        Batch::OfBytes(_) => 1,
        #[cfg(test)]
        Batch::OfRows(rows) => rows,
    });
    size = data.part(size);
    let compute = |rows: Range<usize>| Computed::new(&runner, data, rows, wanted.padding);
    let first = compute(0..size.min(data.rows()))?;
    let mut start = first.rows;
    let bytes_per_row = first.bytes() / first.rows;
    progress.advance(first.rows as u64);
    watchers.observe(&[first])?;
    if let (None, Batch::OfBytes(budget)) = (fixed, batch) {
        size = (budget / bytes_per_row.max(1)).clamp(1, MOST_ROWS);
    }
    while start < data.rows() {
        let end = (start + at_once * size).min(data.rows());
        let ranges: Vec<Range<usize>> =
            (start..end).step_by(size).map(|first| first..(first + size).min(end)).collect();
        let batches = ranges.into_par_iter().map(compute).collect::<Result<Vec<_>>>()?;
        watchers.observe(&batches)?;
        progress.advance((end - start) as u64);
        start = end;
    }
    progress.finish();
    if let Some(value) = watchers.not_finite(&values) {
        return Err(why_not_finite(model, data, value, is_input(value))?);
    }
    let Watchers { observers, channels } = watchers;
    // Where activations stay float anyway, nothing is lost that was asked for.
    if !lacking.is_empty() && !wanted.values.is_empty() {
        let float = wanted.values.iter().filter(|v| lost(v)).count();
        progress.warn(&warning(&lacking, float));
    }
    let channels =
        channels.into_iter().filter_map(|(v, watch)| Some((v, watch.observer?.seen()))).collect();
    Ok(Calibration { observers, channels, out_of_reach, rows: data.rows(), bytes_per_row })
}

/// Who is to blame for NaN or infinities in a value: a constant of the model, or the data.
fn why_not_finite(model: &Model, data: &Dataset, value: &str, is_input: bool) -> Result<Error> {
    let reason = match is_input {
        true => match missing_in(data) {
            Some(found) => format!("input '{value}' holds NaN: {found}; clean the data"),
            None => format!("input '{value}' holds infinities; clean the data"),
        },
        false => match not_finite::behind(model, value)? {
            Some(constant) => {
                let (file, constant) = (file_of(model), constant.to_string());
                return Ok(Error::NotFinite { file, constant });
            }
            None => format!(
                "value '{value}' becomes NaN or infinite on this data; check that it is what the \
                 model was trained on, for example with {}",
                Setting::Normalize
            ),
        },
    };
    Ok(Error::Calibration { path: data.path().to_path_buf(), reason })
}

/// What the executor lacks, each thing once with the first node that asks for it.
fn listed(lacking: &[Lacking]) -> String {
    let mut first: Vec<&Lacking> = Vec::new();
    for node in lacking {
        if !first.iter().any(|f| f.what == node.what) {
            first.push(node);
        }
    }
    let named: Vec<String> =
        first.iter().map(|l| format!("{} (node '{}')", l.what, l.node)).collect();
    named.join(", ")
}

fn warning(lacking: &[Lacking], out_of_reach: usize) -> String {
    let cost = match out_of_reach {
        0 => "no activation that would be quantized depends on it".to_string(),
        1 => "1 activation behind it stays float".to_string(),
        n => format!("{n} activations behind it stay float"),
    };
    format!("the executor lacks {}: {cost}; compare and run will refuse the model", listed(lacking))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::{Path, PathBuf};

    use fewbits_quant::RangeMethod;

    use super::*;
    use crate::data::{DataOptions, input_specs};
    use crate::plan::{ActivationScheme, ActivationUse, Plan, Target, WeightOptions, plan_weights};
    use crate::prepare::prepare;
    use crate::progress::Silent;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
    }

    fn planned(batch: Batch, threads: usize) -> Plan {
        let mut model = Model::open(&fixture("digits_cnn/model.onnx")).unwrap();
        prepare(&mut model).unwrap();
        let options = DataOptions { limit: Some(50), ..DataOptions::default() };
        let specs = input_specs(model.graph());
        let data = Dataset::read(&fixture("digits_cnn/calib.npz"), &specs, &options).unwrap();
        let plan = plan_weights(
            &model,
            &WeightOptions::default(),
            ActivationUse::Float,
            Target::default(),
            &Silent,
        )
        .unwrap();
        let placement = plan.placement(&model);
        let values = placement.values.iter().map(|v| v.value.clone()).collect();
        let wanted = Wanted { values, ..Wanted::default() };
        let run = RunOptions { threads: NonZeroUsize::new(threads), ..RunOptions::default() };
        let calibration = in_batches(batch, &model, &data, &wanted, &run, &Silent).unwrap();
        assert_eq!(calibration.rows, 50);
        let range = RangeMethod::Entropy;
        plan.with_static_activations(&placement, &calibration, range, ActivationScheme::UNSIGNED)
    }

    #[test]
    fn what_is_rescaled_follows_from_all_rows_and_the_rest_from_a_sample() {
        let observed = |values: &[f32]| {
            let mut observer = Observer::new();
            observer.observe(values);
            observer
        };
        let channel = |low: f32, high: f32| ChannelSeen {
            low,
            high,
            mean: f64::from(high) / 2.0,
            mean_square: f64::from(high * high),
        };
        let observers = |all: [(&str, &[f32]); 3]| {
            all.into_iter().map(|(name, values)| (name.to_string(), observed(values))).collect()
        };
        let whole = Calibration {
            observers: observers([("a", &[-4.0, 8.0]), ("b", &[0.0, 9.0]), ("c", &[0.0, 5.0])]),
            channels: Channels::from([("a".into(), vec![channel(-4.0, 8.0), channel(-1.0, 1.0)])]),
            rows: 100,
            ..Calibration::default()
        };
        let few = observers([("a_scaled", &[-0.5, 0.5]), ("b", &[0.0, 2.0]), ("c", &[0.0, 1.0])]);
        let sample = Calibration { observers: few, rows: 8, ..Calibration::default() };
        let (value, now) = ("a".to_string(), "a_scaled".to_string());
        let by = vec![0.25, 0.5];
        let rescaled = [Rescaled { value, now, by, between: vec!["b".into()] }];
        let after = whole.rescaled(&rescaled, &sample);
        let ends = |name: &str| after.observers[name].range().unwrap();
        // The extremes of all rows, though the sample had less.
        assert_eq!(ends("a_scaled"), (-1.0, 2.0));
        let expected = [channel(-1.0, 2.0), channel(-0.5, 0.5)];
        assert_eq!(after.channels["a_scaled"], expected);
        // Others read the value as it was.
        assert_eq!((ends("a"), &after.channels["a"]), ((-4.0, 8.0), &whole.channels["a"]));
        // What lies before it changed by what cannot be told; the rest did not change.
        assert_eq!((ends("b"), ends("c")), ((0.0, 2.0), (0.0, 5.0)));
        assert_eq!(after.rows, 100);
    }

    #[test]
    fn batches_and_threads_do_not_change_the_plan() {
        let whole = planned(Batch::OfRows(50), 1);
        assert!(whole.activations.len() > 3);
        for batch in [1, 7, 16, 49].map(Batch::OfRows).into_iter().chain([BATCH]) {
            for threads in [1, 2, 3] {
                assert_eq!(planned(batch, threads), whole);
            }
        }
    }
}
