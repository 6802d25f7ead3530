//! What is asked of the library, as Python spells it.

use fewbits::guard::AskedSqnr;
use fewbits::methods::Methods;
use fewbits::metric::Metric;
use fewbits::plan::{IntegerWeights, ReduceRange, SchemeKind, Target, WeightOptions, Width};
use fewbits::recipe::{
    Activations, RangeChoice, Recipe, RecipeChoice, Request, RoundingChoice, activation_bits,
};
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
    /// None where it is for the caller to choose.
    pub recipe: Option<RecipeChoice>,
    pub range: RangeChoice,
    pub act_bits: Bits,
    pub methods: Methods,
    pub rounding: RoundingChoice,
    pub reduce_range: ReduceRange,
    pub integer_weights: IntegerWeights,
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
            recipe: given("recipe")?.map(|text| parsed("recipe", &text)).transpose()?,
            range: parsed("range", &text("range")?)?,
            act_bits: activation_bits(&text("act_bits")?)
                .map_err(|why| refused("act_bits", why))?,
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
            min_sqnr: parsed("min_sqnr", &text("min_sqnr")?)?,
        })
    }

    /// Tells what activations become; by the recipe `unasked` where none is given.
    pub fn activations(&self, data: Option<&Data>, unasked: Recipe) -> Activations {
        let recipe = self.recipe.map_or(unasked, |choice| choice.recipe(data));
        recipe.activations(self.range, self.act_bits)
    }

    /// What is asked of the library.
    pub fn request<'a>(&self, data: Option<&'a Data>) -> Request<'a> {
        Request {
            target: self.target,
            weights: self.weights,
            activations: self.activations(data, Recipe::Weights),
            methods: self.methods.clone(),
            rounding: self.rounding,
            reduce_range: self.reduce_range,
            integer_weights: self.integer_weights,
            data: data.map(|data| &data.dataset),
        }
    }
}
