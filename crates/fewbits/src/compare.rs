//! Two saved models on the same data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fewbits_engine::RunOptions;
use fewbits_onnx::Model;
use serde::Serialize;

use crate::Result;
use crate::data::Dataset;
use crate::energy::{POWERCAP, energy};
use crate::evaluate::{Baseline, WorstOutput};
use crate::hint::Setting;
use crate::interval::DropInterval;
use crate::measure::{Latency, latencies};
use crate::metric::{DROP_TOLERANCE, Metric};
use crate::progress::Progress;
use crate::run::{one_call, runner};

/// What timing both models may take.
const TIMING: Duration = Duration::from_millis(800);

/// What was measured of two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The task metric.
    pub metric: Metric,
    /// Rows of data.
    pub rows: usize,
    /// The first model, usually the float one.
    pub a: Side,
    /// The second model.
    pub b: Side,
    /// How much worse the second is by the metric; negative if better.
    pub drop: f64,
    /// Where the drop over all data lies; none where the rows are too few to tell.
    pub drop_interval: Option<DropInterval>,
    /// The fraction of rows on which both predict the same.
    pub agreement: f64,
    /// The largest difference between two float outputs.
    pub max_abs_error: f64,
    /// Signal to quantization noise of the float outputs in decibels; none if they are equal.
    pub sqnr_db: Option<f64>,
    /// The float output of B that is farthest from A's; none if all are equal.
    pub worst_output: Option<WorstOutput>,
    /// All of it in one sentence.
    pub verdict: String,
    /// What a reader must know beside it: that the rows are too few for the claim.
    pub notes: Vec<String>,
    /// What the energy is, or why there is none.
    pub energy_note: String,
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// The file.
    pub path: PathBuf,
    /// The task metric.
    pub metric: f64,
    /// Bytes of the file, external data included.
    pub file_bytes: u64,
    /// Bytes of the constant tensors in it.
    pub weight_bytes: u64,
    /// The time of one call with one row.
    pub latency_ms: Latency,
    /// Joules of one call with one row; none where the machine does not tell.
    pub energy_j: Option<f64>,
    /// The largest resident memory of a process that loads and runs the model; none where it was
    /// not measured.
    pub peak_rss_bytes: Option<u64>,
}

/// Gives the largest resident memory, in bytes, of a process that runs the model at a path.
pub type PeakMemory<'a> = &'a dyn Fn(&Path) -> Option<u64>;

/// How to compare.
#[derive(Default)]
pub struct CompareOptions<'a> {
    /// The metric; the usual one for the labels if not given.
    pub metric: Option<Metric>,
    /// Threads and the like.
    pub run: RunOptions,
    /// Measures the peak memory of a process that runs the model at a path.
    pub peak_memory: Option<PeakMemory<'a>>,
    /// The drop that is allowed; the verdict says whether it is kept.
    pub max_drop: Option<f64>,
}

impl Comparison {
    /// Whether the second model is worse by more than `max_drop`. A metric that is not a number
    /// counts as worse.
    pub fn exceeds(&self, max_drop: f64) -> bool {
        !Metric::allows(max_drop, self.drop)
    }

    /// Why the second model is refused, in one line; none if its drop is allowed.
    pub fn refusal(&self, max_drop: f64) -> Option<String> {
        let interval =
            self.drop_interval.map_or(String::new(), |interval| format!(" ({interval})"));
        self.exceeds(max_drop).then(|| {
            format!(
                "worse than allowed: {} {:.4} became {:.4}, a drop of {:.4}{interval}; {} is {max_drop}",
                self.metric, self.a.metric, self.b.metric, self.drop, Setting::MaxDrop
            )
        })
    }

    /// What must be said of a drop that was measured to be allowed, but on too few rows to know;
    /// none if they are enough.
    fn doubt(&self, max_drop: f64) -> Option<String> {
        let interval = self.drop_interval.filter(|_| !self.exceeds(max_drop))?;
        if interval.shows(max_drop) {
            return None;
        }
        let needed = match interval.rows_needed(max_drop) {
            Some(rows) => format!("about {rows} rows like these would"),
            None => "nor would more rows like these".to_string(),
        };
        let rows = interval.rows;
        Some(format!(
            "{rows} rows cannot show that the drop is at most {max_drop}: {interval}; {needed}"
        ))
    }
}

/// Runs two models over the same data and compares what they answer, what they weigh and how
/// fast they are.
///
/// # Errors
/// If a model cannot be run, or not on this data, or the data have not what the metric asks for.
pub fn compare(
    a: &Model,
    b: &Model,
    data: &Dataset,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<Comparison> {
    let runners = [runner(a, &options.run)?, runner(b, &options.run)?];
    progress.start("comparing", 2 * data.rows() as u64);
    let (baseline, measured) =
        Baseline::beside(&runners[0], &[&runners[1]], data, options.metric, progress)?;
    let [of_b] = measured.as_slice() else { unreachable!("one model was measured") };
    let calls = [one_call(&runners[0], data), one_call(&runners[1], data)];
    let times = latencies(&[&runners[0], &runners[1]], &[&calls[0], &calls[1]], TIMING)?;
    let energy = energy(&[&runners[0], &runners[1]], &[&calls[0], &calls[1]], Path::new(POWERCAP))?;
    let side = |model: &Model, metric: f64, latency_ms: Latency, energy_j: Option<f64>| {
        let path = model.path().unwrap_or(Path::new("(in memory)")).to_path_buf();
        Side {
            metric,
            file_bytes: model.file_bytes(),
            weight_bytes: model.weight_bytes(),
            latency_ms,
            energy_j,
            peak_rss_bytes: options.peak_memory.and_then(|measure| measure(&path)),
            path,
        }
    };
    let mut comparison = Comparison {
        metric: baseline.metric(),
        rows: data.rows(),
        a: side(a, baseline.value(), times[0], energy.of(0)),
        b: side(b, of_b.metric, times[1], energy.of(1)),
        drop: of_b.drop,
        drop_interval: of_b.drop_interval,
        agreement: of_b.agreement,
        max_abs_error: of_b.max_abs_error,
        sqnr_db: of_b.sqnr_db,
        worst_output: of_b.worst_output.clone(),
        verdict: String::new(),
        notes: Vec::new(),
        energy_note: energy.note(),
    };
    comparison.verdict = verdict(&comparison, options.max_drop);
    let doubt = options.max_drop.and_then(|max| comparison.doubt(max));
    let far = comparison.worst_output.as_ref().and_then(WorstOutput::note);
    comparison.notes = doubt.into_iter().chain(far).collect();
    progress.finish();
    Ok(comparison)
}

fn verdict(c: &Comparison, max_drop: Option<f64>) -> String {
    let metric = if c.drop.abs() <= DROP_TOLERANCE {
        format!("{} unchanged at {:.4}", c.metric, c.b.metric)
    } else {
        let direction = if c.drop > 0.0 { "worse" } else { "better" };
        format!(
            "{} {:.4} became {:.4}, {:.4} {direction}",
            c.metric,
            c.a.metric,
            c.b.metric,
            c.drop.abs()
        )
    };
    let interval = c.drop_interval.map_or(String::new(), |interval| format!(" ({interval})"));
    let size = match c.b.file_bytes as f64 / c.a.file_bytes.max(1) as f64 {
        r if r < 1.0 => format!("the file is {:.1} times smaller", 1.0 / r),
        1.0 => "the file is as large".to_string(),
        r => format!("the file is {r:.2} times LARGER"),
    };
    let speed = match c.b.latency_ms.median / c.a.latency_ms.median {
        r if r < 0.95 => format!("a call is {:.2} times faster", 1.0 / r),
        r if r <= 1.05 => "a call takes as long".to_string(),
        r => format!("a call is {r:.2} times SLOWER"),
    };
    let limit = match max_drop {
        None => String::new(),
        Some(max) if c.exceeds(max) => {
            format!("; the drop of {:.4} is beyond the {max} allowed", c.drop)
        }
        Some(max) => match c.doubt(max) {
            None => format!("; within the drop of {max} allowed"),
            Some(_) => {
                format!("; within the drop of {max} allowed, but the rows are too few to show it")
            }
        },
    };
    format!(
        "{metric}{interval}; {:.2} % of answers agree; {size}; {speed}{limit}",
        100.0 * c.agreement
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 450 rows, `only_a` are answered rightly by the first model alone.
    fn comparison(only_a: u64) -> Comparison {
        let side = |metric: f64| Side {
            path: PathBuf::new(),
            metric,
            file_bytes: 100,
            weight_bytes: 80,
            latency_ms: Latency { median: 1.0, p10: 1.0, p90: 1.0, calls: 10 },
            energy_j: None,
            peak_rss_bytes: None,
        };
        let drop_interval = DropInterval::of_paired_answers(only_a, 0, 450);
        let drop = only_a as f64 / 450.0;
        Comparison {
            metric: Metric::Accuracy,
            rows: 450,
            a: side(0.96),
            b: side(0.96 - drop),
            drop,
            drop_interval,
            agreement: 1.0 - drop,
            max_abs_error: 0.1,
            sqnr_db: Some(20.0),
            worst_output: None,
            verdict: String::new(),
            notes: Vec::new(),
            energy_note: String::new(),
        }
    }

    #[test]
    fn a_claim_that_the_rows_cannot_show_is_doubted_and_not_refused() {
        let equal = comparison(0);
        assert_eq!(equal.doubt(0.01), None);
        let doubt = equal.doubt(0.002).unwrap();
        assert!(doubt.starts_with("450 rows cannot show that the drop is at most 0.002: "));
        assert!(doubt.ends_with("about 2000 rows like these would"), "{doubt}");
        assert_eq!(equal.refusal(0.002), None);
        assert!(verdict(&equal, Some(0.002)).ends_with("but the rows are too few to show it"));
        assert!(verdict(&equal, Some(0.01)).ends_with("within the drop of 0.01 allowed"));
        // A drop just as large as allowed is shown by no number of rows.
        let edge = comparison(9);
        assert!(edge.doubt(0.02).unwrap().ends_with("nor would more rows like these"));
    }

    #[test]
    fn a_refusal_says_all_that_led_to_it() {
        let worse = comparison(9);
        let line = worse.refusal(0.01).unwrap();
        for part in
            ["accuracy 0.9600 became 0.9400", "a drop of 0.0200", "95 %", "max_drop is 0.01"]
        {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(line.lines().count(), 1);
        // What is refused is not doubted as well.
        assert_eq!(worse.doubt(0.01), None);
    }
}
