//! What looks at the values of batches.

use std::collections::HashMap;
use std::ops::Range;

use fewbits_engine::{Runner, Tensor, Values};
use fewbits_quant::{ChannelObserver, Granularity, Layout, Observer};
use rayon::prelude::*;

use super::{Padding, Wanted};
use crate::data::Dataset;
use crate::layers::ChannelAxis;
use crate::padding::{Tokens, for_each_part};
use crate::run::run_rows;
use crate::{Error, Result};

/// The values of one batch.
pub(super) struct Computed {
    pub rows: usize,
    values: HashMap<String, Tensor>,
    /// The positions that are not only padding, where some are.
    tokens: Option<Tokens>,
    padding: Padding,
}

impl Computed {
    pub fn new(
        runner: &dyn Runner,
        data: &Dataset,
        rows: Range<usize>,
        padding: Padding,
    ) -> Result<Computed> {
        let inputs = data.batch(rows.clone());
        let tokens = Tokens::of(&inputs);
        let count = rows.len();
        // Where all that is observed is an input, there is nothing to compute.
        let outputs = match runner.outputs() {
            [] => Vec::new(),
            _ => run_rows(runner, data, rows).map_err(|error| match error {
                Error::Runtime(source) => {
                    Error::CalibrationRun { path: data.path().to_path_buf(), source }
                }
                error => error,
            })?,
        };
        // What is observed is computed in floats, halves too.
        let values = inputs.into_iter().chain(outputs);
        let values = values.map(|(name, tensor)| (name, tensor.widened())).collect();
        Ok(Computed { rows: count, values, tokens, padding })
    }

    /// The positions to look at, where there are others.
    fn observed(&self) -> Option<&Tokens> {
        self.tokens.as_ref().filter(|_| self.padding == Padding::LeftOut)
    }

    /// What the values take.
    pub fn bytes(&self) -> usize {
        let elements: usize = self.values.values().map(Tensor::len).sum();
        elements * size_of::<f32>()
    }
}

/// Everything that looks at values.
pub(super) struct Watchers {
    pub observers: HashMap<String, Observer>,
    pub channels: HashMap<String, ChannelWatch>,
}

/// Looks at the channels of one value.
pub(super) struct ChannelWatch {
    axis: ChannelAxis,
    /// Made when the number of channels is known.
    pub observer: Option<ChannelObserver>,
    /// Whether NaN or infinities were seen, other than of padding: there they reach nobody.
    spoiled: bool,
}

/// One of them.
enum Watcher<'a> {
    Values(&'a mut Observer),
    Channels(&'a mut ChannelWatch),
}

impl Watchers {
    /// All that is wanted, but what is `lost`.
    pub fn new(wanted: &Wanted, lost: impl Fn(&String) -> bool) -> Watchers {
        let values = wanted.values.iter().filter(|v| !lost(v));
        let channels = wanted.channels.iter().filter(|(v, _)| !lost(v));
        let watch = |&axis: &ChannelAxis| ChannelWatch { axis, observer: None, spoiled: false };
        Watchers {
            observers: values.map(|v| (v.clone(), Observer::new())).collect(),
            channels: channels.map(|(v, axis)| (v.clone(), watch(axis))).collect(),
        }
    }

    /// Looks at the values of some batches.
    pub fn observe(&mut self, batches: &[Computed]) -> Result<()> {
        let values = self.observers.iter_mut().map(|(name, o)| (name, Watcher::Values(o)));
        let channels = self.channels.iter_mut().map(|(name, c)| (name, Watcher::Channels(c)));
        let watchers: Vec<(&String, Watcher)> = values.chain(channels).collect();
        watchers
            .into_par_iter()
            .map(|(name, mut watcher)| {
                // In the order of the rows: sums depend on it.
                batches.iter().try_for_each(|batch| {
                    watcher
                        .observe(batch, name)
                        .map_err(|source| Error::Quant { tensor: name.clone(), source })
                })
            })
            .collect()
    }

    /// The first of `values` that held NaN or infinities.
    pub fn not_finite<'v>(&self, values: &[&'v String]) -> Option<&'v String> {
        let spoiled = |value: &String| {
            self.observers.get(value).is_some_and(|o| o.count_not_finite() > 0)
                || self.channels.get(value).is_some_and(|c| c.spoiled)
        };
        values.iter().copied().find(|value| spoiled(value))
    }
}

impl Watcher<'_> {
    fn observe(&mut self, batch: &Computed, name: &str) -> fewbits_quant::Result<()> {
        let Some(tensor) = batch.values.get(name) else { return Ok(()) };
        let Values::F32(values) = tensor.values() else { return Ok(()) };
        match self {
            Watcher::Values(observer) => {
                for_each_part(batch.observed(), tensor.shape(), values, |_, part| {
                    observer.observe(part);
                    Ok(())
                })
            }
            Watcher::Channels(watch) => watch.observe(batch, tensor.shape(), values),
        }
    }
}

impl ChannelWatch {
    fn observe(
        &mut self,
        batch: &Computed,
        shape: &[usize],
        values: &[f32],
    ) -> fewbits_quant::Result<()> {
        let before = self.count_not_finite();
        for_each_part(batch.observed(), shape, values, |shape, part| {
            self.observe_part(shape, part)
        })?;
        if self.count_not_finite() > before {
            for_each_part(batch.tokens.as_ref(), shape, values, |_, part| {
                self.spoiled |= part.iter().any(|x| !x.is_finite());
                Ok(())
            })?;
        }
        Ok(())
    }

    fn observe_part(&mut self, shape: &[usize], values: &[f32]) -> fewbits_quant::Result<()> {
        let Some(axis) = self.axis.of(shape.len()) else { return Ok(()) };
        let layout = Layout::new(shape, Granularity::Channel { axis })?;
        self.observer
            .get_or_insert_with(|| ChannelObserver::new(layout.params()))
            .observe(values, &layout)
    }

    fn count_not_finite(&self) -> u64 {
        self.observer.as_ref().map_or(0, ChannelObserver::count_not_finite)
    }
}
