//! Measuring what the search chooses, and keeping the best in its place.

use std::path::Path;
use std::time::Duration;

use fewbits_engine::{Engine, RunOptions};
use fewbits_onnx::{Model, Replace, SaveOptions};

use super::acceptance::holds;
use super::search::{Choice, End, Verdict, search};
use super::state::SearchFile;
use super::verdict::{notes, verdict};
use super::{Best, Checked, FloatSide, Request, Tuned};
use crate::Result;
use crate::apply::{Checkpoint, LayerRounding};
use crate::evaluate::Baseline;
use crate::growth::{most_bytes, source_bytes};
use crate::inputs::Learning;
use crate::measure::latencies;
use crate::metric::Metric;
use crate::plan::Plan;
use crate::progress::{Progress, Silent};
use crate::quantize::quantized;
use crate::run::{one_call, runner};

/// What timing a model beside the float one may take.
const TIMING: Duration = Duration::from_millis(60);

/// What there is to choose.
pub(super) trait Space {
    /// What is tried first: every unit's first option after float.
    fn widest(&self) -> Vec<usize>;

    /// Measures what options cost alone, as far as `kept` does not know it and until `stop`.
    fn measure(
        &self,
        metric: Metric,
        kept: &mut SearchFile,
        run: &RunOptions,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<End>;

    /// The options of every unit, float first.
    fn units(&self, kept: &SearchFile) -> Vec<Vec<Choice>>;

    /// The plan of one option for every unit.
    fn plan_of(&self, choice: &[usize]) -> Plan;

    /// What the objective says of a choice; less is better.
    fn cost(&self, choice: &[usize], kept: &SearchFile, checked: &Checked) -> f64;
}

/// A search under way.
pub(super) struct Tuner<'a> {
    pub source: &'a Model,
    /// Of the source's file.
    pub source_digest: Option<String>,
    pub prepared: &'a Model,
    pub request: &'a Request<'a>,
    pub run: &'a RunOptions,
    pub float: &'a Engine,
    pub baseline: Baseline<'a>,
    pub kept: SearchFile,
    pub out: &'a Path,
    pub replace: Replace,
    /// With its cost.
    pub best: Option<(f64, Best)>,
    /// For files that are measured.
    pub scratch: tempfile::TempDir,
}

impl Tuner<'_> {
    /// Looks for the best choice of `space`.
    pub fn search(
        &mut self,
        space: &dyn Space,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<End> {
        // Something to have before the long work begins.
        if self.check(space, &space.widest(), stop)? == Verdict::Stop {
            return Ok(End::Stopped);
        }
        let metric = self.baseline.metric();
        if space.measure(metric, &mut self.kept, self.run, stop, progress)? == End::Stopped {
            return Ok(End::Stopped);
        }
        let units = space.units(&self.kept);
        let steps = units.iter().map(Vec::len).sum::<usize>() as u64;
        progress.start("searching", units.len() as u64 + u64::from(steps.max(1).ilog2()) + 1);
        let end = search(&units, &mut |choice| {
            progress.advance(1);
            self.check(space, choice, stop)
        })?;
        progress.finish();
        Ok(end)
    }

    /// Measures a choice, if that is not known, and keeps it if it is the best.
    fn check(
        &mut self,
        space: &dyn Space,
        choice: &[usize],
        stop: &dyn Fn() -> bool,
    ) -> Result<Verdict> {
        let plan = space.plan_of(choice);
        let digest = plan.digest();
        let known = self.kept.state.checked.get(&digest).cloned();
        let (checked, model) = match known {
            Some(checked) => (checked, None),
            None if stop() => return Ok(Verdict::Stop),
            None => {
                let model = self.build(&plan)?;
                let checked = self.measure(&model, &plan)?;
                (checked, Some(model))
            }
        };
        let verdict = match holds(&checked, self.baseline.metric(), self.request.max_drop) {
            true => Verdict::Holds,
            false => Verdict::Exceeds,
        };
        let cost = space.cost(choice, &self.kept, &checked);
        let quantizes = plan.quantized().next().is_some();
        let is_best = self.best.as_ref().is_none_or(|(best, _)| cost < *best);
        let grows = checked.file_bytes > most_bytes(source_bytes(self.source));
        if verdict == Verdict::Holds && quantizes && is_best && !grows {
            self.best = Some((cost, Best { checked: checked.clone(), plan }));
            if let Some(model) = &model {
                self.write(model)?;
            }
        }
        // After the model is in its place: a search that goes on from here finds it there.
        if model.is_some() {
            self.kept.state.checked.insert(digest, checked);
            self.kept.save()?;
        }
        Ok(verdict)
    }

    fn build(&self, plan: &Plan) -> Result<Model> {
        let digest = self.source_digest.as_deref();
        // Every plan is another.
        let checkpoint = &Checkpoint::default();
        let learning = Learning { data: self.request.calibration, run: self.run };
        let rounding = Some(LayerRounding { learning, checkpoint });
        quantized(self.source, self.prepared.clone(), plan, rounding, digest, &Silent)
    }

    /// Measures a model as it is read back from a file.
    fn measure(&mut self, model: &Model, plan: &Plan) -> Result<Checked> {
        let path = self.scratch.path().join("candidate.onnx");
        let options = SaveOptions { replace: Replace::Existing, ..SaveOptions::default() };
        let file_bytes = model.save(&path, options)?.file_bytes;
        let saved = Model::open(&path)?;
        let quantized = runner(&saved, self.run)?;
        let measured = self.baseline.measure(&quantized, &Silent)?;
        let data = self.request.data;
        let (of_float, of_quantized) = (one_call(self.float, data), one_call(&quantized, data));
        let times = latencies(&[self.float, &quantized], &[&of_float, &of_quantized], TIMING)?;
        self.kept.state.float_latency_ms.get_or_insert(times[0].median);
        Ok(Checked {
            bits: mean_bits(plan),
            metric: measured.metric,
            drop: measured.drop,
            drop_interval: measured.drop_interval.map(|i| (i.low, i.high)),
            expected_regret: measured.expected_regret,
            agreement: measured.agreement,
            worst_output: measured.worst_output,
            file_bytes,
            weight_bytes: saved.weight_bytes(),
            latency_ms: times[1].median,
        })
    }

    fn write(&mut self, model: &Model) -> Result<()> {
        model.save(self.out, SaveOptions { replace: self.replace, ..SaveOptions::default() })?;
        self.replace = Replace::Existing;
        Ok(())
    }

    /// What the search came to; the best model is in its place.
    pub fn finish(mut self, end: End) -> Result<Tuned> {
        // What was found before a stop may have been replaced since, or never written.
        if let Some(plan) = self.best.as_ref().map(|(_, best)| best.plan.clone()) {
            let there = Model::open(self.out).ok();
            let digest = there.as_ref().and_then(|m| m.metadata("fewbits.plan"));
            if digest != Some(&plan.digest()) {
                let model = self.build(&plan)?;
                self.write(&model)?;
            }
        }
        let metric = self.baseline.metric();
        let state = self.kept.state;
        let float = FloatSide {
            metric: self.baseline.value(),
            file_bytes: self.source.file_bytes(),
            weight_bytes: self.source.weight_bytes(),
            latency_ms: state.float_latency_ms,
        };
        let mut points: Vec<Checked> = state.checked.into_values().collect();
        points.sort_by(|a, b| b.file_bytes.cmp(&a.file_bytes).then(a.drop.total_cmp(&b.drop)));
        let mut tuned = Tuned {
            metric,
            objective: self.request.objective,
            rows: self.request.data.rows(),
            max_drop: self.request.max_drop,
            float,
            best: self.best.map(|(_, best)| best),
            points,
            sensitivity: state.sensitivity.into_values().collect(),
            slower: state.slower,
            complete: end == End::Complete,
            notes: Vec::new(),
            verdict: String::new(),
        };
        tuned.notes = notes(&tuned, self.request);
        tuned.verdict = verdict(&tuned);
        Ok(tuned)
    }
}

/// The mean width of the integers of all weights that become some.
fn mean_bits(plan: &Plan) -> f64 {
    let (mut bits, mut elements) = (0, 0);
    for (planned, scheme) in plan.quantized() {
        // Fixed-point numbers are no candidates.
        let Some(width) = scheme.bits() else { continue };
        let count = planned.shape.iter().product::<usize>();
        bits += count * usize::from(width.get());
        elements += count;
    }
    bits as f64 / elements.max(1) as f64
}
