//! How near a quantized model is to the float one, and whether that is near enough.

use fewbits_onnx::Model;

use super::{MaxDrop, MinSqnr, Otherwise, search};
use crate::Result;
use crate::evaluate::{self, Baseline};
use crate::metric::Metric;
use crate::progress::Silent;
use crate::recipe::Trial;
use crate::run::runner;
use fewbits_engine::RunOptions;

/// What models are judged by.
pub(super) struct Judge<'a> {
    /// The float outputs, and what each output must reach.
    pub outputs: Option<(Trial, MinSqnr<'a>)>,
    /// The float model's metric, and by how much it may drop.
    pub metric: Option<(Baseline<'a>, MaxDrop<'a>)>,
    pub run: &'a RunOptions,
}

/// How much more noise rows may bring that are unlike all that were measured: twice as much, in decibels.
/// A text detector had 22 dB on 32 rows and 19.4 on 64 others, where it lost a region of one.
pub(super) const UNLIKE_DB: f64 = 3.0;

/// On which rows outputs must reach what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// On those that are measured.
    Measured,
    /// On as many others like them, as far as their spread tells.
    Others,
    /// On others of which some are unlike them.
    Unlike,
}

impl Reach {
    /// The nearest first.
    pub const ALL: [Reach; 3] = [Reach::Measured, Reach::Others, Reach::Unlike];
}

/// What was measured of a float output.
#[derive(Clone, Debug)]
pub(super) struct OutputSqnr {
    pub name: String,
    /// Its SQNR in decibels; none where it equals the float model's.
    pub db: Option<f64>,
    /// What as many other rows have, as far as their spread tells.
    pub sure_db: Option<f64>,
}

impl OutputSqnr {
    fn on(&self, reach: Reach) -> Option<f64> {
        match reach {
            Reach::Measured => self.db,
            Reach::Others => self.sure_db,
            Reach::Unlike => self.sure_db.map(|db| db - UNLIKE_DB),
        }
    }
}

/// What was measured of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// Of every float output.
    pub outputs: Vec<OutputSqnr>,
    /// Its metric.
    pub measured: Option<evaluate::Measured>,
    /// How much it lacks of what layers are left float for, in decibels of its worst output and in units of
    /// the metric: one for each [`Reach`].
    lacks: [f64; 3],
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
                verdict.lacks = [if over.is_nan() { f64::MAX } else { over }; 3];
            }
            verdict.measured = Some(measured);
        }
        if let Some((trial, limit)) = &self.outputs {
            let errors = trial.errors(model)?;
            let floats = || {
                let named = trial.outputs().iter().zip(errors.each());
                named.filter(|(output, _)| output.is_float)
            };
            let outputs = floats().map(|(output, error)| OutputSqnr {
                name: output.name.clone(),
                db: error.sqnr_db(),
                sure_db: error.sure_sqnr_db(),
            });
            verdict.outputs = outputs.collect();
            for reach in Reach::ALL {
                let worst = verdict.outputs.iter().filter_map(|output| output.on(reach));
                let worst = worst.min_by(f64::total_cmp);
                if let (Some(db), Otherwise::LeaveFloat) = (worst, limit.otherwise) {
                    verdict.lacks[reach as usize] += (limit.db - db).max(0.0);
                }
            }
        }
        Ok(verdict)
    }
}
