use std::ops::Range;
use std::path::Path;

use fewbits_engine::{Tensor, Values};

use super::DataError;

/// What the model should have answered, for every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    shape: Vec<usize>,
    values: LabelValues,
}

/// The elements of [`Labels`], row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelValues {
    /// Class numbers, token ids, and other integers and booleans.
    Class(Vec<i64>),
    /// Class names.
    Text(Vec<String>),
    /// Floats; never NaN.
    Number(Vec<f64>),
}

impl LabelValues {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            LabelValues::Class(v) => v.len(),
            LabelValues::Text(v) => v.len(),
            LabelValues::Number(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<LabelValues> for Labels {
    /// One label for each row.
    fn from(values: LabelValues) -> Labels {
        Labels { shape: vec![values.len()], values }
    }
}

impl Labels {
    /// Labels of `shape`, the rows first; `None` if `values` does not fill it.
    pub fn new(shape: Vec<usize>, values: LabelValues) -> Option<Labels> {
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        (elements == Some(values.len()) && !shape.is_empty()).then_some(Labels { shape, values })
    }

    /// The labels that an array holds; a shape of `[N, 1]` becomes `[N]`.
    pub(super) fn from_tensor(path: &Path, name: &str, array: Tensor) -> Result<Labels, DataError> {
        let rows = array.rows();
        let (mut shape, values) = array.into_parts();
        if shape.len() == 2 && shape[1] == 1 {
            shape.pop();
        }
        let values = match values {
            Values::I64(v) => LabelValues::Class(v),
            Values::I32(v) => LabelValues::Class(v.into_iter().map(i64::from).collect()),
            Values::I8(v) => LabelValues::Class(v.into_iter().map(i64::from).collect()),
            Values::U8(v) => LabelValues::Class(v.into_iter().map(i64::from).collect()),
            Values::Bool(v) => LabelValues::Class(v.into_iter().map(i64::from).collect()),
            Values::F32(v) => LabelValues::Number(v.into_iter().map(f64::from).collect()),
            Values::F64(v) => LabelValues::Number(v),
            Values::F16(v) => LabelValues::Number(v.iter().map(|x| x.to_f64()).collect()),
            Values::Str(v) => LabelValues::Text(v),
        };
        if let LabelValues::Number(numbers) = &values
            && let Some(at) = numbers.iter().position(|x| x.is_nan())
        {
            let row = at / (numbers.len() / rows.max(1)).max(1) + 1;
            return Err(DataError::LabelMissing {
                path: path.to_path_buf(),
                label: name.to_string(),
                row,
            });
        }
        Ok(Labels { shape, values })
    }

    /// The shape; the first axis is the rows.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn values(&self) -> &LabelValues {
        &self.values
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// The labels of the rows `range`, clipped to those there are.
    pub fn slice_rows(&self, range: Range<usize>) -> Labels {
        let rows = self.rows();
        let per_row = self.values.len().checked_div(rows).unwrap_or(0);
        let end = range.end.min(rows);
        let start = range.start.min(end);
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = end - start;
        }
        let elements = start * per_row..end * per_row;
        let values = match &self.values {
            LabelValues::Class(v) => LabelValues::Class(v[elements].to_vec()),
            LabelValues::Text(v) => LabelValues::Text(v[elements].to_vec()),
            LabelValues::Number(v) => LabelValues::Number(v[elements].to_vec()),
        };
        Labels { shape, values }
    }

    /// The labels of the rows at `picks`, in their order.
    pub(super) fn pick(&self, picks: &[usize]) -> Labels {
        let per_row = self.values.len().checked_div(self.rows()).unwrap_or(0);
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = picks.len();
        }
        let elements = || picks.iter().flat_map(|&row| row * per_row..(row + 1) * per_row);
        let values = match &self.values {
            LabelValues::Class(v) => LabelValues::Class(elements().map(|i| v[i]).collect()),
            LabelValues::Text(v) => LabelValues::Text(elements().map(|i| v[i].clone()).collect()),
            LabelValues::Number(v) => LabelValues::Number(elements().map(|i| v[i]).collect()),
        };
        Labels { shape, values }
    }
}
