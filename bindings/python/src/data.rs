//! Examples handed over once, for whatever is measured on them.

use fewbits::cut::for_model;
use fewbits::data::{DataOptions, Dataset, Normalize, input_specs, warning_of_missing};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{any_tensor, named};
use crate::errors::raised;
use crate::model::OnnxModel;

/// Arrays that were checked against a model's inputs, and labels.
#[pyclass(frozen, module = "fewbits._fewbits")]
pub struct Data {
    pub dataset: Dataset,
}

#[pymethods]
impl Data {
    #[new]
    #[pyo3(signature = (model, arrays, labels=None, normalize=None))]
    fn new(
        model: &OnnxModel,
        arrays: &Bound<'_, PyDict>,
        labels: Option<&Bound<'_, PyAny>>,
        normalize: Option<&str>,
    ) -> PyResult<Data> {
        let normalize = raised(normalize.map(str::parse::<Normalize>).transpose())?;
        let options = DataOptions { normalize, ..DataOptions::default() };
        let labels =
            labels.map(|y| Ok::<_, PyErr>(("y".to_string(), any_tensor(y)?))).transpose()?;
        let specs = input_specs(model.model.graph());
        let dataset = Dataset::from_arrays(&specs, named(arrays)?, labels, &options);
        Ok(Data { dataset: for_model(raised(dataset)?, &model.model, 1) })
    }

    /// The number of examples.
    #[getter]
    fn rows(&self) -> usize {
        self.dataset.rows()
    }

    /// What is to be said of numbers that are missing, if the model is not known to take them.
    fn warning_of_missing(&self, model: &OnnxModel) -> PyResult<Option<String>> {
        raised(warning_of_missing(&self.dataset, model.model.graph()))
    }
}
