//! How near a quantized model is to the float one, and whether that is near enough.

use fewbits_onnx::Model;

use super::{MaxDrop, MinSqnr, Otherwise, search};
use crate::Result;
use crate::evaluate::{self, Baseline};
use crate::metric::Metric;
use crate::progress::Silent;
use crate::recipe::Trial;
use crate::run::runner;
use fewbits_runtime::RunOptions;

/// What models are judged by.
pub(super) struct Judge<'a> {
    /// The float outputs, and what each output must reach.
    pub outputs: Option<(Trial, MinSqnr<'a>)>,
    /// The float model's metric, and by how much it may drop.
    pub metric: Option<(Baseline<'a>, MaxDrop<'a>)>,
    pub run: &'a RunOptions,
}

/// On which rows outputs must reach what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// On those that are measured.
    Measured,
    /// On more like them, as far as their spread tells.
    Others,
}

/// What was measured of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// The SQNR of every float output in decibels, by name; none where it equals the float model's.
    pub sqnr_db: Vec<(String, Option<f64>)>,
    /// Its metric.
    pub measured: Option<evaluate::Measured>,
    /// How much it lacks of what layers are left float for, in decibels of its worst output and in units of
    /// the metric: on the rows that are measured, and on others.
    lacks: [f64; 2],
}

impl Verdict {
    /// How much it lacks on these rows, 0 where it holds.
    pub fn lacks(&self, reach: Reach) -> f64 {
        self.lacks[reach as usize]
    }
}

/// A verdict that counts on some rows.
pub(super) struct On(pub Reach, pub Verdict);

impl search::Verdict for On {
    fn lacks(&self) -> f64 {
        self.1.lacks(self.0)
    }
}

impl Judge<'_> {
    /// Runs a model.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn judge(&self, model: Model) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        if let Some((baseline, limit)) = &self.metric {
            let runner = runner(&model, self.run)?;
            let measured = baseline.measure(&runner, &Silent)?;
            let over = measured.drop - limit.max_drop;
            if !Metric::allows(limit.max_drop, measured.drop)
                && limit.otherwise == Otherwise::LeaveFloat
            {
                verdict.lacks = [if over.is_nan() { f64::MAX } else { over }; 2];
            }
            verdict.measured = Some(measured);
        }
        if let Some((trial, limit)) = &self.outputs {
            let errors = trial.errors(model)?;
            let floats = || {
                let named = trial.outputs().iter().zip(errors.each());
                named.filter(|(output, _)| output.is_float)
            };
            verdict.sqnr_db =
                floats().map(|(output, error)| (output.name.clone(), error.sqnr_db())).collect();
            let measured = floats().filter_map(|(_, error)| error.sqnr_db());
            let others = floats().filter_map(|(_, error)| error.sure_sqnr_db());
            let worst = [measured.min_by(f64::total_cmp), others.min_by(f64::total_cmp)];
            for (lacks, worst) in verdict.lacks.iter_mut().zip(worst) {
                if let (Some(db), Otherwise::LeaveFloat) = (worst, limit.otherwise) {
                    *lacks += (limit.db - db).max(0.0);
                }
            }
        }
        Ok(verdict)
    }
}
