//! Numbers that are not there: NaN in arrays, empty cells in tables.

use std::fmt;

use fewbits_onnx::facts::takes_missing;
use fewbits_onnx::proto::GraphProto;

use super::fit::Missing;
use super::{DataError, Dataset, Fitted};
use crate::padding::MASK_NAMES;

/// Numbers that may be missing without an error: more is a column that was never filled, or another
/// file than was meant.
const MOST_MISSING: f64 = 0.01;

/// A warning of numbers that are missing in data for a model; none if all are there, the model is known
/// to take them, or some may only be padding.
///
/// # Errors
/// If more than one in a hundred is missing.
pub fn warning_of_missing(data: &Dataset, graph: &GraphProto) -> Result<Option<String>, DataError> {
    let is_padded = graph.input.iter().any(|input| MASK_NAMES.contains(&input.name()));
    if data.is_one_call() || is_padded || takes_missing(graph) {
        return Ok(None);
    }
    let Some(found) = found(data) else { return Ok(None) };
    let (path, what) = (data.path().to_path_buf(), found.to_string());
    if found.count as f64 > MOST_MISSING * found.all as f64 {
        return Err(DataError::Missing { path, what });
    }
    Ok(Some(format!("{}: {what}; the model is not known to take them", path.display())))
}

/// Numbers that are missing in data.
pub(crate) struct Found {
    count: usize,
    all: usize,
    /// Where the first is: its row, from 1, and its column.
    first: (usize, String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { count, all, first: (row, column) } = self;
        let are = if *count == 1 { "is" } else { "are" };
        write!(f, "{count} of {all} numbers {are} NaN or missing, the first in row {row}, {column}")
    }
}

/// What is missing; none if nothing is.
pub(crate) fn found(data: &Dataset) -> Option<Found> {
    let found: Vec<(&Fitted, Missing)> =
        data.inputs.iter().filter_map(|input| Some((input, input.missing()?))).collect();
    let (input, missing) = found.first()?;
    let (row, place) = missing.first;
    Some(Found {
        count: found.iter().map(|(_, missing)| missing.count).sum(),
        all: data.inputs.iter().map(Fitted::elements).sum(),
        first: (row + 1, input.place_name(place)),
    })
}

#[cfg(test)]
mod tests {
    use fewbits_engine::Tensor;
    use fewbits_onnx::proto::{DataType, NodeProto, ValueInfoProto};

    use super::*;
    use crate::data::{DataOptions, ValueSpec};

    fn data(nan: &[usize]) -> Dataset {
        let spec = ValueSpec {
            name: "x".to_string(),
            data_type: Some(DataType::Float),
            dims: Some(vec![None, Some(20)]),
            row_axis: Some(0),
        };
        let mut values = vec![1.5f32; 200];
        nan.iter().for_each(|&at| values[at] = f32::NAN);
        let arrays = vec![("x".to_string(), Tensor::new(vec![10, 20], values).unwrap())];
        Dataset::from_arrays(&[spec], arrays, None, &DataOptions::default()).unwrap()
    }

    fn graph(operator: &str) -> GraphProto {
        let node = NodeProto::new(operator, &["x"], &["y"]);
        GraphProto { node: vec![node], ..GraphProto::default() }
    }

    fn warning(nan: &[usize], operator: &str) -> Result<Option<String>, DataError> {
        warning_of_missing(&data(nan), &graph(operator))
    }

    #[test]
    fn a_few_missing_numbers_are_told_and_many_refused() {
        assert_eq!(warning(&[], "Relu").unwrap(), None);
        assert_eq!(
            warning(&[45, 199], "Relu").unwrap().unwrap(),
            "data: 2 of 200 numbers are NaN or missing, the first in row 3, column 6 of 'x'; the model is not \
             known to take them"
        );
        let refusal = warning(&[45, 46, 199], "Relu").unwrap_err().to_string();
        assert!(
            refusal.starts_with("data: 3 of 200 numbers are NaN or missing, the first in row 3")
        );
    }

    #[test]
    fn models_that_look_for_nan_take_any_number_of_them() {
        assert_eq!(warning(&[45, 46, 199], "Imputer").unwrap(), None);
        assert_eq!(warning(&[45, 46, 199], "TreeEnsembleRegressor").unwrap(), None);
    }

    #[test]
    fn padding_may_hold_anything() {
        let mut graph = graph("Relu");
        graph.input = vec![ValueInfoProto::tensor("attention_mask", 1, &[None])];
        assert_eq!(warning_of_missing(&data(&[45, 46, 199]), &graph).unwrap(), None);
    }
}
