//! What calibration saw, kept for further plans.

use std::rc::Rc;

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;

use super::Trial;
use crate::Result;
use crate::calibrate::{Calibration, Wanted, calibrate};
use crate::data::Dataset;
use crate::progress::Progress;

/// What was observed of a float model on its calibration data, for further plans of both: it does
/// not depend on what weights become.
#[derive(Default)]
pub struct Observed {
    seen: Vec<(Wanted, Calibration)>,
    /// By the rows of their samples.
    trials: Vec<(usize, Rc<Trial>)>,
}

impl Observed {
    /// What is wanted, observed now if it was not before.
    pub(super) fn of(
        &mut self,
        model: &Model,
        data: &Dataset,
        wanted: Wanted,
        run: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<Calibration> {
        if let Some((_, seen)) = self.seen.iter().find(|(known, _)| *known == wanted) {
            return Ok(seen.clone());
        }
        let seen = calibrate(model, data, &wanted, run, progress)?;
        self.seen.push((wanted, seen.clone()));
        Ok(seen)
    }

    /// The float model's outputs on a sample of the data; `None`, with a warning that ends in what
    /// is done `instead`, where it cannot be run as a whole.
    pub(super) fn trial(
        &mut self,
        model: &Model,
        sample: &Dataset,
        run: &RunOptions,
        instead: &str,
        progress: &dyn Progress,
    ) -> Option<Rc<Trial>> {
        let rows = sample.rows();
        if let Some((_, trial)) = self.trials.iter().find(|(known, _)| *known == rows) {
            return Some(trial.clone());
        }
        match Trial::new(model, sample.clone(), run) {
            Ok(trial) => {
                let trial = Rc::new(trial);
                self.trials.push((rows, trial.clone()));
                Some(trial)
            }
            Err(why) => {
                progress.warn(&format!(
                    "nothing was tried on the data, which the float model does not run on here: \
                     {instead}: {why}"
                ));
                None
            }
        }
    }
}
