//! The short way from a matrix of floats to labels and scores: one call, few steps of Python.

use fewbits::metric::{Predictions, predictions};
use fewbits::run::{BATCH_ROWS, run_rows};
use fewbits::{DataType, Engine, Runner, Tensor};
use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::data::Data;
use crate::model::OnnxModel;
use crate::work::detached;

/// Elements of a matrix that go into one call: between calls Ctrl-C is looked for.
const CALL_ELEMENTS: usize = 1 << 18;

/// Probabilities add up to 1 within this: they are computed in 32 bits.
const SUM_TOLERANCE: f64 = 1e-3;

/// Rows of a matrix in the model's type, checked.
struct Rows<'a> {
    name: &'a str,
    data_type: DataType,
    features: usize,
}

impl<'a> Rows<'a> {
    /// What a model takes, if it is one matrix of floats with any number of rows.
    fn of(runner: &'a Engine) -> Option<Rows<'a>> {
        let [spec] = runner.inputs() else { return None };
        let data_type = spec.data_type?;
        match spec.dims.as_deref()? {
            [None, Some(features)] if matches!(data_type, DataType::Float | DataType::Double) => {
                Some(Rows { name: &spec.name, data_type, features: *features })
            }
            _ => None,
        }
    }

    fn tensor<T: Copy + Into<f64>>(&self, elements: &[T]) -> fewbits::Result<Tensor> {
        let shape = vec![elements.len() / self.features.max(1), self.features];
        Ok(match self.data_type {
            DataType::Double => {
                Tensor::new(shape, elements.iter().map(|&x| x.into()).collect::<Vec<f64>>())?
            }
            _ => {
                let narrowed = elements.iter().map(|&x| Into::<f64>::into(x) as f32);
                Tensor::new(shape, narrowed.collect::<Vec<f32>>())?
            }
        })
    }
}

/// What is not a number, or too large for the model's type.
#[derive(Clone, Copy)]
enum Missing {
    Refused,
    Passed,
}

/// The outputs for a C-contiguous matrix of the model's width; none where it is something else.
fn of_matrix<T: Element + Copy + Into<f64> + Sync>(
    py: Python<'_>,
    model: &OnnxModel,
    matrix: Option<PyReadonlyArray2<'_, T>>,
    missing: Missing,
) -> PyResult<Option<Vec<Vec<Tensor>>>> {
    let runner = model.runner(py)?;
    let (Some(rows), Some(matrix)) = (Rows::of(runner), matrix) else { return Ok(None) };
    // A slice is given of what lies column by column, too.
    let Some(elements) = matrix.as_slice().ok().filter(|_| matrix.is_c_contiguous()) else {
        return Ok(None);
    };
    let shape = matrix.as_array().dim();
    if shape.0 == 0 || shape.1 != rows.features || rows.features == 0 {
        return Ok(None);
    }
    let per_call = (CALL_ELEMENTS / rows.features).max(1) * rows.features;
    let mut answers = Vec::with_capacity(elements.len().div_ceil(per_call));
    for (i, part) in elements.chunks(per_call).enumerate() {
        if i > 0 {
            py.check_signals()?;
        }
        let limit = match rows.data_type {
            DataType::Double => f64::MAX,
            _ => f64::from(f32::MAX),
        };
        let is_bad = |&x: &T| {
            let size = Into::<f64>::into(x).abs();
            size > limit || size.is_nan()
        };
        if matches!(missing, Missing::Refused) && part.iter().any(is_bad) {
            return Ok(None);
        }
        answers.push(detached(py, || {
            let inputs = [(rows.name.to_string(), rows.tensor(part)?)];
            Ok(runner.run(&inputs)?.into_iter().map(|(_, tensor)| tensor).collect())
        })?);
    }
    Ok(Some(answers))
}

/// What a model predicts: of a C-contiguous matrix of floats on the short way, which gives None for
/// all else, or of checked data.
#[pyclass(frozen, module = "fewbits._fewbits")]
pub struct Predictor {
    model: Py<OnnxModel>,
    missing: Missing,
}

#[pymethods]
impl Predictor {
    #[new]
    #[pyo3(signature = (model, nan_passes=false))]
    fn new(model: Py<OnnxModel>, nan_passes: bool) -> Predictor {
        let missing = if nan_passes { Missing::Passed } else { Missing::Refused };
        Predictor { model, missing }
    }

    /// Labels, places of the largest score, or values, a row each.
    fn predict<'py>(&self, x: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.outputs(x)?.map(|parts| predicted(x.py(), parts)).transpose()
    }

    /// Scores in 64 bits, `[rows, classes]`.
    fn scores<'py>(&self, x: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.outputs(x)?.map(|parts| matrix(x.py(), scores(&parts)?)).transpose()
    }

    /// Scores that are probabilities: rows add up to 1.
    fn probabilities<'py>(&self, x: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let parts = self.outputs(x)?;
        parts.map(|parts| matrix(x.py(), probabilities(scores(&parts)?)?)).transpose()
    }

    /// As `predict`.
    fn predict_data<'py>(&self, py: Python<'py>, data: &Data) -> PyResult<Bound<'py, PyAny>> {
        predicted(py, self.outputs_of_data(py, data)?)
    }

    /// As `scores`.
    fn scores_data<'py>(&self, py: Python<'py>, data: &Data) -> PyResult<Bound<'py, PyAny>> {
        matrix(py, scores(&self.outputs_of_data(py, data)?)?)
    }

    /// As `probabilities`.
    fn probabilities_data<'py>(&self, py: Python<'py>, data: &Data) -> PyResult<Bound<'py, PyAny>> {
        matrix(py, probabilities(scores(&self.outputs_of_data(py, data)?)?)?)
    }
}

impl Predictor {
    /// The outputs of every call; none where `x` is not what the short way takes.
    fn outputs(&self, x: &Bound<'_, PyAny>) -> PyResult<Option<Vec<Vec<Tensor>>>> {
        let (py, model) = (x.py(), self.model.get());
        if let Ok(matrix) = x.cast::<PyArray2<f64>>() {
            return of_matrix(py, model, matrix.try_readonly().ok(), self.missing);
        }
        if let Ok(matrix) = x.cast::<PyArray2<f32>>() {
            return of_matrix(py, model, matrix.try_readonly().ok(), self.missing);
        }
        Ok(None)
    }

    fn outputs_of_data(&self, py: Python<'_>, data: &Data) -> PyResult<Vec<Vec<Tensor>>> {
        let runner = self.model.get().runner(py)?;
        let mut parts = Vec::new();
        for rows in data.dataset.batches(BATCH_ROWS) {
            let outputs = detached(py, || run_rows(runner, &data.dataset, rows))?;
            parts.push(outputs.into_iter().map(|(_, tensor)| tensor).collect());
            py.check_signals()?;
        }
        Ok(parts)
    }
}

fn predicted<'py>(py: Python<'py>, parts: Vec<Vec<Tensor>>) -> PyResult<Bound<'py, PyAny>> {
    let mut all: Option<Predictions> = None;
    for outputs in &parts {
        let further = predictions(outputs).ok_or_else(|| {
            PyValueError::new_err(
                "the model gives neither a label nor scores for each row; read its outputs with run()",
            )
        })?;
        all = Some(match (all, further) {
            (None, further) => further,
            (Some(Predictions::Class(mut a)), Predictions::Class(b)) => {
                a.extend(b);
                Predictions::Class(a)
            }
            (Some(Predictions::Text(mut a)), Predictions::Text(b)) => {
                a.extend(b);
                Predictions::Text(a)
            }
            (Some(Predictions::Score(mut a)), Predictions::Score(b)) => {
                a.extend(b);
                Predictions::Score(a)
            }
            (Some(_), further) => further,
        });
    }
    match all {
        Some(Predictions::Class(v)) => Ok(v.into_pyarray(py).into_any()),
        Some(Predictions::Score(v)) => Ok(v.into_pyarray(py).into_any()),
        Some(Predictions::Text(v)) => {
            py.import("numpy")?.call_method1("array", (PyList::new(py, v)?,))
        }
        None => Err(PyValueError::new_err("X holds no rows")),
    }
}

/// Rows of numbers, one after the other.
struct Scores {
    width: usize,
    values: Vec<f64>,
}

/// The first float output of every part.
fn scores(parts: &[Vec<Tensor>]) -> PyResult<Scores> {
    let mut all = Scores { width: 1, values: Vec::new() };
    for outputs in parts {
        let is_float = |t: &&Tensor| matches!(t.data_type(), DataType::Float | DataType::Double);
        let found = outputs.iter().find(is_float).and_then(|t| Some((t, t.to_f64()?)));
        let (tensor, values) = found.ok_or_else(|| {
            PyValueError::new_err("the model gives no scores; read its outputs with run()")
        })?;
        all.width = match *tensor.shape() {
            [_] => 1,
            [_, width] => width,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "the model gives scores of shape {:?}, not a row each; read its outputs with run()",
                    tensor.shape()
                )));
            }
        };
        all.values.extend(values);
    }
    Ok(all)
}

/// Makes rows add up to 1 in 64 bits as they do in 32; one column becomes two.
fn probabilities(scores: Scores) -> PyResult<Scores> {
    let Scores { width, mut values } = scores;
    if width == 1 {
        values = values.into_iter().flat_map(|p| [1.0 - p, p]).collect();
    }
    let width = width.max(2);
    for row in values.chunks_exact_mut(width) {
        let sum: f64 = row.iter().sum();
        if !((sum - 1.0).abs() <= SUM_TOLERANCE && row.iter().all(|&p| p >= -SUM_TOLERANCE)) {
            return Err(PyValueError::new_err(
                "the model's scores are not probabilities; read them with decision_function()",
            ));
        }
        row.iter_mut().for_each(|p| *p = p.max(0.0) / sum);
    }
    Ok(Scores { width, values })
}

fn matrix<'py>(py: Python<'py>, scores: Scores) -> PyResult<Bound<'py, PyAny>> {
    let rows = scores.values.len() / scores.width.max(1);
    Ok(scores.values.into_pyarray(py).reshape([rows, scores.width])?.into_any())
}
