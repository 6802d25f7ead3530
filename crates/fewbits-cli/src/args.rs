//! The command line's arguments.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use fewbits::cut::for_model;
use fewbits::data::{
    Constant, DataError, DataOptions, Dataset, Normalize, input_specs, warning_of_missing,
};
use fewbits::guard::AskedSqnr;
use fewbits::methods::Methods;
use fewbits::metric::Metric;
use fewbits::plan::{
    GranularityKind, IntegerWeights, ReduceRange, SchemeKind, Target, WeightOptions, Width,
};
use fewbits::recipe::{
    RangeChoice, Recipe, RecipeChoice, Request, RoundingChoice, activation_bits,
};
use fewbits::run::BATCH_ROWS;
use fewbits::sweep::Widths;
use fewbits::tune::Objective;
use fewbits::{Bits, Model, ScaleType};

use crate::failure::Failure;
use crate::show;

/// Makes trained models smaller and faster with fewer bits, and measures what that cost.
#[derive(Parser)]
#[command(name = "fewbits", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  fewbits demo                                     the whole story on a built-in example
  fewbits quantize model.onnx -o small.onnx        weights to 8-bit integers
  fewbits compare model.onnx small.onnx --data test.csv

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the result is worse than --max-drop.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Threads to use; all cores by default
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Tell the whole story on a built-in example: train, quantize, save, load, evaluate
    Demo(DemoArgs),
    /// List a model's tensors: widths, bytes, ranges; or how it runs
    Inspect(InspectArgs),
    /// Write a model with fewer bits
    Quantize(QuantizeArgs),
    /// Measure two models on the same data
    Compare(CompareArgs),
    /// Measure a model at several widths: how many bits can be afforded?
    Sweep(SweepArgs),
    /// Find the smallest model that is at most so much worse
    Tune(TuneArgs),
    /// Run a model on data and save its outputs
    Run(RunArgs),
    /// Time a model, or two side by side
    Bench(BenchArgs),
    /// Run a model on data and print the largest memory that took
    #[command(hide = true)]
    PeakMemory(PeakMemoryArgs),
}

#[derive(Args)]
#[command(after_help = "Example:
  fewbits demo --out story")]
pub struct DemoArgs {
    /// Folder for the models, the test data and a page; without it nothing is kept
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits inspect model.onnx
  fewbits inspect small.onnx --runtime

The steps of --runtime compute on integers, on floats in kernels of ours, or in rten, the float
executor. FEWBITS_CPU=scalar, avx2, avx512vnni or amx, on aarch64 scalar or neon, chooses slower
kernels than the fastest.")]
pub struct InspectArgs {
    /// The model
    pub model: PathBuf,
    /// List the steps in which it runs on this machine instead: which nodes are computed together,
    /// where, and why not on integers
    #[arg(long)]
    pub runtime: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Reads one of the library's names of recipes, and lists them with what they mean.
fn recipe() -> impl TypedValueParser<Value = Recipe> {
    let help = |recipe| match recipe {
        Recipe::Weights => "Every weight; activations stay float",
        Recipe::Dynamic => "Weights, and activations quantized as they come",
        Recipe::Static => "Weights, and activations with scales from calibration data",
    };
    named(Recipe::ALL.map(|recipe| PossibleValue::new(recipe.name()).help(help(recipe))))
}

/// The same of objectives.
fn objective() -> impl TypedValueParser<Value = Objective> {
    let help = |objective| match objective {
        Objective::Size => "The file",
        Objective::Latency => {
            "The time of a call on this machine: what measures slower in integers stays float"
        }
    };
    named(Objective::ALL.map(|one| PossibleValue::new(one.name()).help(help(one))))
}

/// Reads a value of the library by one of its names.
fn named<T: FromStr<Err = String> + Clone + Send + Sync + 'static>(
    names: impl IntoIterator<Item = PossibleValue>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name: String| name.parse())
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits quantize model.onnx -o small.onnx
  fewbits quantize model.onnx -o small.onnx --bits 4 --granularity group=32
  fewbits quantize model.onnx -o small.onnx --bits 4 --granularity group=32 --calibrate train.npz
  fewbits quantize model.onnx -o fixed.onnx --scheme fixed-point --bits 8
  fewbits quantize model.onnx -o small.onnx --scheme nvfp4
  fewbits quantize model.onnx -o small.onnx --recipe static --calibrate train.npz
  fewbits quantize model.onnx -o fast.onnx --recipe auto --calibrate train.npz
  fewbits quantize model.onnx -o small.onnx --recipe static --calibrate train.npz --data test.npz \
      --max-drop 0.005
  fewbits quantize model.onnx -o small.onnx --bits 4 --rounding adaround --calibrate train.npz \
      --resume layers.state
  fewbits quantize model.onnx --dry-run
  fewbits quantize model.onnx -o small.onnx --save-plan plan.json
  fewbits quantize model.onnx -o small.onnx --plan plan.json")]
pub struct QuantizeArgs {
    /// The model to quantize
    pub model: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "OUT", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// What becomes integers: weights; dynamic, activations too, quantized as they come; static, with
    /// scales from calibration data; auto, static with --calibrate and dynamic without, but what
    /// measures slower than in float on this machine stays float: the bytes depend on the run
    #[arg(long, value_name = "RECIPE", default_value = "weights")]
    pub recipe: RecipeChoice,
    /// Width of the integers, 1 to 8, 8 if not given; for fixed-point, digits after the binary point, 1 to
    /// 15; floats have their own
    #[arg(long, value_name = "N")]
    pub bits: Option<Width>,
    #[command(flatten)]
    pub how: HowArgs,
    /// Data to calibrate on, as for compare: needed by --recipe static, of use to the others
    #[arg(long, value_name = "DATA", required_if_eq("recipe", "static"))]
    pub calibrate: Option<PathBuf>,
    /// Scale integer images: (x/255 - mean)/std, for example 0.286,0.353 or m1,m2,m3/s1,s2,s3
    #[arg(long, value_name = "MEAN,STD")]
    pub normalize: Option<Normalize>,
    /// The array or column that holds labels
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Calibrate on the first N rows
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// An input that has one value in every call, as a sampling rate: sr=16000; may be given again for others
    #[arg(long, value_name = "NAME=NUMBER")]
    pub input: Vec<Constant>,
    /// What every float output must reach on the calibration data, as signal to quantization noise in
    /// decibels, or none: what costs most stays float. 20 if not given, where activations become 8-bit integers
    /// by calibration data; below 8 bits and for a plan or fixed-point it only warns
    #[arg(long, value_name = "DB|none", default_value = "auto", hide_default_value = true)]
    pub min_sqnr: AskedSqnr,
    /// Labelled data for --max-drop
    #[arg(long, value_name = "DATA", requires = "max_drop")]
    pub data: Option<PathBuf>,
    /// How much worse the metric may be on --data, in its own unit: what costs most stays float until it
    /// holds; exit code 3, and nothing is written, if nothing does
    #[arg(long, value_name = "X", requires = "data", value_parser = finite)]
    pub max_drop: Option<f64>,
    /// The metric of --max-drop: accuracy, f1, auc, r2, mae, rmse, perplexity or agreement; by default the
    /// usual one for the labels
    #[arg(long, value_name = "NAME", requires = "max_drop")]
    pub metric: Option<Metric>,
    /// Do what this plan says instead of making one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "target", "bits", "scheme", "granularity", "scales", "act_bits", "range", "methods", "rounding", "reduce_range", "requantize"])]
    pub plan: Option<PathBuf>,
    /// Write the plan to this file
    #[arg(long, value_name = "FILE")]
    pub save_plan: Option<PathBuf>,
    /// Keep the layers that gptq and adaround have finished in this file, and go on from it if it is there
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    pub resume: Option<PathBuf>,
    /// Print the plan and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl QuantizeArgs {
    /// The files that are read.
    pub fn inputs(&self) -> Vec<&Path> {
        let optional = [&self.calibrate, &self.data, &self.plan];
        let optional = optional.into_iter().filter_map(|path| path.as_deref());
        std::iter::once(self.model.as_path()).chain(optional).collect()
    }
}

/// How weights and activations become integers.
#[derive(Args)]
pub struct HowArgs {
    /// What the file is for: onnx, standard operators of any opset; or onnxruntime, openvino, tensorrt,
    /// tract; or generic, operators of opset 13
    #[arg(long, value_name = "TARGET", default_value = "onnx")]
    pub target: Target,
    /// Integers: affine (with zero points), symmetric, or fixed-point (a scale of 1/2^bits). Small
    /// floats: fp8-e4m3, fp8-e5m2, fp4-e2m1. In blocks with 8-bit scales: mxfp8-e4m3, mxfp8-e5m2, mxfp4
    /// (32 elements), nvfp4 (16)
    #[arg(long, value_name = "SCHEME", default_value = "symmetric")]
    pub scheme: SchemeKind,
    /// What shares a scale: tensor, channel (if not given), or group=N
    #[arg(long, value_name = "GRANULARITY")]
    pub granularity: Option<GranularityKind>,
    /// How scales are stored where that saves bytes: f32, f16, or u8, integers with scales of their
    /// own (double quantization)
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub scales: ScaleType,
    /// Bits of the integers that activations become in --recipe static, 2 to 8
    #[arg(long, value_name = "N", default_value = "8", value_parser = activation_bits)]
    pub act_bits: Bits,
    /// How the range of an activation follows from the calibration data: minmax, percentile=P, mse
    /// or entropy; auto takes what measures best of minmax and mse
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub range: RangeChoice,
    /// What is done beforehand to lose less: equalization, smoothquant, awq, bias-correction, or
    /// several with commas; auto keeps those that lower the error of the outputs on the calibration data
    #[arg(long, value_name = "METHODS", default_value = "auto")]
    pub methods: Methods,
    /// How weights become integers: nearest; gptq, each making up for the errors of those before, and
    /// adaround, which learns what goes up and what down, on the data of --calibrate; hqq, which
    /// needs none; auto takes what measures best on the calibration data for --recipe weights below 8
    /// bits, and nearest otherwise
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub rounding: RoundingChoice,
    /// Keep 8-bit weights from saturating the sums of CPUs that add pairs of products in 16 bits (AVX2
    /// without VNNI): auto, just the channels that could, where products read 8-bit activations; all,
    /// 7 bits for every weight; none
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    pub reduce_range: ReduceRange,
    /// Bring weights that have integers of 8 bits already to fewer bits as well
    #[arg(long)]
    pub requantize: bool,
}

impl HowArgs {
    /// What is asked of the library.
    ///
    /// # Errors
    /// Wrong usage, if it does not go together.
    pub fn request<'a>(
        &self,
        recipe: Recipe,
        bits: Option<Width>,
        data: Option<&'a Dataset>,
    ) -> Result<Request<'a>, Failure> {
        let weights = WeightOptions::new(self.scheme, bits, self.granularity)
            .and_then(|weights| weights.with_scales(self.scales));
        let request = Request {
            target: self.target,
            weights: weights.map_err(Failure::usage)?,
            activations: recipe.activations(self.range, self.act_bits),
            methods: self.methods.clone(),
            rounding: self.rounding,
            reduce_range: self.reduce_range,
            integer_weights: match self.requantize {
                true => IntegerWeights::Requantized,
                false => IntegerWeights::Kept,
            },
            data,
        };
        match request.contradiction() {
            Some(reason) => Err(Failure::usage(reason)),
            None => Ok(request),
        }
    }
}

/// Where data comes from.
#[derive(Args)]
pub struct DataArgs {
    /// Data: .npz, .npy, .csv (with a header) or .parquet
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// The rows of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// So many.
    Rows(NonZeroUsize),
    /// Arrays are the inputs of one call, as they are.
    Whole,
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<BatchSize, String> {
        match text {
            "whole" => Ok(BatchSize::Whole),
            rows => rows
                .parse()
                .map(BatchSize::Rows)
                .map_err(|_| "a batch is a number of rows, at least 1, or whole".to_string()),
        }
    }
}

impl DataArgs {
    /// The data, checked against a model's inputs.
    pub fn dataset(&self, model: &Model) -> Result<Dataset, DataError> {
        let data = Dataset::read(&self.data, &input_specs(model.graph()), &self.read.options())?;
        show::warn(warning_of_missing(&data, model.graph())?);
        Ok(for_model(data, model, BATCH_ROWS))
    }

    /// Data to calibrate on, read as the other but for its limit.
    pub fn calibration(&self, path: &Path, model: &Model) -> Result<Dataset, DataError> {
        let options = DataOptions { limit: None, ..self.read.options() };
        let data = Dataset::read(path, &input_specs(model.graph()), &options)?;
        Ok(for_model(data, model, 1))
    }
}

/// How data is read.
#[derive(Args)]
pub struct ReadArgs {
    /// The array or column that holds the labels
    #[arg(long, value_name = "NAME", requires = "data")]
    pub label: Option<String>,
    /// Scale integer images: (x/255 - mean)/std, for example 0.286,0.353 or m1,m2,m3/s1,s2,s3
    #[arg(long, value_name = "MEAN,STD", requires = "data")]
    pub normalize: Option<Normalize>,
    /// Use the first N rows
    #[arg(long, value_name = "N", requires = "data")]
    pub limit: Option<NonZeroUsize>,
    /// An input that has one value in every call, as a sampling rate: sr=16000; may be given again for others
    #[arg(long, value_name = "NAME=NUMBER", requires = "data")]
    pub input: Vec<Constant>,
}

impl ReadArgs {
    pub fn options(&self) -> DataOptions {
        DataOptions {
            label: self.label.clone(),
            normalize: self.normalize.clone(),
            limit: self.limit.map(NonZeroUsize::get),
            constants: self.input.clone(),
            ..DataOptions::default()
        }
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits compare model.onnx small.onnx --data test.csv
  fewbits compare model.onnx small.onnx --data test.npz --max-drop 0.005")]
pub struct CompareArgs {
    /// The first model, usually the float one
    pub a: PathBuf,
    /// The second model
    pub b: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// accuracy, f1, auc, r2, mae, rmse, perplexity or agreement; by default what fits the labels
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    /// Exit with code 3 if the second model is worse by more than this
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = finite)]
    pub max_drop: Option<f64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits sweep model.onnx --data test.csv
  fewbits sweep model.onnx --data test.csv --bits 2,4,8 -o widths
  fewbits sweep model.onnx --data test.npz --calibrate train.npz --report sweep.html

Each width is quantized as by `fewbits quantize --bits N`, saved, opened again and run on the data.
-o keeps the files, as <model>-<bits>.onnx.")]
pub struct SweepArgs {
    /// The model
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Data to calibrate on; labels and --normalize as for --data, but all rows
    #[arg(long, value_name = "DATA", required_if_eq("recipe", "static"))]
    pub calibrate: Option<PathBuf>,
    /// Widths: 1..8 (both ends belong to it), 4, or 2,4,8; for fixed-point, digits after the binary
    /// point, up to 1..15
    #[arg(long, value_name = "WIDTHS", default_value = "1..8")]
    pub bits: Widths,
    /// What becomes integers; static with --calibrate, weights without, if not given
    #[arg(long, value_parser = recipe())]
    pub recipe: Option<Recipe>,
    #[command(flatten)]
    pub how: HowArgs,
    /// accuracy, f1, auc, r2, mae, rmse, perplexity or agreement; by default what fits the labels
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    /// Folder for the models, made if it is not there; without it nothing is kept
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write a page to look at to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl SweepArgs {
    /// The files that are read.
    pub fn inputs(&self) -> Vec<&Path> {
        let optional = self.calibrate.as_deref();
        [&self.model, &self.data.data].map(PathBuf::as_path).into_iter().chain(optional).collect()
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits tune model.onnx --data valid.npz --calibrate train.npz --max-drop 0.005 -o small.onnx
  fewbits tune model.onnx --data valid.npz --calibrate train.npz --max-drop 0.005 -o small.onnx \\
      --time-limit 600 --resume search.json --report report.html

Every weight gets its own width, from 2 to 8 bits, and what shares a scale. The best model so far is
always in its place, also after Ctrl-C; with --resume the same command goes on from there. Exit code
3: no model with fewer bits stays within the drop.")]
pub struct TuneArgs {
    /// The float model
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Data for ranges and sensitivities, other rows than --data
    #[arg(long, value_name = "DATA")]
    pub calibrate: PathBuf,
    /// How much worse the metric may be, in its own unit
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = finite)]
    pub max_drop: f64,
    /// The file to write
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// accuracy, f1, auc, r2, mae, rmse, perplexity or agreement; by default what fits the labels
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    /// What is made as small as it can be
    #[arg(long, value_parser = objective(), default_value = "size")]
    pub objective: Objective,
    /// What becomes integers; weights for the smallest file and static
    /// for the fastest model by default
    #[arg(long, value_parser = recipe())]
    pub recipe: Option<Recipe>,
    /// What the file is for: onnx, standard operators of any opset; or onnxruntime, openvino, tensorrt,
    /// tract; or generic, operators of opset 13
    #[arg(long, value_name = "TARGET", default_value = "onnx")]
    pub target: Target,
    /// Stop after so many seconds with the best model so far
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub time_limit: Option<Duration>,
    /// Keep what was measured in this file, and go on from it if it is there
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Write a page about the search
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl TuneArgs {
    /// The files that are read.
    pub fn inputs(&self) -> Vec<&Path> {
        [&self.model, &self.data.data, &self.calibrate].map(PathBuf::as_path).to_vec()
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits run model.onnx --data test.csv -o answers.csv
  fewbits run model.onnx --data test.npz -o answers.npz
  fewbits run voice.onnx --data sound.npz --input sr=16000 -o answers.npz
  fewbits run model.onnx --data one_call.npz --batch whole -o answers.npz")]
pub struct RunArgs {
    /// The model
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Rows of one call, 64 if not given; or whole: the arrays, single numbers too, are the inputs of
    /// one call, as they are
    #[arg(long, value_name = "N|whole")]
    pub batch: Option<BatchSize>,
    /// Where to write the outputs: .npz or .csv
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  fewbits bench model.onnx
  fewbits bench model.onnx --against small.onnx --data test.npz --threads 1 --batch 32

Calls of both models take turns. The ratio is how many times as fast the second model is: the median
of the first over that of the second. Without --data the inputs are made up from what the model
declares.")]
pub struct BenchArgs {
    /// The model
    pub model: PathBuf,
    /// Another model to time beside it
    #[arg(long, value_name = "OTHER")]
    pub against: Option<PathBuf>,
    /// Data: .npz, .npy, .csv (with a header) or .parquet; without it inputs are made up
    #[arg(long, value_name = "DATA")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub read: ReadArgs,
    /// Rows of one call; 1, or what the model insists on, by default
    #[arg(long, value_name = "N")]
    pub batch: Option<NonZeroUsize>,
    /// What timing may take, about; at least a few calls are timed
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "not a number".to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

#[derive(Args)]
pub struct PeakMemoryArgs {
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
}
