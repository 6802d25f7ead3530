//! From the library's errors to Python's exceptions.

use std::io;

use fewbits::data::DataError;
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
    let message = in_python(&message(error));
    match error {
        Error::Io { source, .. } | Error::Onnx(OnnxError::Read { source, .. }) => {
            of_system(source, message)
        }
        Error::Onnx(OnnxError::Write { source, .. }) => of_system(source, message),
        Error::Onnx(OnnxError::Exists { .. }) => PyFileExistsError::new_err(message),
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
            "no labels given; give y, or compare without labels by metric=\"agreement\"".to_string()
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

/// Flags of the command line as arguments of Python: `--max-drop` as `max_drop=`, `--recipe
/// dynamic` as `recipe="dynamic"`.
fn in_python(message: &str) -> String {
    let mut words = message.split(' ').peekable();
    let mut out: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        let Some(at) = word
            .find("--")
            .filter(|&at| word[at + 2..].starts_with(|c: char| c.is_ascii_lowercase()))
        else {
            out.push(word.to_string());
            continue;
        };
        let (before, flag) = (&word[..at], &word[at + 2..]);
        let end = flag.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(flag.len());
        let (flag, after) = flag.split_at(end);
        let name = match flag {
            "calibrate" => "calibration".to_string(),
            "data" => "X".to_string(),
            flag => flag.replace('-', "_"),
        };
        out.push(match (name.as_str(), after) {
            ("force", after) => format!("{before}force=True{after}"),
            ("recipe" | "metric" | "target" | "scheme" | "scales" | "rounding", "") => {
                let value = words.next().unwrap_or_default();
                let end = value
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                    .unwrap_or(value.len());
                let (value, rest) = value.split_at(end);
                format!("{before}{name}=\"{value}\"{rest}")
            }
            (name, after) => format!("{before}{name}{after}"),
        });
    }
    out.join(" ")
}
