//! Plans, and models made by them.

use fewbits::apply::FinishedLayers;
use fewbits::methods::Methods;
use fewbits::plan::{Plan, SchemeKind, Target, WeightOptions};
use fewbits::progress::Progress;
use fewbits::quantize::Planned;
use fewbits::recipe::{Activations, Observed, RangeChoice, Request, RoundingChoice};
use fewbits::run::RunOptions;
use fewbits::{Bits, Model, ScaleType};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::Data;
use crate::errors::{raised, refused};
use crate::model::OnnxModel;
use crate::work::interruptible;

/// How weights and activations become integers, as Python spells it.
pub struct How {
    pub target: Target,
    pub weights: WeightOptions,
    pub activations: Activations,
    pub methods: Methods,
    pub rounding: RoundingChoice,
    /// Whether what measures slower stays float.
    pub never_slower: bool,
}

impl How {
    /// Reads the options of a dictionary: recipe, bits, act_bits, scheme, granularity, scales,
    /// range, methods, rounding and target. Bits and granularity may be None.
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
        let width = given("bits")?.map(|text| parsed::<Bits>("bits", &text)).transpose()?;
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
            never_slower: recipe.starts_with("auto-"),
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
        Ok(planned(&model.model, &how, data, progress)?.plan().to_json())
    })
}

/// A quantized model, its plan as JSON, and notes.
#[pyfunction]
#[pyo3(signature = (model, options, data, plan, watch))]
pub fn quantize(
    model: &OnnxModel,
    options: &Bound<'_, PyDict>,
    data: Option<&Data>,
    plan: Option<&str>,
    watch: &Bound<'_, PyAny>,
) -> PyResult<(OnnxModel, String, Vec<String>)> {
    let how = How::read(options)?;
    let plan = plan.map(|text| raised(Plan::from_json(text))).transpose()?;
    interruptible(watch, |progress| {
        let planned = match plan {
            Some(plan) => {
                let seen = data.map(|data| &data.dataset);
                Planned::by_plan(
                    &model.model,
                    plan,
                    seen,
                    FinishedLayers::default(),
                    &RunOptions::default(),
                )?
            }
            None => planned(&model.model, &how, data, progress)?,
        };
        let notes = planned.notes().to_vec();
        if let Some(why) = planned.plan().why_nothing() {
            let same = "nothing is quantized, the model stays as it is";
            progress.warn(&format!("{same}: {why}"));
        }
        let (quantized, plan) = planned.carry_out(progress)?;
        Ok((OnnxModel::of_file(&quantized)?, plan.to_json(), notes))
    })
}

fn planned<'a>(
    model: &'a Model,
    how: &How,
    data: Option<&'a Data>,
    progress: &crate::work::Watched,
) -> fewbits::Result<Planned<'a>> {
    let run = RunOptions::default();
    let request = how.request(data);
    let planned = Planned::by_recipe(
        model,
        &request,
        &mut Observed::default(),
        FinishedLayers::default(),
        &run,
        progress,
    )?;
    Ok(match how.never_slower {
        true => planned.never_slower(request.data, &run, progress)?.0,
        false => planned,
    })
}

/// A plan as JSON, checked.
#[pyfunction]
pub fn check_plan(text: &str) -> PyResult<String> {
    Ok(raised(Plan::from_json(text))?.to_json())
}
