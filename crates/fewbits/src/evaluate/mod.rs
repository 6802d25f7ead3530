//! A model on data, and others measured against it: the one way in which `compare`, `sweep` and
//! whoever searches tell what quantization cost.
//!
//! The float model runs once. A [`Baseline`] keeps its answers batch by batch, and every other
//! model is measured against those.

mod output_error;

use std::ops::Range;

use fewbits_engine::{Runner, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use output_error::{OutputError, OutputErrors};

use crate::data::{Cut, Dataset};
use crate::interval::DropInterval;
use crate::metric::{Accumulator, Agreement, ExpectedRegret, Metric, PairedDrop};
use crate::padding::Tokens;
use crate::progress::Progress;
use crate::run::{BATCH_ROWS, ConcurrentCalls, batches_at_once, each_on_a_thread, run_rows};
use crate::{Error, Result};

/// What every float output reaches if nothing else is asked for, in decibels: the error has a tenth of its
/// size.
pub const DEFAULT_MIN_SQNR_DB: f64 = 20.0;

/// Answers beyond so many elements are not kept but computed again when they are needed: the scores
/// of a large vocabulary for every token of a data set may not fit into memory.
const KEPT_ELEMENTS: usize = 64 << 20;

/// Elements up to which the answers to a batch are small beside what computing them takes.
const SMALL_ANSWERS: usize = 64 << 10;
/// How many times as many batches are then looked at together.
const FEWER_WAITS: usize = 8;

/// What the reference answers on data, usually the float model, and how good that is.
pub struct Baseline<'a> {
    reference: &'a dyn Runner,
    data: &'a Dataset,
    metric: Metric,
    value: f64,
    batches: Vec<Batch>,
}

/// The reference on some rows.
struct Batch {
    rows: Range<usize>,
    /// The positions that are not only padding, where some are.
    tokens: Option<Tokens>,
    /// Its outputs, where there was room for them.
    kept: Option<Vec<Tensor>>,
}

/// What a model is worth on the data of a [`Baseline`].
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The task metric.
    pub metric: f64,
    /// How much worse that is than the reference's; negative if better.
    pub drop: f64,
    /// Where the drop over all data lies; none where the rows are too few to tell.
    pub drop_interval: Option<DropInterval>,
    /// What accuracy would be lost if the reference's probabilities were right; none where it gives
    /// no scores of classes. See [`ExpectedRegret`].
    pub expected_regret: Option<f64>,
    /// The fraction of rows on which both predict the same.
    pub agreement: f64,
    /// The largest difference between two float outputs.
    pub max_abs_error: f64,
    /// Signal to quantization noise of the float outputs in decibels; none if they are equal.
    pub sqnr_db: Option<f64>,
    /// The float output that is farthest from the reference's; none if all are equal.
    pub worst_output: Option<WorstOutput>,
}

/// The output that is farthest from the reference's: the metric and the mean of all may hide it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstOutput {
    /// Its name.
    pub name: String,
    /// Its signal to quantization noise in decibels.
    pub sqnr_db: f64,
}

impl WorstOutput {
    /// What a user should know of it: none if it is as near as outputs usually are.
    pub fn note(&self) -> Option<String> {
        let WorstOutput { name, sqnr_db } = self;
        (*sqnr_db < DEFAULT_MIN_SQNR_DB).then(|| {
            format!(
                "output '{name}' keeps {sqnr_db:.1} dB of its values, below {DEFAULT_MIN_SQNR_DB}: the metric may not \
                 show it, and who reads them needs more bits"
            )
        })
    }
}

impl<'a> Baseline<'a> {
    /// Runs the reference over the data. `asked` is the metric; without it the usual one for the
    /// labels and outputs is taken. `progress` advances by one for each row.
    ///
    /// # Errors
    /// If the reference cannot be run, there are no labels for the metric, or they do not fit.
    pub fn new(
        reference: &'a dyn Runner,
        data: &'a Dataset,
        asked: Option<Metric>,
        progress: &dyn Progress,
    ) -> Result<Baseline<'a>> {
        Ok(Baseline::beside(reference, &[], data, asked, progress)?.0)
    }

    /// As [`Baseline::new`], and measures others in the same walk through the data: `progress`
    /// advances by one for each row and model.
    ///
    /// # Errors
    /// Those of [`Baseline::new`] and [`Baseline::measure`].
    pub fn beside(
        reference: &'a dyn Runner,
        others: &[&dyn Runner],
        data: &'a Dataset,
        asked: Option<Metric>,
        progress: &dyn Progress,
    ) -> Result<(Baseline<'a>, Vec<Measured>)> {
        let mut batches = Vec::new();
        let mut room = KEPT_ELEMENTS;
        let mut tallies: Option<(Metric, Task, Vec<Tally>)> = None;
        let all: Vec<Range<usize>> = data.batches(BATCH_ROWS).collect();
        let mut left = all.as_slice();
        while !left.is_empty() {
            let (together, behind) = left.split_at(batches_together(&batches).min(left.len()));
            left = behind;
            let answered = answers(reference, data, together)?;
            for (rows, expected) in together.iter().cloned().zip(answered) {
                let (_, task, tallies) = match &mut tallies {
                    Some(tallies) => tallies,
                    None => {
                        let metric = metric_for(asked, data, &expected)?;
                        let of_others = others.iter().map(|_| Tally::new(metric));
                        let of_others = of_others.collect::<Result<_>>()?;
                        tallies.insert((metric, Task::new(metric)?, of_others))
                    }
                };
                task.push(&expected, data, rows.clone())?;
                progress.advance(rows.len() as u64);
                let tokens = Tokens::of(&data.batch(rows.clone()));
                let mut batch = Batch { rows, tokens, kept: None };
                for (runner, tally) in others.iter().zip(tallies) {
                    let given = one_answer(*runner, data, batch.rows.clone())?;
                    tally.push(data, &batch, &expected, &given)?;
                    progress.advance(batch.rows.len() as u64);
                }
                let elements = expected.iter().map(Tensor::len).sum();
                if let Some(left) = room.checked_sub(elements) {
                    room = left;
                    batch.kept = Some(expected);
                }
                batches.push(batch);
            }
        }
        let (metric, task, tallies) = tallies.expect("a data set has at least one row");
        // The reference agrees with itself.
        let value = task.finish(1.0)?;
        let baseline = Baseline { reference, data, metric, value, batches };
        let measured = tallies.into_iter().map(|t| t.finish(&baseline)).collect::<Result<_>>()?;
        Ok((baseline, measured))
    }

    /// Runs a model over the same data and measures it against the reference. `progress` advances
    /// by one for each row.
    ///
    /// # Errors
    /// If it cannot be run, or its outputs are of another kind.
    pub fn measure(&self, runner: &dyn Runner, progress: &dyn Progress) -> Result<Measured> {
        let mut tally = Tally::new(self.metric)?;
        for batches in self.batches.chunks(batches_together(&self.batches)) {
            let rows: Vec<Range<usize>> = batches.iter().map(|batch| batch.rows.clone()).collect();
            for (batch, given) in batches.iter().zip(answers(runner, self.data, &rows)?) {
                match &batch.kept {
                    Some(kept) => tally.push(self.data, batch, kept, &given)?,
                    None => {
                        let again = one_answer(self.reference, self.data, batch.rows.clone())?;
                        tally.push(self.data, batch, &again, &given)?;
                    }
                }
                progress.advance(batch.rows.len() as u64);
            }
        }
        tally.finish(self)
    }

    /// The data.
    pub fn data(&self) -> &'a Dataset {
        self.data
    }

    /// The metric in use.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The metric of the reference.
    pub fn value(&self) -> f64 {
        self.value
    }
}

/// The metric asked for, or the usual one for the labels and the reference's outputs.
fn metric_for(asked: Option<Metric>, data: &Dataset, outputs: &[Tensor]) -> Result<Metric> {
    match (asked, data.labels()) {
        (Some(metric), _) => Ok(metric),
        (None, Some(labels)) => Ok(Metric::default_for(labels, outputs)),
        (None, None) => Err(no_labels(data)),
    }
}

fn no_labels(data: &Dataset) -> Error {
    Error::NoLabels { path: data.path().to_path_buf() }
}

/// Batches whose answers are looked at together: [`batches_at_once`], or more where those known so far
/// are small, since whoever is done first waits for the last.
fn batches_together(known: &[Batch]) -> usize {
    let kept = known.first().and_then(|batch| batch.kept.as_ref());
    match kept.map(|kept| kept.iter().map(Tensor::len).sum::<usize>()) {
        Some(elements) if elements <= SMALL_ANSWERS && each_on_a_thread() => {
            FEWER_WAITS * batches_at_once()
        }
        _ => batches_at_once(),
    }
}

/// The outputs of a model for several batches.
fn answers(runner: &dyn Runner, data: &Dataset, rows: &[Range<usize>]) -> Result<Vec<Vec<Tensor>>> {
    let beside = ConcurrentCalls(runner);
    rows.par_iter().map(|rows| one_answer(&beside, data, rows.clone())).collect()
}

/// The outputs of a model for some rows, without their names, the rows first.
fn one_answer(runner: &dyn Runner, data: &Dataset, rows: Range<usize>) -> Result<Vec<Tensor>> {
    let count = rows.len();
    let outputs = run_rows(runner, data, rows)?.into_iter().enumerate();
    let outputs = outputs.map(|(i, (_, tensor))| {
        let axis = match data.cut() {
            Cut::Along(axes) => axes.get(i).copied(),
            Cut::Anywhere | Cut::Nowhere => runner.outputs().get(i).and_then(|spec| spec.row_axis),
        };
        let tensor = match axis {
            Some(axis) if tensor.shape().get(axis) == Some(&count) => tensor.axis_to_front(axis)?,
            _ => tensor,
        };
        // Metrics are of numbers that are precise enough.
        Ok(tensor.widened())
    });
    outputs.collect()
}

/// The task metric of one model, fed batch by batch.
enum Task {
    OfLabels(Accumulator),
    /// Needs no labels, but the reference's answers.
    Agreement,
}

impl Task {
    fn new(metric: Metric) -> Result<Task> {
        Ok(match metric {
            Metric::Agreement => Task::Agreement,
            metric => Task::OfLabels(Accumulator::new(metric)?),
        })
    }

    fn push(&mut self, outputs: &[Tensor], data: &Dataset, rows: Range<usize>) -> Result<()> {
        let Task::OfLabels(accumulator) = self else { return Ok(()) };
        let labels = data.labels().ok_or_else(|| no_labels(data))?;
        Ok(accumulator.push(outputs, &labels.slice_rows(rows))?)
    }

    fn finish(self, agreement: f64) -> Result<f64> {
        match self {
            Task::OfLabels(accumulator) => Ok(accumulator.finish()?),
            Task::Agreement => Ok(agreement),
        }
    }
}

/// Everything that is measured of a model beside the reference, fed batch by batch.
struct Tally {
    task: Task,
    paired: PairedDrop,
    regret: ExpectedRegret,
    agreement: Agreement,
    errors: OutputErrors,
}

impl Tally {
    fn new(metric: Metric) -> Result<Tally> {
        Ok(Tally {
            task: Task::new(metric)?,
            paired: PairedDrop::new(metric),
            regret: ExpectedRegret::new(metric),
            agreement: Agreement::default(),
            errors: OutputErrors::default(),
        })
    }

    /// Adds what a model answers on the rows of a batch.
    fn push(
        &mut self,
        data: &Dataset,
        batch: &Batch,
        expected: &[Tensor],
        given: &[Tensor],
    ) -> Result<()> {
        self.agreement.push(expected, given)?;
        self.errors.push(expected, given, batch.tokens.as_ref())?;
        self.regret.push(expected, given)?;
        self.task.push(given, data, batch.rows.clone())?;
        let labels = data.labels().map(|labels| labels.slice_rows(batch.rows.clone()));
        Ok(self.paired.push(expected, given, labels.as_ref())?)
    }

    fn finish(self, baseline: &Baseline) -> Result<Measured> {
        let agreement = self.agreement.finish()?;
        let metric = self.task.finish(agreement)?;
        let each = baseline.reference.outputs().iter().zip(self.errors.each());
        let worst = each
            .filter_map(|(output, error)| Some((&output.name, error.sqnr_db()?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        Ok(Measured {
            metric,
            drop: baseline.metric.drop(baseline.value, metric),
            drop_interval: self.paired.finish()?,
            expected_regret: self.regret.finish(),
            agreement,
            max_abs_error: self.errors.max_abs(),
            sqnr_db: self.errors.sqnr_db(),
            worst_output: worst.map(|(name, sqnr_db)| WorstOutput { name: name.clone(), sqnr_db }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fewbits_engine::{RunOptions, input_specs};
    use fewbits_onnx::Model;
    use fewbits_quant::Bits;

    use super::*;
    use crate::apply::apply;
    use crate::data::DataOptions;
    use crate::plan::{ActivationUse, Target, WeightOptions, plan_weights};
    use crate::prepare::prepare;
    use crate::progress::Silent;
    use crate::run::runner;

    #[test]
    fn in_one_walk_or_after_it_kept_or_computed_again_the_figures_are_the_same() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/digits");
        let model = Model::open(&folder.join("mlp.onnx")).unwrap();
        let options = DataOptions::default();
        let data = Dataset::read(&folder.join("test.npz"), &input_specs(model.graph()), &options);
        let data = data.unwrap();
        let mut narrow = model.clone();
        prepare(&mut narrow).unwrap();
        let weights = WeightOptions::default().with_width(Bits::new(2).unwrap().into()).unwrap();
        let plan =
            plan_weights(&narrow, &weights, ActivationUse::Float, Target::default(), &Silent)
                .unwrap();
        let narrow = apply(narrow, &plan, None, &Silent).unwrap();
        let [float, narrow] = [model, narrow].map(|m| runner(&m, &RunOptions::default()).unwrap());
        for asked in [None, Some(Metric::Agreement)] {
            let (mut baseline, beside) =
                Baseline::beside(&float, &[&narrow], &data, asked, &Silent).unwrap();
            assert!(beside[0].max_abs_error > 0.0 && beside[0].agreement < 1.0);
            let interval = beside[0].drop_interval.unwrap();
            assert!(interval.low < beside[0].drop && beside[0].drop < interval.high);
            assert!(beside[0].expected_regret.unwrap() > 0.0);
            assert_eq!(baseline.measure(&narrow, &Silent).unwrap(), beside[0]);
            baseline.batches.iter_mut().for_each(|batch| batch.kept = None);
            assert_eq!(baseline.measure(&narrow, &Silent).unwrap(), beside[0]);
            let itself = baseline.measure(&float, &Silent).unwrap();
            assert_eq!((itself.metric, itself.drop), (baseline.value(), 0.0));
            assert_eq!((itself.agreement, itself.sqnr_db), (1.0, None));
        }
    }
}
