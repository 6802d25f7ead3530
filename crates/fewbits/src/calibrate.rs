//! Observing activations: one batch at a time, in bounded memory.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_quant::{ChannelObserver, ChannelSeen, Granularity, Layout, Observer};
use fewbits_runtime::{RunOptions, Runner, Tensor, Values};
use rayon::prelude::*;

use crate::data::Dataset;
use crate::methods::{ChannelAxis, Channels, Rescaled};
use crate::progress::Progress;
use crate::run::{run_rows, runner};
use crate::{Error, Result};

/// Rows at a time: every observed activation of a batch is in memory at once.
const BATCH_ROWS: usize = 16;

/// What is to be observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Values of which a histogram is kept.
    pub values: Vec<String>,
    /// Values whose channels are watched, and where these lie.
    pub channels: Vec<(String, ChannelAxis)>,
}

/// What was observed.
#[derive(Clone, Default)]
pub struct Calibration {
    /// One observer for each value asked for.
    pub observers: HashMap<String, Observer>,
    /// What was seen of the channels of each value asked for that has floats.
    pub channels: Channels,
    /// Rows observed.
    pub rows: usize,
    /// What the observed values took, in bytes.
    pub bytes: usize,
}

impl Calibration {
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

/// Runs the data through the float model and observes what is wanted.
///
/// # Errors
/// If the model cannot be run, or an input or activation holds NaN or infinities, by name.
pub fn calibrate(
    model: &Model,
    data: &Dataset,
    wanted: &Wanted,
    run: &RunOptions,
    progress: &dyn Progress,
) -> Result<Calibration> {
    let is_input = |v: &String| model.graph().input.iter().any(|i| i.name() == v);
    let mut intermediates: Vec<String> = Vec::new();
    for value in wanted.values.iter().chain(wanted.channels.iter().map(|(value, _)| value)) {
        if !is_input(value) && !intermediates.contains(value) {
            intermediates.push(value.clone());
        }
    }
    let options = RunOptions { intermediates, ..run.clone() };
    let runner = runner(model, &options)?;
    let mut watchers = Watchers::new(wanted);
    let mut bytes = 0;
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
        bytes += watchers.observe(&seen)?;
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    let Watchers { observers, channel_observers } = watchers;
    for value in &wanted.values {
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
    let channels =
        channel_observers.into_iter().filter_map(|(v, (_, o))| Some((v, o?.seen()))).collect();
    Ok(Calibration { observers, channels, rows: data.rows(), bytes })
}

/// Everything that looks at values.
struct Watchers {
    observers: HashMap<String, Observer>,
    /// Made when the number of channels is known.
    channel_observers: HashMap<String, (ChannelAxis, Option<ChannelObserver>)>,
}

/// One of them.
enum Watcher<'a> {
    Values(&'a mut Observer),
    Channels(&'a mut (ChannelAxis, Option<ChannelObserver>)),
}

impl Watchers {
    fn new(wanted: &Wanted) -> Watchers {
        let channels = wanted.channels.iter();
        Watchers {
            observers: wanted.values.iter().map(|v| (v.clone(), Observer::new())).collect(),
            channel_observers: channels.map(|(v, axis)| (v.clone(), (*axis, None))).collect(),
        }
    }

    /// Looks at the values of one batch; returns the bytes that the watched ones take.
    fn observe(&mut self, seen: &HashMap<&str, &Tensor>) -> Result<usize> {
        let values = self.observers.iter_mut().map(|(name, o)| (name, Watcher::Values(o)));
        let channels =
            self.channel_observers.iter_mut().map(|(name, o)| (name, Watcher::Channels(o)));
        let watchers: Vec<(&String, Watcher)> = values.chain(channels).collect();
        watchers
            .into_par_iter()
            .map(|(name, watcher)| {
                let Some(tensor) = seen.get(name.as_str()) else { return Ok(0) };
                let Values::F32(values) = tensor.values() else { return Ok(0) };
                match watcher {
                    Watcher::Values(observer) => observer.observe(values),
                    Watcher::Channels((axis, observer)) => {
                        observe_channels(*axis, observer, tensor.shape(), values)
                            .map_err(|source| Error::Quant { tensor: name.clone(), source })?;
                    }
                }
                Ok(size_of_val(values.as_slice()))
            })
            .sum()
    }
}

fn observe_channels(
    axis: ChannelAxis,
    observer: &mut Option<ChannelObserver>,
    shape: &[usize],
    values: &[f32],
) -> fewbits_quant::Result<()> {
    let Some(axis) = axis.of(shape.len()) else { return Ok(()) };
    let layout = Layout::new(shape, Granularity::Channel { axis })?;
    observer.get_or_insert_with(|| ChannelObserver::new(layout.params())).observe(values, &layout)
}
