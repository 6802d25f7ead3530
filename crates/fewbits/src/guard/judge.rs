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

/// The least that is told: of outputs that are not numbers any more nothing is left.
const LEAST_DB: f64 = -300.0;

/// What models are judged by.
pub(super) struct Judge<'a> {
    /// The float outputs, and what each output must reach.
    pub outputs: Option<(Trial, MinSqnr<'a>)>,
    /// The float model's metric, and by how much it may drop.
    pub metric: Option<(Baseline<'a>, MaxDrop<'a>)>,
    pub run: &'a RunOptions,
}

/// What was measured of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// The SQNR of every float output in decibels, by name; none where it equals the float model's.
    pub sqnr_db: Vec<(String, Option<f64>)>,
    /// Its metric.
    pub measured: Option<evaluate::Measured>,
    /// How much it lacks of what layers are left float for, in decibels of its worst output and in units of
    /// the metric.
    pub lacks: f64,
}

impl search::Verdict for Verdict {
    fn lacks(&self) -> f64 {
        self.lacks
    }
}

impl Judge<'_> {
    /// Runs a model. Outputs must reach `headroom` more than what is asked for.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn judge(&self, model: Model, headroom: f64) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        if let Some((baseline, limit)) = &self.metric {
            let runner = runner(&model, self.run)?;
            let measured = baseline.measure(&runner, &Silent)?;
            let over = measured.drop - limit.max_drop;
            if !Metric::allows(limit.max_drop, measured.drop)
                && limit.otherwise == Otherwise::LeaveFloat
            {
                verdict.lacks += if over.is_nan() { f64::MAX } else { over };
            }
            verdict.measured = Some(measured);
        }
        if let Some((trial, limit)) = &self.outputs {
            verdict.sqnr_db = sqnr_db(trial, model)?;
            let worst = verdict.sqnr_db.iter().filter_map(|(_, db)| *db).min_by(f64::total_cmp);
            if let (Some(db), Otherwise::LeaveFloat) = (worst, limit.otherwise) {
                verdict.lacks += (limit.db + headroom - db).max(0.0);
            }
        }
        Ok(verdict)
    }
}

fn sqnr_db(trial: &Trial, model: Model) -> Result<Vec<(String, Option<f64>)>> {
    let errors = trial.errors(model)?;
    let named = trial.outputs().iter().zip(errors.each());
    let floats = named.filter(|(output, _)| output.is_float);
    let db = floats.map(|(output, error)| {
        let db = error.relative().filter(|&noise| noise > 0.0);
        (output.name.clone(), db.map(|noise| (-10.0 * noise.log10()).max(LEAST_DB)))
    });
    Ok(db.collect())
}
