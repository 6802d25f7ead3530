//! Choosing methods by what they do to the outputs on a few rows of the calibration data.

use std::rc::Rc;

use fewbits_quant::Rounding;

use super::trial::Trial;
use super::{Activations, Bias, Choice, Chosen, Observed, Planner, RangeChoice, RoundingChoice};
use crate::Result;
use crate::apply::apply;
use crate::calibrate::{Calibration, calibrate};
use crate::data::Dataset;
use crate::methods::{Methods, Without, bias_correction};
use crate::plan::{Method, Plan, Tried};
use crate::progress::{Progress, Silent};

/// What costs nothing when the model runs must lower the error to this part of it: less is chance.
const WORTHWHILE: f64 = 0.98;
/// What rescales activations, and may add an operator for it, must lower it to this part.
const WORTH_AN_EDIT: f64 = 0.9;
/// An error beyond this one, 20 dB below the outputs, is poor.
const POOR: f64 = 0.01;
/// Of a poor model an error up to so many times another one, a decibel, may be as good: what activations do to
/// a few rows is chance.
const NEAR: f64 = 1.25;
/// The sample is this part of the rows, or as many as hold [`SAMPLE_BYTES`] of observed activations
/// if that is more.
const SAMPLE_SHARE: usize = 64;
/// Many rows of a small model cost little and tell more.
const SAMPLE_BYTES: usize = 3 << 20;
/// The least and the most rows of a sample.
const SAMPLE_ROWS: std::ops::RangeInclusive<usize> = 4..=1024;

/// A choice on trial.
struct Contest {
    trial: Rc<Trial>,
    best: Chosen,
    /// That of the best.
    error: f64,
}

impl Planner<'_> {
    /// Starts from the plainest choice and keeps each method in turn if it lowers the error.
    ///
    /// `seen` is what was observed of the model on all of `data`. Where the model cannot be run as
    /// a whole, or has no float outputs, nothing can be measured and only what was asked for is
    /// added.
    pub(super) fn choose(
        &self,
        data: &Dataset,
        seen: Calibration,
        observed: &mut Observed,
        progress: &dyn Progress,
    ) -> Result<Chosen> {
        let methods = &self.request.methods;
        let mut chosen = Chosen { choice: self.plainest(), seen, tried: Vec::new() };
        let open_range = matches!(
            self.request.activations,
            Activations::Static { range: RangeChoice::Measured, .. }
        );
        let sample = self.sample(data, &chosen.seen);
        let open = open_range || matches!(methods, Methods::Measured);
        let instead = "no method is used that was not asked for, ranges are minmax";
        let trial = match open {
            true => observed.trial(self.model, &sample, self.run, instead, progress),
            false => None,
        };
        let measured = match trial {
            Some(trial) => self.error(&trial, &chosen, progress)?.map(|error| (trial, error)),
            None => None,
        };
        let Some((trial, error)) = measured else {
            if let Methods::Only(listed) = methods {
                for &method in listed {
                    self.edit(&mut chosen, method, &sample, Without::Well, progress)?;
                }
            }
            return Ok(chosen);
        };
        // The plainest choice, each method, the ranges.
        progress.start("choosing", 2 + Method::ALL.len() as u64);
        chosen.tried.push(self.tried(&chosen.choice, Some(error)));
        let mut contest = Contest { trial, best: chosen, error };
        progress.advance(1);
        for method in Method::ALL.into_iter().filter(|&m| m != Method::BiasCorrection) {
            if methods.allow(method) {
                let without = if contest.error > POOR { Without::Poorly } else { Without::Well };
                let edit = |chosen: &mut _| self.edit(chosen, method, &sample, without, progress);
                self.compete(&mut contest, edit, progress)?;
            }
            progress.advance(1);
        }
        for range in RangeChoice::TRIED.into_iter().skip(1).filter(|_| open_range) {
            let take = |chosen: &mut Chosen| {
                chosen.choice.range = range;
                Ok(())
            };
            self.compete(&mut contest, take, progress)?;
        }
        progress.advance(1);
        if methods.allow(Method::BiasCorrection) && self.corrects_plain_rounding() {
            let method = Method::BiasCorrection;
            let edit = |chosen: &mut _| self.edit(chosen, method, &sample, Without::Well, progress);
            self.compete(&mut contest, edit, progress)?;
        }
        progress.advance(1);
        progress.finish();
        Ok(contest.best)
    }

    /// Adds a method to a choice.
    fn edit(
        &self,
        chosen: &mut Chosen,
        method: Method,
        sample: &Dataset,
        without: Without,
        progress: &dyn Progress,
    ) -> Result<()> {
        if method == Method::BiasCorrection {
            chosen.choice.bias = Bias::Corrected;
            return Ok(());
        }
        let proposal = self.propose(method, &chosen.seen.channels, without, progress)?;
        if proposal.edits.is_empty() {
            return Ok(());
        }
        chosen.choice.edits.extend(proposal.edits);
        let adjusted = self.adjusted(&chosen.choice.edits)?;
        let on_sample = calibrate(&adjusted, sample, &self.wanted(&adjusted), self.run, &Silent)?;
        chosen.seen = chosen.seen.rescaled(&proposal.rescaled, &on_sample);
        Ok(())
    }

    /// Changes the best choice, and keeps the change if it is better, or a method that was asked for.
    fn compete(
        &self,
        contest: &mut Contest,
        change: impl FnOnce(&mut Chosen) -> Result<()>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let best = &contest.best;
        let mut chosen =
            Chosen { choice: best.choice.clone(), seen: best.seen.clone(), tried: Vec::new() };
        change(&mut chosen)?;
        if chosen.choice == best.choice {
            return Ok(());
        }
        let error = self.error(&contest.trial, &chosen, progress)?;
        let asked = matches!(self.request.methods, Methods::Only(_))
            && chosen.choice.range == best.choice.range;
        let part = match chosen.choice.edits == best.choice.edits {
            true => WORTHWHILE,
            false => WORTH_AN_EDIT,
        };
        let better = error.is_some_and(|error| error < part * contest.error);
        let near = error.is_some_and(|error| error < NEAR * contest.error);
        let kept = better || asked || (near && self.mends_weights(contest, &chosen, progress)?);
        let tried = Tried { kept, ..self.tried(&chosen.choice, error) };
        contest.best.tried.push(tried);
        if kept {
            let tried = std::mem::take(&mut contest.best.tried);
            contest.best = Chosen { tried, ..chosen };
            contest.error = error.unwrap_or(contest.error);
        }
        Ok(())
    }

    /// Whether corrected biases make a poor model better where its activations stay float. Those that cost
    /// most will ([`guard`](crate::guard)), and what is left then is the error of its weights, which
    /// activations hide now.
    fn mends_weights(
        &self,
        contest: &Contest,
        chosen: &Chosen,
        progress: &dyn Progress,
    ) -> Result<bool> {
        if chosen.choice.bias == contest.best.choice.bias || contest.error <= POOR {
            return Ok(false);
        }
        let error_of_weights = |chosen: &Chosen| {
            let adjusted = self.adjusted(&chosen.choice.edits)?;
            let uncorrected = Choice { bias: Bias::AsItIs, ..chosen.choice.clone() };
            let mut plan = self.plan(&adjusted, &uncorrected, &chosen.seen)?;
            plan.activations.clear();
            // What weights become depends on activations: corrected once these are float.
            if chosen.choice.bias == Bias::Corrected {
                plan = bias_correction::corrected(&adjusted, plan, &chosen.seen.channels)?;
            }
            drop(adjusted);
            self.error_of(&contest.trial, plan, chosen, progress)
        };
        let (without, with) = (error_of_weights(&contest.best)?, error_of_weights(chosen)?);
        Ok(without.zip(with).is_some_and(|(without, with)| with < WORTHWHILE * without))
    }

    fn error(
        &self,
        trial: &Trial,
        chosen: &Chosen,
        progress: &dyn Progress,
    ) -> Result<Option<f64>> {
        // The adjusted weights are let go before they are made again.
        let plan = {
            let adjusted = self.adjusted(&chosen.choice.edits)?;
            self.plan(&adjusted, &chosen.choice, &chosen.seen)?
        };
        self.error_of(trial, plan, chosen, progress)
    }

    fn error_of(
        &self,
        trial: &Trial,
        plan: Plan,
        chosen: &Chosen,
        progress: &dyn Progress,
    ) -> Result<Option<f64>> {
        // Rounding that learns would be done over again for every trial; what ranges and edits do shows
        // with plain rounding, too.
        let plan = if plan.needs_data() { plan.rounded_by(Rounding::Nearest) } else { plan };
        let quantized = apply(self.model.clone(), &plan, None, &Silent)?;
        Ok(trial.error(quantized, &self.described(&chosen.choice), progress))
    }

    /// A choice in words.
    fn described(&self, choice: &Choice) -> String {
        let Tried { methods, range, .. } = self.tried(choice, None);
        let methods: Vec<String> = methods.iter().map(Method::to_string).collect();
        let methods = if methods.is_empty() {
            "quantization without methods".to_string()
        } else {
            methods.join(" + ")
        };
        match range {
            Some(range) => format!("{methods} with ranges {range}"),
            None => methods,
        }
    }

    fn tried(&self, choice: &Choice, error: Option<f64>) -> Tried {
        let mut methods: Vec<Method> = choice.edits.iter().map(|e| e.method).collect();
        methods.dedup();
        if choice.bias == Bias::Corrected {
            methods.push(Method::BiasCorrection);
        }
        let is_static = matches!(self.request.activations, Activations::Static { .. });
        Tried {
            methods,
            rounding: None,
            weight_range: None,
            widths: None,
            range: is_static.then_some(choice.range),
            sqnr_db: error.filter(|&e| e > 0.0).map(|e| -10.0 * e.log10()),
            kept: true,
        }
    }

    /// Biases make up for what rounding to nearest shifts: other rounding shifts otherwise, and less.
    fn corrects_plain_rounding(&self) -> bool {
        let asked = matches!(self.request.methods, Methods::Only(_));
        let rounding = match self.request.rounding {
            RoundingChoice::Only(rounding) => rounding,
            RoundingChoice::Measured => Rounding::Nearest,
        };
        asked || rounding == Rounding::Nearest
    }

    /// Rows from all over the data.
    fn sample(&self, data: &Dataset, seen: &Calibration) -> Dataset {
        let rows = (SAMPLE_BYTES / seen.bytes_per_row.max(1)).max(data.rows() / SAMPLE_SHARE);
        data.sample(rows.clamp(*SAMPLE_ROWS.start(), *SAMPLE_ROWS.end()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use fewbits_engine::{RunOptions, input_specs};
    use fewbits_onnx::Model;

    use super::*;
    use crate::data::DataOptions;
    use crate::plan::{Target, WeightOptions};
    use crate::prepare::prepare;
    use crate::recipe::{Request, RoundingChoice, plan};

    /// What was announced and what was done, for each piece of work.
    #[derive(Default)]
    struct Steps(Mutex<Vec<(String, u64, u64)>>);

    impl Progress for Steps {
        fn start(&self, what: &str, total: u64) {
            self.0.lock().unwrap().push((what.to_string(), total, 0));
        }

        fn advance(&self, steps: u64) {
            self.0.lock().unwrap().last_mut().unwrap().2 += steps;
        }

        fn finish(&self) {}

        fn warn(&self, _message: &str) {}
    }

    #[test]
    fn every_step_that_is_announced_is_done() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/digits_cnn");
        let mut model = Model::open(&folder.join("model.onnx")).unwrap();
        prepare(&mut model).unwrap();
        let options = DataOptions { limit: Some(16), ..DataOptions::default() };
        let specs = input_specs(model.graph());
        let data = Dataset::read(&folder.join("calib.npz"), &specs, &options).unwrap();
        let request = Request {
            target: Target::default(),
            weights: WeightOptions::default(),
            rounding: RoundingChoice::default(),
            reduce_range: Default::default(),
            integer_weights: Default::default(),
            activations: Activations::Static {
                range: RangeChoice::Measured,
                bits: fewbits_quant::Bits::EIGHT,
            },
            methods: Methods::Measured,
            data: Some(&data),
        };
        let steps = Steps::default();
        plan(&model, &request, &RunOptions::default(), &steps).unwrap();
        let steps = steps.0.into_inner().unwrap();
        assert!(steps.iter().any(|(what, ..)| what == "choosing"));
        for (what, announced, done) in steps {
            assert_eq!(announced, done, "{what}");
        }
    }
}
