//! Numbers that are not there: NaN in arrays, empty cells in tables.

use fewbits_onnx::proto::GraphProto;

use super::{DataError, Dataset, Fitted};

/// Numbers that may be missing without an error: more is a column that was never filled, or another
/// file than was meant.
const MOST_MISSING: f64 = 0.01;

/// Operators that say what becomes of NaN; every comparison with it is false, which is how trees are
/// trained.
const TAKE_MISSING: [&str; 5] =
    ["Imputer", "IsNaN", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"];

/// The numbers of an input that are NaN.
pub(super) struct Missing {
    pub count: usize,
    /// The first: its row, and its place in that row.
    pub first: (usize, usize),
}

/// A warning of numbers that are missing in data for a model; none if all are there, or the model
/// is known to take them.
///
/// # Errors
/// If more than one in a hundred is missing.
pub fn warning_of_missing(data: &Dataset, graph: &GraphProto) -> Result<Option<String>, DataError> {
    let Some(what) = found(data, graph)? else { return Ok(None) };
    Ok(Some(format!("{}: {what}; the model is not known to take them", data.path().display())))
}

/// Data to calibrate on without the rows in which numbers are missing, and a warning if there are such.
///
/// # Errors
/// If more than one number in a hundred is missing, or one in every row.
pub fn without_missing(
    data: Dataset,
    graph: &GraphProto,
) -> Result<(Dataset, Option<String>), DataError> {
    let Some(what) = found(&data, graph)? else { return Ok((data, None)) };
    let lacks = |row: usize| data.inputs.iter().any(|input| input.lacks_numbers(row));
    let whole: Vec<usize> = (0..data.rows()).filter(|&row| !lacks(row)).collect();
    let path = data.path().to_path_buf();
    if whole.is_empty() {
        return Err(DataError::Missing { path, what });
    }
    let warning = format!("{}: {what}; such rows are not calibrated on", path.display());
    Ok((data.pick(&whole), Some(warning)))
}

/// What is missing, and where the first is.
fn found(data: &Dataset, graph: &GraphProto) -> Result<Option<String>, DataError> {
    if data.is_one_call() || takes_missing(graph) {
        return Ok(None);
    }
    let found: Vec<(&Fitted, Missing)> =
        data.inputs.iter().filter_map(|input| Some((input, input.missing()?))).collect();
    let Some((input, missing)) = found.first() else { return Ok(None) };
    let count: usize = found.iter().map(|(_, missing)| missing.count).sum();
    let all: usize = data.inputs.iter().map(Fitted::elements).sum();
    let (row, place) = missing.first;
    let are = if count == 1 { "is" } else { "are" };
    let what = format!(
        "{count} of {all} numbers {are} NaN or missing, the first in row {}, {}",
        row + 1,
        input.place_name(place)
    );
    match count as f64 > MOST_MISSING * all as f64 {
        true => Err(DataError::Missing { path: data.path().to_path_buf(), what }),
        false => Ok(Some(what)),
    }
}

/// Whether a model looks for NaN, or has an answer to it.
fn takes_missing(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| {
        let mut inside = node.attribute.iter().flat_map(|attribute| attribute.subgraphs());
        TAKE_MISSING.contains(&node.op_type()) || inside.any(takes_missing)
    })
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::{DataType, NodeProto};
    use fewbits_runtime::Tensor;

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
    fn rows_that_lack_numbers_are_not_calibrated_on() {
        let (kept, warning) = without_missing(data(&[45, 199]), &graph("Relu")).unwrap();
        assert_eq!(kept.rows(), 8);
        assert!(kept.inputs[0].missing().is_none());
        assert!(warning.unwrap().ends_with("'x'; such rows are not calibrated on"));
        let (kept, warning) = without_missing(data(&[]), &graph("Relu")).unwrap();
        assert_eq!((kept.rows(), warning), (10, None));
        assert!(without_missing(data(&[45, 46, 199]), &graph("Relu")).is_err());
    }
}
