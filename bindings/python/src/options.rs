//! What is asked of the library, as Python spells it.

use fewbits::guard::AskedSqnr;
use fewbits::methods::Methods;
use fewbits::metric::Metric;
use fewbits::plan::{IntegerWeights, ReduceRange, SchemeKind, Target, WeightOptions, Width};
use fewbits::recipe::{Activations, RangeChoice, Request, RoundingChoice};
use fewbits::{Bits, ScaleType};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::Data;
use crate::errors::{raised, refused};

/// Reads the metric of that name.
pub fn metric(name: Option<&str>) -> PyResult<Option<Metric>> {
    name.map(str::parse).transpose().map_err(|why| refused("metric", why))
}

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
