//! From the library's errors to Python's exceptions.

use std::io;

use fewbits::data::DataError;
use fewbits::hint::Setting;
use fewbits::metric::Metric;
use fewbits::{Error, OnnxError, RuntimeError};
use pyo3::PyErr;
use pyo3::exceptions::{
    PyFileExistsError, PyFileNotFoundError, PyOSError, PyPermissionError, PyRuntimeError,
    PyValueError,
};

/// The library's result as Python's.
pub fn raised<T, E: Into<Error>>(result: Result<T, E>) -> pyo3::PyResult<T> {
    result.map_err(|error| exception(&error.into()))
}

/// A word that names something unknown, as the library's parsers refuse it.
pub fn refused(name: &str, why: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{name}: {why}"))
}

/// A bug of ours, caught.
pub fn internal(panic: &(dyn std::any::Any + Send)) -> PyErr {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    PyRuntimeError::new_err(format!(
        "fewbits made an internal error ({said}); please report it with the model and the call"
    ))
}

fn exception(error: &Error) -> PyErr {
    let message = message(error);
    match error {
        Error::Io { source, .. } | Error::Onnx(OnnxError::Read { source, .. }) => {
            of_system(source, message)
        }
        Error::Onnx(OnnxError::Write { source, .. }) => of_system(source, message),
        Error::Output { path, .. } if path.is_file() => PyFileExistsError::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

fn of_system(source: &io::Error, message: String) -> PyErr {
    match source.kind() {
        io::ErrorKind::NotFound => PyFileNotFoundError::new_err(message),
        io::ErrorKind::PermissionDenied => PyPermissionError::new_err(message),
        _ => PyOSError::new_err(message),
    }
}

/// What the library says, where it would tell to do something with a file that is an array here.
fn message(error: &Error) -> String {
    match error {
        Error::NoLabels { .. } => {
            let (labels, metric) = (Setting::Label, Setting::Metric.to(Metric::Agreement));
            format!("no labels given; give {labels}, or compare without labels by {metric}")
        }
        Error::Data(data) => match data.as_ref() {
            DataError::LabelMissing { row, .. } => {
                format!("y is missing or NaN at row {row}; drop the rows without a label")
            }
            data => data.to_string(),
        },
        Error::Runtime(RuntimeError::Input { input, reason }) => {
            format!("input '{input}': {reason}")
        }
        error => error.to_string(),
    }
}
