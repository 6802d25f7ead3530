//! Inputs that have one value in every call, such as a sampling rate.

use std::str::FromStr;

use fewbits_onnx::proto::DataType;

use super::{DataError, Fitted, ValueSpec};

/// An input by its name, and the number that fills it.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The model's input.
    pub input: String,
    /// Every element.
    pub value: f64,
}

impl FromStr for Constant {
    type Err = String;

    fn from_str(text: &str) -> Result<Constant, String> {
        let asks = || "an input is given as NAME=NUMBER".to_string();
        let (input, value) = text.split_once('=').ok_or_else(asks)?;
        let value = match value.trim() {
            "true" => 1.0,
            "false" => 0.0,
            number => number.parse().map_err(|_| asks())?,
        };
        Ok(Constant { input: input.to_string(), value })
    }
}

impl std::fmt::Display for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.input, self.value)
    }
}

/// The constants as inputs of the model.
///
/// # Errors
/// If the model has no such input, or it cannot take the number.
pub(super) fn of_inputs(
    inputs: &[ValueSpec],
    constants: &[Constant],
) -> Result<Vec<Fitted>, DataError> {
    let fitted = constants.iter().map(|constant| {
        let refuse = |reason| DataError::Constant { input: constant.input.clone(), reason };
        let Some(spec) = inputs.iter().find(|spec| spec.name == constant.input) else {
            let names: Vec<&str> = inputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(refuse(format!(
                "the model has no such input; it has {}",
                names.join(", ")
            )));
        };
        let to = spec.data_type.unwrap_or(DataType::Float);
        Fitted::constant(spec, constant.value).ok_or_else(|| {
            refuse(format!("{} cannot be an element of type {to:?}", constant.value))
        })
    });
    fitted.collect()
}
