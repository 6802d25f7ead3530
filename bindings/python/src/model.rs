//! A model in memory, and how it is run.

use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use fewbits::run::{RunOptions, convolves, runner};
use fewbits::{DataType, Engine, Model, Replace, Runner, SaveOptions, ValueSpec};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::arrays::{array, named};
use crate::errors::raised;
use crate::work::detached;

/// A model whose weights take no more than this, and which has no convolution, does a call with a
/// row in microseconds: waking a thread would take longer.
const ONE_THREAD_WEIGHT_BYTES: u64 = 256 << 10;

/// Name, element type and dimensions of an input or output.
type Spec = (String, Option<String>, Option<Vec<Option<usize>>>);

/// An ONNX model, loaded for running when it first runs.
#[pyclass(frozen, module = "fewbits._fewbits")]
pub struct OnnxModel {
    pub model: Model,
    loaded: OnceLock<Engine>,
}

impl OnnxModel {
    pub fn new(model: Model) -> OnnxModel {
        OnnxModel { model, loaded: OnceLock::new() }
    }

    /// A model as a file of it would be read: its bytes are counted.
    pub fn of_file(model: &Model) -> fewbits::Result<OnnxModel> {
        Ok(OnnxModel::new(Model::from_bytes(Bytes::from(model.to_bytes()))?))
    }

    /// What runs the model, loaded at the first call.
    pub fn runner(&self, py: Python<'_>) -> PyResult<&Engine> {
        if let Some(runner) = self.loaded.get() {
            return Ok(runner);
        }
        let loaded = detached(py, || runner(&self.model, &self.run_options()))?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// One thread for what is small, all cores for the rest.
    pub fn run_options(&self) -> RunOptions {
        let small = !convolves(&self.model) && self.model.weight_bytes() <= ONE_THREAD_WEIGHT_BYTES;
        let threads = small.then_some(std::num::NonZeroUsize::MIN);
        RunOptions { threads, ..RunOptions::default() }
    }
}

#[pymethods]
impl OnnxModel {
    /// Opens a file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<OnnxModel> {
        detached(py, || Ok(OnnxModel::new(Model::open(&path)?)))
    }

    /// Reads the bytes of a file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, content: &[u8]) -> PyResult<OnnxModel> {
        let bytes = Bytes::copy_from_slice(content);
        detached(py, || Ok(OnnxModel::new(Model::from_bytes(bytes)?)))
    }

    /// The bytes of the model's file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = detached(py, || Ok(self.model.to_bytes()))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes the model, whole or not at all; gives the bytes written.
    #[pyo3(signature = (path, force=false))]
    fn save(&self, py: Python<'_>, path: PathBuf, force: bool) -> PyResult<u64> {
        let replace = if force { Replace::Existing } else { Replace::Never };
        let options = SaveOptions { replace, ..SaveOptions::default() };
        detached(py, || {
            // An open file is read from its map: it must stay what it is.
            fewbits::output::check_output(&path, self.model.path().as_slice(), replace)?;
            Ok(self.model.save(&path, options)?.file_bytes)
        })
    }

    /// The bytes of the model's file, external data included.
    #[getter]
    fn file_bytes(&self) -> u64 {
        self.model.file_bytes()
    }

    /// The bytes of its constants.
    #[getter]
    fn weight_bytes(&self) -> u64 {
        self.model.weight_bytes()
    }

    /// What the model takes.
    #[getter]
    fn inputs(&self) -> Vec<Spec> {
        fewbits::data::input_specs(self.model.graph()).into_iter().map(spec).collect()
    }

    /// What the model gives.
    #[getter]
    fn outputs(&self) -> Vec<Spec> {
        self.model.graph().output.iter().map(|o| spec(ValueSpec::new(o))).collect()
    }

    /// An entry of the file's metadata.
    fn metadata(&self, key: &str) -> Option<&str> {
        self.model.metadata(key)
    }

    /// The same model with one more entry of metadata.
    fn with_metadata(&self, key: &str, value: &str) -> PyResult<OnnxModel> {
        let mut model = self.model.clone();
        model.set_metadata(key, value);
        raised(OnnxModel::of_file(&model))
    }

    /// What the model holds, as JSON.
    fn inspect(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || Ok(json(&fewbits::inspect::inspect(&self.model)?)))
    }

    /// The steps in which the model runs, as JSON.
    fn execution(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || Ok(json(&fewbits::inspect::execution(&self.model)?)))
    }

    /// The bits of the widest fixed-point integer.
    fn integer_bits(&self) -> u8 {
        fewbits::inspect::integer_bits(&self.model)
    }

    /// One call on named arrays; gives the outputs by name.
    fn run<'py>(
        &self,
        py: Python<'py>,
        arrays: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let runner = self.runner(py)?;
        let inputs = named(arrays)?
            .into_iter()
            .map(|(name, tensor)| {
                let spec = runner.inputs().iter().find(|spec| spec.name == name);
                Ok(match spec.and_then(|spec| spec.data_type) {
                    // Numbers come as Python has them; integers stay what they are.
                    Some(to @ (DataType::Float | DataType::Double | DataType::Float16)) => {
                        (name, raised(tensor.cast(to))?)
                    }
                    _ => (name, tensor),
                })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let outputs = detached(py, || Ok(runner.run(&inputs)?))?;
        let answers = PyDict::new(py);
        for (name, tensor) in outputs {
            answers.set_item(name, array(py, tensor)?)?;
        }
        Ok(answers)
    }
}

fn spec(spec: ValueSpec) -> Spec {
    let data_type = spec.data_type.map(|t| format!("{t:?}").to_lowercase());
    (spec.name, data_type, spec.dims)
}

/// A report as JSON.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a report holds nothing that JSON lacks")
}
