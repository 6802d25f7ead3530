//! Data that a program holds in memory.

use std::path::PathBuf;

use fewbits_engine::{Tensor, Values};

use super::{Cut, DataError, DataOptions, Dataset, Fitted, Labels, Listed, ValueSpec};
use crate::digest::short_digest;

/// An array, and the name that messages and inputs have for it.
pub type NamedArray = (String, Tensor);

impl Dataset {
    /// Takes arrays for a model that takes `inputs`: each of its input's name, or any name for a
    /// single input. `labels` are one or more a row. Numbers are cast and axes added as by
    /// [`read`](Dataset::read); of `options` the label's name is not used.
    ///
    /// # Errors
    /// [`DataError`], if the arrays do not fit the model or each other.
    pub fn from_arrays(
        inputs: &[ValueSpec],
        mut arrays: Vec<NamedArray>,
        labels: Option<NamedArray>,
        options: &DataOptions,
    ) -> Result<Dataset, DataError> {
        let path = PathBuf::from("data");
        let digest = Some(digest(arrays.iter().chain(&labels)));
        let names: Vec<String> = arrays.iter().map(|(name, _)| name.clone()).collect();
        let mut rows: Option<(String, usize)> = None;
        let mut same_rows = |name: &str, found: usize| match &rows {
            Some((first, expected)) if *expected != found => Err(DataError::Rows {
                path: path.clone(),
                first: first.clone(),
                first_rows: *expected,
                other: name.to_string(),
                other_rows: found,
            }),
            _ => {
                rows = Some((name.to_string(), found));
                Ok(())
            }
        };
        let mut fitted = Vec::with_capacity(inputs.len());
        for spec in inputs {
            let by_name = arrays.iter().position(|(name, _)| *name == spec.name);
            let only = (inputs.len() == 1 && arrays.len() == 1).then_some(0);
            let place = by_name.or(only).ok_or_else(|| DataError::MissingInput {
                path: path.clone(),
                input: spec.name.clone(),
                available: Listed { kind: "array", names: names.clone() },
                way_out: "",
            })?;
            let (name, array) = arrays.swap_remove(place);
            let input = Fitted::new(&path, &name, array, spec, options)?;
            if let Some(found) = input.rows() {
                same_rows(&name, found)?;
            }
            fitted.push(input.limited(options.limit));
        }
        let labels = match labels {
            Some((name, array)) => {
                same_rows(&name, array.rows())?;
                let array = array.slice_rows(0..options.limit.unwrap_or(usize::MAX));
                Some(Labels::from_tensor(&path, &name, array)?)
            }
            None => None,
        };
        let rows = fitted.iter().find_map(Fitted::rows).unwrap_or(1);
        if rows == 0 {
            return Err(DataError::Empty { path, array: "the data".to_string() });
        }
        Ok(Dataset { path, inputs: fitted, labels, rows, cut: Cut::Anywhere, digest })
    }
}

/// The hash of the names, shapes and elements of arrays.
fn digest<'a>(arrays: impl Iterator<Item = &'a NamedArray>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, array) in arrays {
        hasher.update(format!("{name} {:?} {:?}", array.data_type(), array.shape()).as_bytes());
        macro_rules! numbers {
            ($values:expr) => {
                for part in $values.chunks(8192) {
                    let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
                    hasher.update(&bytes);
                }
            };
        }
        match array.values() {
            Values::F16(v) => numbers!(v),
            Values::F32(v) => numbers!(v),
            Values::F64(v) => numbers!(v),
            Values::I64(v) => numbers!(v),
            Values::I32(v) => numbers!(v),
            Values::I8(v) => numbers!(v),
            Values::U8(v) => {
                hasher.update(v);
            }
            Values::Bool(v) => v.iter().for_each(|&x| {
                hasher.update(&[u8::from(x)]);
            }),
            Values::Str(v) => v.iter().for_each(|text| {
                hasher.update(text.as_bytes());
                hasher.update(&[0]);
            }),
        }
    }
    short_digest(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use fewbits_onnx::proto::DataType;

    use super::*;
    use crate::data::LabelValues;

    fn spec(name: &str) -> ValueSpec {
        let dims = Some(vec![None, Some(2)]);
        ValueSpec {
            name: name.to_string(),
            data_type: Some(DataType::Float),
            dims,
            row_axis: Some(0),
        }
    }

    fn array(rows: usize, first: f64) -> Tensor {
        let values: Vec<f64> = (0..2 * rows).map(|i| first + i as f64).collect();
        Tensor::new(vec![rows, 2], values).unwrap()
    }

    fn labels(rows: usize) -> NamedArray {
        ("y".to_string(), Tensor::new(vec![rows], vec![1i64; rows]).unwrap())
    }

    #[test]
    fn a_single_input_takes_an_array_of_any_name() {
        let arrays = vec![("X".to_string(), array(3, 0.5))];
        let options = DataOptions { limit: Some(2), ..DataOptions::default() };
        let data = Dataset::from_arrays(&[spec("in")], arrays, Some(labels(3)), &options).unwrap();
        assert_eq!(data.rows(), 2);
        assert_eq!(data.labels().unwrap().values(), &LabelValues::Class(vec![1, 1]));
        let (name, batch) = data.batch(0..9).remove(0);
        assert_eq!((name.as_str(), batch.values()), ("in", &vec![0.5f32, 1.5, 2.5, 3.5].into()));
    }

    #[test]
    fn several_inputs_take_arrays_of_their_names() {
        let inputs = [spec("a"), spec("b")];
        let arrays =
            |b: &str| vec![(b.to_string(), array(2, 9.0)), ("a".to_string(), array(2, 1.0))];
        let options = DataOptions::default();
        let data = Dataset::from_arrays(&inputs, arrays("b"), None, &options).unwrap();
        assert_eq!(data.batch(0..1)[1].1.values(), &vec![9.0f32, 10.0].into());
        let error = Dataset::from_arrays(&inputs, arrays("c"), None, &options).unwrap_err();
        assert!(matches!(error, DataError::MissingInput { input, .. } if input == "b"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let arrays = |rows| vec![("X".to_string(), array(rows, 0.0))];
        let options = DataOptions::default();
        let refused = |rows, labels| {
            Dataset::from_arrays(&[spec("in")], arrays(rows), labels, &options).unwrap_err()
        };
        assert!(matches!(refused(3, Some(labels(2))), DataError::Rows { .. }));
        assert!(matches!(refused(0, None), DataError::Empty { .. }));
    }

    #[test]
    fn the_digest_follows_the_values() {
        let of = |first: f64| {
            let arrays = vec![("X".to_string(), array(3, first))];
            let data = Dataset::from_arrays(&[spec("in")], arrays, None, &DataOptions::default());
            data.unwrap().digest().unwrap()
        };
        assert_eq!(of(0.5), of(0.5));
        assert_ne!(of(0.5), of(0.25));
    }

    #[test]
    fn a_limit_leaves_bytes_as_they_are() {
        let bytes = Tensor::new(vec![3, 2], vec![1u8, 2, 3, 4, 5, 6]).unwrap();
        let options = DataOptions { limit: Some(2), ..DataOptions::default() };
        let arrays = vec![("x".to_string(), bytes)];
        let data = Dataset::from_arrays(&[spec("x")], arrays, None, &options).unwrap();
        assert_eq!((data.rows(), data.inputs[0].elements()), (2, 4));
        let expected = Tensor::new(vec![1, 2], vec![3.0f32, 4.0]).unwrap();
        assert_eq!(data.batch(1..9), [("x".to_string(), expected)]);
    }
}
