//! Data files for a model: `.npz`, `.npy`, `.csv` and `.parquet`.
//!
//! [`Dataset::from_arrays`] takes what a program holds already.
//! [`Dataset::read`] finds the array or columns of every input and the labels, checks them
//! against the model, and keeps them as compactly as the file does: bytes stay bytes until
//! [`Dataset::batch`] makes floats of those that are asked for.

mod constant;
mod csv;
mod error;
mod fit;
mod labels;
mod memory;
mod missing;
mod normalize;
mod npy;
mod npz;
mod parquet;
mod table;

use std::ops::Range;
use std::path::{Path, PathBuf};

use fewbits_engine::Tensor;

use crate::digest::digest_of_file;
pub use constant::Constant;
pub use error::{DataError, Listed};
pub use fewbits_engine::{ValueSpec, input_specs};
use fit::Fitted;
pub use labels::{LabelValues, Labels};
pub use memory::NamedArray;
pub(crate) use missing::found as missing_in;
pub use missing::warning_of_missing;
pub use normalize::Normalize;

/// The names under which labels are found unasked, the likeliest first.
pub const LABEL_NAMES: [&str; 5] = ["y", "labels", "targets", "label", "target"];

/// What the arrays of a file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrays {
    /// Examples, one a row, as many in each.
    #[default]
    Examples,
    /// The inputs of one call, as they are.
    OneCall,
}

/// Where a model may be given the rows of data in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Between any two rows.
    #[default]
    Anywhere,
    /// Between any two rows; each output has them along this axis.
    Along(Vec<usize>),
    /// Nowhere: rows depend on each other, and are the input of one call.
    Nowhere,
}

/// How to read a data file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataOptions {
    /// The array or column that holds the labels, if not one of [`LABEL_NAMES`] or the last column.
    pub label: Option<String>,
    /// How integers become the floats that the model was trained on.
    pub normalize: Option<Normalize>,
    /// Only this many rows, the first ones.
    pub limit: Option<usize>,
    /// What the arrays are.
    pub arrays: Arrays,
    /// Inputs that are not in the file, with the value that each has in every call.
    pub constants: Vec<Constant>,
}

/// The examples of a data file, checked against a model's inputs.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: PathBuf,
    inputs: Vec<Fitted>,
    labels: Option<Labels>,
    rows: usize,
    cut: Cut,
    /// Of data that is in no file.
    digest: Option<String>,
}

impl Dataset {
    /// Reads `path` for a model that takes `inputs`.
    ///
    /// - `.npz`: arrays named as the inputs; for a single input also `X`, or the only array that
    ///   is not the label. The label is `options.label` or one of [`LABEL_NAMES`].
    /// - `.npy`: the single input; no labels.
    /// - `.csv` (with a header) and `.parquet`: with several inputs, the columns of their names;
    ///   with one, all columns but the label's, in order. The label is `options.label`, a column
    ///   of [`LABEL_NAMES`], or the last column where there is one more than the model takes.
    ///
    /// Numbers are cast to the input's type. An axis of size 1 that the input has and the array
    /// has not (an image's channel) is added.
    ///
    /// # Errors
    /// [`DataError`], if the file cannot be read, is damaged, or does not fit the model.
    pub fn read(
        path: &Path,
        inputs: &[ValueSpec],
        options: &DataOptions,
    ) -> Result<Dataset, DataError> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let constants = constant::of_inputs(inputs, &options.constants)?;
        let is_constant = |spec: &&ValueSpec| constants.iter().any(|c| c.name() == spec.name);
        let asked: Vec<ValueSpec> = inputs.iter().filter(|s| !is_constant(s)).cloned().collect();
        let (found, labels) = match extension.as_deref() {
            Some("npz") => npz::read_npz(path, &asked, options)?,
            Some("npy") => npz::read_npy(path, &asked, options)?,
            Some("csv") => csv::read_csv(path, &asked, options)?,
            Some("parquet") => parquet::read_parquet(path, &asked, options)?,
            _ => return Err(DataError::Extension { path: path.to_path_buf() }),
        };
        let rows = common_rows(path, &found)?;
        if let (Some(rows), Some(labels)) = (rows, &labels)
            && labels.rows() != rows
        {
            return Err(DataError::Rows {
                path: path.to_path_buf(),
                first: found
                    .iter()
                    .find(|f| f.rows().is_some())
                    .map_or("", Fitted::name)
                    .to_string(),
                first_rows: rows,
                other: "the label".to_string(),
                other_rows: labels.rows(),
            });
        }
        let rows = rows.unwrap_or(1);
        if rows == 0 {
            return Err(DataError::Empty {
                path: path.to_path_buf(),
                array: "the data".to_string(),
            });
        }
        let mut all: Vec<Fitted> = found.into_iter().chain(constants).collect();
        all.sort_by_key(|fitted| inputs.iter().position(|spec| spec.name == fitted.name()));
        Ok(Dataset {
            path: path.to_path_buf(),
            inputs: all,
            labels,
            rows,
            cut: Cut::Anywhere,
            digest: None,
        })
    }

    /// The file, or the name of what was handed over.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identifies the data: the hash of the file, or of the arrays.
    ///
    /// # Errors
    /// If the file cannot be read again.
    pub fn digest(&self) -> Result<String, DataError> {
        match &self.digest {
            Some(digest) => Ok(digest.clone()),
            None => digest_of_file(&self.path)
                .map_err(|source| DataError::Read { path: self.path.clone(), source }),
        }
    }

    /// The number of examples, at least 1.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The labels of all rows, if the file has any.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// The rows `range` of every input, clipped to those there are, in the model's element types
    /// and in the order of the inputs given to [`read`](Self::read).
    pub fn batch(&self, range: Range<usize>) -> Vec<(String, Tensor)> {
        self.inputs
            .iter()
            .map(|input| (input.name().to_string(), input.rows_as_tensor(range.clone())))
            .collect()
    }

    /// Rows that one call takes at most, where it cannot take any number.
    pub fn most_rows_a_call(&self) -> Option<usize> {
        self.inputs.iter().find_map(Fitted::most_rows_a_call)
    }

    /// Whether the arrays are the inputs of one call.
    pub fn is_one_call(&self) -> bool {
        self.inputs.iter().all(|input| input.rows().is_none())
    }

    /// The same rows, to be cut as is said.
    pub fn with_cut(self, cut: Cut) -> Dataset {
        Dataset { cut, ..self }
    }

    /// Where the rows may be cut.
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// The rows `range`, over again until there are `rows`.
    pub fn filled(&self, range: Range<usize>, rows: usize) -> Vec<(String, Tensor)> {
        let there = range.end.min(self.rows).saturating_sub(range.start);
        if there == 0 || there >= rows {
            return self.batch(range);
        }
        let picks: Vec<usize> = (0..rows).map(|row| range.start + row % there).collect();
        self.inputs
            .iter()
            .map(|input| (input.name().to_string(), input.pick(&picks).rows_as_tensor(0..rows)))
            .collect()
    }

    /// So many rows, or all, evenly spread over the data; all where they depend on each other.
    pub fn sample(&self, rows: usize) -> Dataset {
        if self.cut == Cut::Nowhere {
            return self.clone();
        }
        let rows = rows.clamp(1, self.rows);
        let picks: Vec<usize> = (0..rows).map(|i| i * self.rows / rows).collect();
        self.pick(&picks)
    }

    /// The rows `picks`, of which there must be at least one.
    fn pick(&self, picks: &[usize]) -> Dataset {
        let rows = picks.len();
        let inputs = self.inputs.iter().map(|input| input.pick(picks)).collect();
        let labels = self.labels.as_ref().map(|labels| labels.pick(picks));
        let (path, cut, digest) = (self.path.clone(), self.cut.clone(), self.digest.clone());
        Dataset { path, inputs, labels, rows, cut, digest }
    }

    /// The rows of a part, if `size` are asked for: all where they depend on each other.
    pub fn part(&self, size: usize) -> usize {
        match self.cut {
            Cut::Nowhere => self.rows,
            Cut::Anywhere | Cut::Along(_) => size.max(1),
        }
    }

    /// Ranges that cover all rows, `size` rows each and the rest in the last; one where rows depend on each
    /// other.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, size) = (self.rows, self.part(size));
        (0..rows).step_by(size).map(move |start| start..(start + size).min(rows))
    }
}

/// The rows that all inputs have that have rows; none if none has.
fn common_rows(path: &Path, inputs: &[Fitted]) -> Result<Option<usize>, DataError> {
    let mut found: Option<(&str, usize)> = None;
    for input in inputs {
        match (found, input.rows()) {
            (Some((first, first_rows)), Some(rows)) if rows != first_rows => {
                return Err(DataError::Rows {
                    path: path.to_path_buf(),
                    first: first.to_string(),
                    first_rows,
                    other: input.name().to_string(),
                    other_rows: rows,
                });
            }
            (None, Some(rows)) => found = Some((input.name(), rows)),
            _ => {}
        }
    }
    Ok(found.map(|(_, rows)| rows))
}

#[cfg(test)]
mod tests;
