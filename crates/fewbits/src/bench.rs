//! How fast models are: calls of two models in turn, on the same inputs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use fewbits_engine::{RunOptions, Runner, Tensor, ValueSpec, Values};
use fewbits_onnx::Model;
use fewbits_onnx::proto::DataType;
use serde::Serialize;

use crate::data::Dataset;
use crate::energy::{POWERCAP, energy};
use crate::measure::{Latency, latencies};
use crate::run::{call_of, fixed_rows, named, runner};
use crate::{Error, Result};

/// The length of made-up sequences.
const MADE_UP_LENGTH: usize = 128;
/// An input that claims to be larger is not believed.
const MOST_ELEMENTS: usize = 1 << 30;

/// A tensor for each input of a model.
type NamedInputs = Vec<(String, Tensor)>;

/// How to time.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchOptions {
    /// Threads; all cores if not given.
    pub threads: Option<NonZeroUsize>,
    /// Rows of one call; what the model insists on, else 1, if not given.
    pub batch: Option<NonZeroUsize>,
    /// What timing may take, about; slow models take longer.
    pub budget: Duration,
}

/// The times of one or two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bench {
    /// Threads that each model was given.
    pub threads: usize,
    /// Rows of one call.
    pub batch: usize,
    /// The first model.
    pub a: Timed,
    /// The second model, if there is one.
    pub b: Option<Timed>,
    /// The median of the first over that of the second: how many times as fast the second is.
    pub ratio: Option<f64>,
    /// What the inputs are, where no data was given.
    pub notes: Vec<String>,
    /// What the energy is, or why there is none.
    pub energy_note: String,
}

/// The time of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// The file.
    pub path: PathBuf,
    /// The median time of a call, in milliseconds.
    pub median_ms: f64,
    /// A tenth of the calls took no longer, in milliseconds.
    pub p10_ms: f64,
    /// Nine tenths of the calls took no longer, in milliseconds.
    pub p90_ms: f64,
    /// Rows a second, at the median.
    pub rows_per_second: f64,
    /// Timed calls.
    pub calls: usize,
    /// Joules of a call; none where the machine does not tell.
    pub energy_j: Option<f64>,
}

/// Times a model, and another one call by call beside it.
///
/// Both are fed the first rows of `data`, over again where there are fewer than a batch; without
/// data, inputs that are made up from what `a` declares: floats between -1 and 1, integers 0 and
/// 1 (masks all 1), 128 as the length of sequences of integers.
///
/// # Errors
/// If a model cannot be loaded or run, insists on another batch, or has inputs that cannot be made
/// up.
pub fn bench(
    a: &Model,
    against: Option<&Model>,
    data: Option<&Dataset>,
    options: &BenchOptions,
) -> Result<Bench> {
    let threads = options.threads.or_else(|| available_parallelism().ok());
    let run = RunOptions { threads, ..RunOptions::default() };
    let models: Vec<&Model> = std::iter::once(a).chain(against).collect();
    let runners = models.iter().map(|model| runner(model, &run)).collect::<Result<Vec<_>>>()?;
    let runners: Vec<&dyn Runner> = runners.iter().map(|runner| runner as &dyn Runner).collect();

    let insisted = runners.iter().find_map(|runner| fixed_rows(*runner));
    let batch = options.batch.map(NonZeroUsize::get).or(insisted).unwrap_or(1);
    for (model, runner) in models.iter().zip(&runners) {
        if let Some(fixed) = fixed_rows(*runner).filter(|&fixed| fixed != batch) {
            return Err(Error::Batch { path: path(model), fixed, batch });
        }
    }
    let (inputs, note) = match data {
        Some(data) => (call_of(data, batch), None),
        None => {
            let (inputs, note) = made_up(runners[0].inputs(), batch)
                .map_err(|reason| Error::MadeUp { path: path(a), reason })?;
            (inputs, Some(note))
        }
    };
    for (model, runner) in models.iter().zip(&runners) {
        runner.run(&inputs).map_err(|source| match data {
            Some(_) => named(model, source),
            None => Error::MadeUp { path: path(model), reason: source.to_string() },
        })?;
    }

    let inputs = vec![inputs.as_slice(); runners.len()];
    let times = latencies(&runners, &inputs, options.budget)?;
    let energy = energy(&runners, &inputs, Path::new(POWERCAP))?;
    let mut timed = models
        .iter()
        .zip(times)
        .enumerate()
        .map(|(i, (model, time))| Timed::new(model, time, batch, energy.of(i)));
    let a = timed.next().expect("the first model was timed");
    let b = timed.next();
    let ratio = b.as_ref().map(|b| a.median_ms / b.median_ms);
    let threads = threads.map_or(1, NonZeroUsize::get);
    let (notes, energy_note) = (note.into_iter().collect(), energy.note());
    Ok(Bench { threads, batch, a, b, ratio, notes, energy_note })
}

impl Timed {
    fn new(model: &Model, time: Latency, batch: usize, energy_j: Option<f64>) -> Timed {
        Timed {
            path: path(model),
            median_ms: time.median,
            p10_ms: time.p10,
            p90_ms: time.p90,
            rows_per_second: 1e3 * batch as f64 / time.median,
            calls: time.calls,
            energy_j,
        }
    }
}

fn path(model: &Model) -> PathBuf {
    model.path().unwrap_or(Path::new("(in memory)")).to_path_buf()
}

/// A tensor for each input, and a note that says what they are; or what is in the way.
pub(crate) fn made_up(
    specs: &[ValueSpec],
    batch: usize,
) -> std::result::Result<(NamedInputs, String), String> {
    let mut inputs = Vec::new();
    let mut shapes = Vec::new();
    for spec in specs {
        let tensor = made_up_input(spec, batch)
            .map_err(|reason| format!("input '{}' {reason}", spec.name))?;
        shapes.push(format!("{} {:?}", spec.name, tensor.shape()));
        inputs.push((spec.name.clone(), tensor));
    }
    let mut note = format!("inputs are made up: {}", shapes.join(", "));
    if specs.iter().any(is_sequence) {
        note += &format!("; sequences of {MADE_UP_LENGTH}, the model does not say how long");
    }
    Ok((inputs, note))
}

fn made_up_input(spec: &ValueSpec, batch: usize) -> std::result::Result<Tensor, String> {
    let dims = spec.dims.as_ref().ok_or("may be of any shape")?;
    let data_type = spec.data_type.ok_or("may be of any type")?;
    let length = is_sequence(spec).then_some(MADE_UP_LENGTH);
    let shape: Vec<usize> = dims
        .iter()
        .enumerate()
        .map(|(axis, dim)| dim.or(if axis == 0 { Some(batch) } else { length }))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("has the shape {}", spec.shape_text()))?;
    let count = shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .filter(|&count| count <= MOST_ELEMENTS)
        .ok_or_else(|| format!("has the shape {}", spec.shape_text()))?;
    let values = match data_type {
        DataType::Float | DataType::Double | DataType::Float16 => Values::from(floats(count)),
        _ if is_mask(spec) => Values::from(vec![1i64; count]),
        _ => Values::from((0..count as i64).map(|i| i % 2).collect::<Vec<i64>>()),
    };
    Tensor::new(shape, values)
        .and_then(|tensor| tensor.cast(data_type))
        .map_err(|_| format!("is of type {data_type:?}"))
}

/// Whether a value is one of integers for each position, of which the model leaves open how many.
fn is_sequence(spec: &ValueSpec) -> bool {
    let integers = matches!(spec.data_type, Some(DataType::Int64 | DataType::Int32));
    integers && matches!(spec.dims.as_deref(), Some([_, None]))
}

fn is_mask(spec: &ValueSpec) -> bool {
    spec.name.contains("mask")
}

/// Floats that look random, from -1 to 1, the same at every call: the generator of Numerical
/// Recipes, modulo 2^32.
fn floats(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, data_type: DataType, dims: &[Option<usize>]) -> ValueSpec {
        ValueSpec {
            name: name.into(),
            data_type: Some(data_type),
            dims: Some(dims.to_vec()),
            row_axis: Some(0),
        }
    }

    #[test]
    fn inputs_follow_what_is_declared() {
        let specs = [
            spec("x", DataType::Float, &[None, Some(500)]),
            spec("attention_mask", DataType::Int64, &[None, None]),
            spec("token_type_ids", DataType::Int32, &[Some(3), Some(2)]),
        ];
        let (inputs, note) = made_up(&specs, 3).unwrap();
        let Values::F32(x) = inputs[0].1.values() else { panic!("not floats") };
        assert_eq!(inputs[0].1.shape(), [3, 500]);
        assert!(x.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!(x.iter().sum::<f32>().abs() < 60.0 && x.iter().any(|&v| v < -0.9));
        assert_eq!(inputs[1].1.shape(), [3, 128]);
        assert_eq!(inputs[1].1.values(), &Values::I64(vec![1; 3 * 128]));
        assert_eq!(inputs[2].1.values(), &Values::I32(vec![0, 1, 0, 1, 0, 1]));
        assert!(note.contains("attention_mask [3, 128]") && note.contains("sequences"));
    }

    #[test]
    fn what_cannot_be_made_up_is_named() {
        for (bad, reason) in [
            (spec("x", DataType::Float, &[None, None]), "input 'x' has the shape [?, ?]"),
            (spec("x", DataType::Int64, &[None, None, None]), "input 'x' has the shape [?, ?, ?]"),
            (spec("x", DataType::String, &[None, Some(1)]), "input 'x' is of type String"),
            (spec("x", DataType::Float, &[None, Some(1 << 40)]), "has the shape"),
            (ValueSpec { dims: None, ..spec("x", DataType::Float, &[]) }, "of any shape"),
        ] {
            let error = made_up(&[bad], 1).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
