//! The seed's notebook, told in Rust: train logistic regression, evaluate; round the weights to
//! N bits, save, load, evaluate again; change N and watch size against accuracy.

mod page;
mod train;

use std::num::NonZeroUsize;
use std::path::Path;

use fewbits_engine::RunOptions;
use fewbits_onnx::{Model, SaveOptions};
use fewbits_quant::Bits;
use serde::Serialize;

use crate::apply::Checkpoint;
use crate::compare::{CompareOptions, Comparison, compare};
use crate::data::{DataOptions, Dataset, input_specs};
use crate::error::exists;
use crate::inspect::integer_bits;
use crate::methods::Methods;
use crate::metric::Metric;
use crate::output::write_file;
use crate::plan::{SchemeKind, Target, WeightOptions};
use crate::progress::{Progress, Silent};
use crate::quantize::Planned;
use crate::recipe::{Activations, Observed, Request, RoundingChoice};
use crate::sweep::{Sweep, SweepOptions, Widths, sweep};
use crate::{Error, Replace, Result};

/// scikit-learn's `make_classification(n_samples=1000, n_features=20, random_state=42)`, split
/// 800 to 200: the notebook's data.
const TRAIN_CSV: &str = include_str!("../../../../tests/fixtures/notebook/train.csv");
const TEST_CSV: &str = include_str!("../../../../tests/fixtures/notebook/test.csv");

/// What the demo did and measured.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// Rows that the model was trained on.
    pub train_rows: usize,
    /// Rows that it was evaluated on.
    pub test_rows: usize,
    /// Features of a row.
    pub features: usize,
    /// Accuracy of the trained model in memory, in f64.
    pub trained_accuracy: f64,
    /// The saved float model against the notebook's fixed-point rule at 8 bits.
    pub fixed_point: Comparison,
    /// Bits that the rule's integers really need.
    pub fixed_point_integer_bits: u8,
    /// The saved float model against symmetric 8-bit integers.
    pub symmetric: Comparison,
    /// Both schemes at every width.
    pub widths: Vec<WidthTried>,
}

/// One width.
#[derive(Clone, Debug, Serialize)]
pub struct WidthTried {
    /// The width; for fixed point the digits after the point.
    pub bits: u8,
    /// Accuracy of the notebook's rule.
    pub fixed_point_accuracy: f64,
    /// Bytes of its file.
    pub fixed_point_bytes: u64,
    /// Accuracy of symmetric integers.
    pub symmetric_accuracy: f64,
    /// Bytes of their file.
    pub symmetric_bytes: u64,
}

/// The names of the files that the demo writes.
pub const FILES: [&str; 5] =
    ["model.onnx", "fixed-point-8.onnx", "symmetric-8.onnx", "test.csv", "index.html"];

/// Runs the demo and writes its models, the test data and a page to `folder`, which is made if it
/// is not there.
///
/// # Errors
/// If a file cannot be written, or stands there and may not be replaced.
pub fn demo(
    folder: &Path,
    replace: Replace,
    threads: Option<NonZeroUsize>,
    progress: &dyn Progress,
) -> Result<Story> {
    for name in FILES {
        let path = folder.join(name);
        if replace == Replace::Never && path.exists() {
            let reason = exists();
            return Err(Error::Output { path, reason });
        }
    }
    std::fs::create_dir_all(folder)
        .map_err(|source| Error::Io { path: folder.to_path_buf(), source })?;
    let save = SaveOptions { replace, ..SaveOptions::default() };
    let [float_path, fixed_path, symmetric_path, test_path, page_path] =
        FILES.map(|name| folder.join(name));
    write_file(&test_path, TEST_CSV.as_bytes(), replace)?;

    progress.start("demo", 2 + 2 * Bits::all().count() as u64);
    let trained = train::logistic_regression(TRAIN_CSV, TEST_CSV);
    trained.to_model().save(&float_path, save)?;
    let float = Model::open(&float_path)?;
    let data = Dataset::read(&test_path, &input_specs(float.graph()), &DataOptions::default())?;
    let run = RunOptions { threads, ..RunOptions::default() };

    let at_every_width = |scheme: SchemeKind| -> Result<Sweep> {
        let options = SweepOptions {
            metric: Some(Metric::Accuracy),
            run: run.clone(),
            ..SweepOptions::default()
        };
        let sweep = sweep(&float, &request(scheme), &Widths::all(), &data, &options, &Silent)?;
        progress.advance(sweep.points.len() as u64);
        Ok(sweep)
    };
    let fixed_point = at_every_width(SchemeKind::FixedPoint)?;
    let symmetric = at_every_width(SchemeKind::Symmetric)?;
    let widths =
        fixed_point.points.iter().zip(&symmetric.points).map(|(fixed_point, symmetric)| {
            WidthTried {
                bits: fixed_point.bits.get(),
                fixed_point_accuracy: fixed_point.metric,
                fixed_point_bytes: fixed_point.file_bytes,
                symmetric_accuracy: symmetric.metric,
                symmetric_bytes: symmetric.file_bytes,
            }
        });
    let widths = widths.collect();

    let against = |scheme: SchemeKind, path: &Path| -> Result<Comparison> {
        let mut observed = Observed::default();
        let planned = Planned::by_recipe(
            &float,
            &request(scheme),
            &mut observed,
            Checkpoint::default(),
            &run,
            &Silent,
        )?;
        planned.carry_out(&Silent)?.0.save(path, save)?;
        let options = CompareOptions { run: run.clone(), ..CompareOptions::default() };
        let comparison = compare(&float, &Model::open(path)?, &data, &options, &Silent)?;
        progress.advance(1);
        Ok(comparison)
    };
    let story = Story {
        train_rows: trained.train_rows,
        test_rows: data.rows(),
        features: trained.coefficients.len(),
        trained_accuracy: trained.accuracy,
        fixed_point: against(SchemeKind::FixedPoint, &fixed_path)?,
        fixed_point_integer_bits: integer_bits(&Model::open(&fixed_path)?),
        symmetric: against(SchemeKind::Symmetric, &symmetric_path)?,
        widths,
    };
    write_file(&page_path, page::render(&story).as_bytes(), replace)?;
    progress.finish();
    Ok(story)
}

/// Weights of 8 bits, one scale a channel; activations stay float.
fn request(scheme: SchemeKind) -> Request<'static> {
    Request {
        target: Target::default(),
        weights: WeightOptions::new(scheme, None, None).expect("integers take any width"),
        rounding: RoundingChoice::default(),
        reduce_range: Default::default(),
        integer_weights: Default::default(),
        activations: Activations::Float,
        methods: Methods::Measured,
        data: None,
    }
}
