//! Plans, and models made by them.

use fewbits::apply::FinishedLayers;
use fewbits::guard::{AskedSqnr, Guarded, Limits, MaxDrop, Otherwise};
use fewbits::methods::Methods;
use fewbits::plan::{IntegerWeights, Plan, ReduceRange, SchemeKind, Target, WeightOptions, Width};
use fewbits::progress::Progress;
use fewbits::quantize::{Planned, Speed};
use fewbits::recipe::{Activations, Observed, RangeChoice, Request, RoundingChoice};
use fewbits::run::RunOptions;
use fewbits::{Bits, Model, ScaleType};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::Data;
use crate::errors::{raised, refused};
use crate::measure::metric;
use crate::model::{OnnxModel, json};
use crate::work::interruptible;

/// How weights and activations become integers, as Python spells it.
pub struct How {
    pub target: Target,
    pub weights: WeightOptions,
    pub activations: Activations,
    pub methods: Methods,
    pub rounding: RoundingChoice,
    pub reduce_range: ReduceRange,
    pub integer_weights: IntegerWeights,
    /// Whether what measures slower stays float.
    pub never_slower: bool,
    /// What the outputs must reach.
    pub min_sqnr: AskedSqnr,
}

impl How {
    /// Reads the options of a dictionary: recipe, bits, act_bits, scheme, granularity, scales,
    /// range, methods, rounding, reduce_range, integer_weights, target and min_sqnr. Bits and granularity may be None.
    pub fn read(options: &Bound<'_, PyDict>) -> PyResult<How> {
        let text = |name: &str| -> PyResult<String> {
            let value = options.get_item(name)?;
            value.map_or(Ok(String::new()), |value| value.str().map(|s| s.to_string()))
        };
        fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
            name: &str,
            text: &str,
        ) -> PyResult<T> {
            text.parse().map_err(|why| refused(name, why))
        }
        let bits = |name: &str| parsed::<Bits>(name, &text(name)?);
        let range: RangeChoice = parsed("range", &text("range")?)?;
        let act_bits = bits("act_bits")?;
        if act_bits.get() < 2 {
            return Err(refused("act_bits", "activations have 2 to 8 bits"));
        }
        let fixed = Activations::Static { range, bits: act_bits };
        let recipe = text("recipe")?;
        let activations = match recipe.as_str() {
            "weights" => Activations::Float,
            "dynamic" | "auto-dynamic" => Activations::Dynamic,
            "static" | "auto-static" => fixed,
            _ => return Err(refused("recipe", "recipes are weights, dynamic, static and auto")),
        };
        let given = |name: &str| -> PyResult<Option<String>> {
            let value = options.get_item(name)?.filter(|value| !value.is_none());
            value.map(|_| text(name)).transpose()
        };
        let width = given("bits")?.map(|text| parsed::<Width>("bits", &text)).transpose()?;
        let granularity = given("granularity")?;
        let granularity = granularity.map(|text| parsed("granularity", &text)).transpose()?;
        let scheme = parsed::<SchemeKind>("scheme", &text("scheme")?)?;
        let scales = parsed::<ScaleType>("scales", &text("scales")?)?;
        let weights = WeightOptions::new(scheme, width, granularity)
            .and_then(|weights| weights.with_scales(scales));
        Ok(How {
            target: parsed("target", &text("target")?)?,
            weights: raised(weights.map_err(|reason| fewbits::Error::Request { reason }))?,
            activations,
            methods: parsed("methods", &text("methods")?)?,
            rounding: parsed("rounding", &text("rounding")?)?,
            reduce_range: given("reduce_range")?
                .map_or(Ok(ReduceRange::Auto), |text| parsed("reduce_range", &text))?,
            integer_weights: match given("integer_weights")?.as_deref() {
                None | Some("kept") => IntegerWeights::Kept,
                Some("requantized") => IntegerWeights::Requantized,
                Some(_) => {
                    return Err(refused("integer_weights", "they are kept or requantized"));
                }
            },
            never_slower: recipe.starts_with("auto-"),
            min_sqnr: parsed("min_sqnr", &text("min_sqnr")?)?,
        })
    }

    /// What is asked of the library.
    pub fn request<'a>(&self, data: Option<&'a Data>) -> Request<'a> {
        Request {
            target: self.target,
            weights: self.weights,
            activations: self.activations,
            methods: self.methods.clone(),
            rounding: self.rounding,
            reduce_range: self.reduce_range,
            integer_weights: self.integer_weights,
            data: data.map(|data| &data.dataset),
        }
    }
}

/// The plan of a model, as JSON.
#[pyfunction]
#[pyo3(signature = (model, options, data, watch))]
pub fn plan(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    data: Option<&Data>,
    watch: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let how = How::read(options)?;
    interruptible(watch, |progress| {
        let (planned, _) = settled(&model.model, &how, data, None, None, progress)?;
        Ok(planned.plan().to_json())
    })
}

/// A quantized model, its plan as JSON, what the guard measured as JSON, and notes. `labelled` are the rows
/// on which the metric may drop by `max_drop`.
#[pyfunction]
#[pyo3(signature = (model, options, data, plan, watch, labelled=None, max_drop=None, metric_name=None))]
#[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
pub fn quantize(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    data: Option<&Data>,
    plan: Option<&str>,
    watch: &Bound<'_, PyAny>,
    labelled: Option<&Data>,
    max_drop: Option<f64>,
    metric_name: Option<&str>,
) -> PyResult<(OnnxModel, String, String, Vec<String>)> {
    let how = How::read(options)?;
    let plan = plan.map(|text| raised(Plan::from_json(text))).transpose()?;
    let metric = metric(metric_name)?;
    let otherwise = if plan.is_some() { Otherwise::Tell } else { Otherwise::LeaveFloat };
    let max_drop = max_drop.zip(labelled).map(|(max_drop, labelled)| MaxDrop {
        data: &labelled.dataset,
        metric,
        max_drop,
        otherwise,
    });
    interruptible(watch, |progress| {
        let (planned, guarded) = settled(&model.model, &how, data, plan, max_drop, progress)?;
        let notes = planned.notes().to_vec();
        if let Some(why) = planned.why_nothing() {
            let same = "nothing is quantized, the model stays as it is";
            progress.warn(&format!("{same}: {why}"));
        }
        for warning in &guarded.warnings {
            progress.warn(warning);
        }
        let (quantized, plan) = planned.carry_out(progress)?;
        Ok((OnnxModel::of_file(&quantized)?, plan.to_json(), json(&guarded), notes))
    })
}

/// What is to become of a model, with what stays float for accuracy and speed.
fn settled<'a>(
    model: &'a Model,
    how: &How,
    data: Option<&'a Data>,
    plan: Option<Plan>,
    max_drop: Option<MaxDrop>,
    progress: &crate::work::Watched,
) -> fewbits::Result<(Planned<'a>, Guarded)> {
    let run = RunOptions::default();
    let request = how.request(data);
    let finished = FinishedLayers::default();
    let refused = |reason| fewbits::Error::Request { reason };
    let (planned, min_sqnr) = match plan {
        Some(plan) => {
            let min_sqnr = how.min_sqnr.of_plan(&plan, request.data).map_err(refused)?;
            (Planned::by_plan(model, plan, request.data, finished, &run)?, min_sqnr)
        }
        None => {
            let min_sqnr = how.min_sqnr.of_recipe(&request).map_err(refused)?;
            let mut observed = Observed::default();
            let planned =
                Planned::by_recipe(model, &request, &mut observed, finished, &run, progress)?;
            (planned, min_sqnr)
        }
    };
    let speed = match how.never_slower {
        true => Speed::NeverSlower { timed_on: request.data },
        false => Speed::AsPlanned,
    };
    let limits = Limits::of(min_sqnr, how.min_sqnr, max_drop);
    let (planned, settled) = planned.settled(&limits, speed, progress)?;
    Ok((planned, settled.guarded))
}

/// A plan as JSON, checked.
#[pyfunction]
pub fn check_plan(text: &str) -> PyResult<String> {
    Ok(raised(Plan::from_json(text))?.to_json())
}
