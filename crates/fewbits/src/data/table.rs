//! Which columns of a table feed which input, and gathering their cells row by row.

use std::path::{Path, PathBuf};

use fewbits_engine::{Tensor, Values};
use fewbits_onnx::proto::DataType;

use super::error::shortened;
use super::{DataError, DataOptions, Fitted, LABEL_NAMES, LabelValues, Labels, Listed, ValueSpec};

/// One cell as its file holds it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    /// Nothing: NaN in a float input, an error elsewhere.
    Missing,
    Integer(i64),
    Number(f64),
    /// Words, or a number not yet parsed.
    Text(&'a str),
}

/// The inputs and labels of a table, filled a row at a time.
pub(super) struct Table<'a> {
    path: &'a Path,
    options: &'a DataOptions,
    columns: Vec<String>,
    inputs: Vec<TableInput<'a>>,
    label: Option<(usize, LabelCells)>,
    rows: usize,
}

struct TableInput<'a> {
    spec: &'a ValueSpec,
    columns: Vec<usize>,
    cells: Cells,
}

/// Cells of one input, in the narrowest type that loses nothing on the way to the input's own.
enum Cells {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    Str(Vec<String>),
}

/// Labels, of the first type that holds all so far.
enum LabelCells {
    Class(Vec<i64>),
    Number(Vec<f64>),
    Text(Vec<String>),
}

impl<'a> Table<'a> {
    /// Assigns `columns` to the model's inputs and the label.
    pub fn new(
        path: &'a Path,
        columns: Vec<String>,
        inputs: &'a [ValueSpec],
        options: &'a DataOptions,
    ) -> Result<Table<'a>, DataError> {
        let label = label_column(path, &columns, inputs, options)?;
        let features = |c: &usize| Some(*c) != label;
        let all: Vec<usize> = (0..columns.len()).filter(features).collect();
        let by_name = |spec: &ValueSpec| columns.iter().position(|c| *c == spec.name);
        let available = || Listed { kind: "column", names: columns.clone() };
        let mut table_inputs = Vec::with_capacity(inputs.len());
        for spec in inputs {
            let columns = match (inputs.len(), by_name(spec)) {
                (1, Some(column)) if features_of(spec) == Some(1) => vec![column],
                (1, _) => all.clone(),
                (_, Some(column)) => vec![column],
                (_, None) => {
                    return Err(DataError::MissingInput {
                        path: path.to_path_buf(),
                        input: spec.name.clone(),
                        available: available(),
                        way_out: ", or save the inputs as arrays of one .npz file",
                    });
                }
            };
            if columns.is_empty() || features_of(spec).is_some_and(|f| f != columns.len()) {
                return Err(DataError::Columns {
                    path: path.to_path_buf(),
                    columns: columns.len(),
                    input: spec.name.clone(),
                    dims: spec.dims.clone().unwrap_or_default().into(),
                    available: available(),
                });
            }
            let cells = match spec.data_type.unwrap_or(DataType::Undefined) {
                // Pixels stay integers until they are normalized.
                DataType::Float | DataType::Double | DataType::Float16
                    if options.normalize.is_some() =>
                {
                    Cells::I64(Vec::new())
                }
                DataType::Float => Cells::F32(Vec::new()),
                DataType::Int64
                | DataType::Int32
                | DataType::Int8
                | DataType::Uint8
                | DataType::Bool => Cells::I64(Vec::new()),
                DataType::String => Cells::Str(Vec::new()),
                _ => Cells::F64(Vec::new()),
            };
            table_inputs.push(TableInput { spec, columns, cells });
        }
        let label = label.map(|column| (column, LabelCells::Class(Vec::new())));
        Ok(Table { path, options, columns, inputs: table_inputs, label, rows: 0 })
    }

    /// Whether `--limit` is reached.
    pub fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.rows >= limit)
    }

    /// Takes the row whose cells `cell` gives by column.
    pub fn push<'c>(&mut self, cell: impl Fn(usize) -> Cell<'c>) -> Result<(), DataError> {
        self.rows += 1;
        let (path, row) = (self.path, self.rows);
        for input in &mut self.inputs {
            for &column in &input.columns {
                let value = cell(column);
                input.cells.push(value).map_err(|expected| DataError::Cell {
                    path: path.to_path_buf(),
                    row,
                    column: shortened(&self.columns[column]),
                    cell: value.spelled(),
                    expected,
                })?;
            }
        }
        if let Some((column, labels)) = &mut self.label {
            labels.push(cell(*column)).map_err(|Missing| DataError::LabelMissing {
                path: path.to_path_buf(),
                label: shortened(&self.columns[*column]),
                row,
            })?;
        }
        Ok(())
    }

    /// The inputs in the model's types, and the labels.
    pub fn finish(self) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
        let path: PathBuf = self.path.to_path_buf();
        if self.rows == 0 {
            return Err(DataError::Empty { path, array: "the table".to_string() });
        }
        let mut fitted = Vec::with_capacity(self.inputs.len());
        for input in self.inputs {
            let name = match input.columns.as_slice() {
                [column] => shortened(&self.columns[*column]),
                _ => "the feature columns".to_string(),
            };
            let shape = row_shape(input.spec, self.rows, input.columns.len());
            let values = match input.cells {
                Cells::F32(v) => Values::from(v),
                Cells::F64(v) => Values::from(v),
                Cells::I64(v) => Values::from(v),
                Cells::Str(v) => Values::from(v),
            };
            let array = Tensor::new(shape, values).map_err(|e| DataError::Damaged {
                path: path.clone(),
                what: name.clone(),
                reason: e.to_string(),
            })?;
            let columns = input.columns.iter().map(|&column| self.columns[column].clone());
            let input = Fitted::new(&path, &name, array, input.spec, self.options)?;
            fitted.push(input.of_columns(columns.collect()));
        }
        let labels = self.label.map(|(_, cells)| {
            Labels::from(match cells {
                LabelCells::Class(v) => LabelValues::Class(v),
                LabelCells::Number(v) => LabelValues::Number(v),
                LabelCells::Text(v) => LabelValues::Text(v),
            })
        });
        Ok((fitted, labels))
    }
}

/// The numbers that a row of the input takes, if its dimensions are fixed.
fn features_of(spec: &ValueSpec) -> Option<usize> {
    let dims = spec.dims.as_ref()?.get(1..)?;
    dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d)?))
}

/// A row of columns becomes an image where the model takes one.
fn row_shape(spec: &ValueSpec, rows: usize, columns: usize) -> Vec<usize> {
    match &spec.dims {
        Some(dims) if features_of(spec) == Some(columns) => {
            let sizes = dims.iter().skip(1).map(|d| d.unwrap_or(1));
            [rows].into_iter().chain(sizes).collect()
        }
        _ => vec![rows, columns],
    }
}

/// The label's column: the one asked for; else, where there are more columns than the model
/// takes, one with a label's name, or the last if there is one too many.
fn label_column(
    path: &Path,
    columns: &[String],
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<Option<usize>, DataError> {
    if let Some(label) = &options.label {
        let found = columns.iter().position(|c| c == label);
        return found.map(Some).ok_or_else(|| DataError::MissingLabel {
            path: path.to_path_buf(),
            label: label.clone(),
            available: Listed { kind: "column", names: columns.to_vec() },
        });
    }
    let is_input = |column: &str| inputs.iter().any(|i| i.name == column);
    let wanted = match inputs {
        [spec] => features_of(spec),
        _ => Some(inputs.len()),
    };
    if wanted == Some(columns.len()) {
        return Ok(None);
    }
    let named =
        LABEL_NAMES.iter().find_map(|l| columns.iter().position(|c| c == l && !is_input(c)));
    let last = columns
        .len()
        .checked_sub(1)
        .filter(|&last| wanted == Some(last) && !is_input(&columns[last]));
    Ok(named.or(last))
}

impl Cell<'_> {
    fn spelled(self) -> String {
        match self {
            Cell::Missing => String::new(),
            Cell::Integer(x) => x.to_string(),
            Cell::Number(x) => x.to_string(),
            Cell::Text(text) => shortened(text),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Cell::Missing => Some(f64::NAN),
            Cell::Integer(x) => Some(x as f64),
            Cell::Number(x) => Some(x),
            Cell::Text(text) => match text.trim() {
                "" => Some(f64::NAN),
                text => text.parse().ok().or_else(|| boolean(text).map(|b| f64::from(u8::from(b)))),
            },
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Cell::Missing => None,
            Cell::Integer(x) => Some(x),
            Cell::Number(x) => whole(x),
            Cell::Text(text) => {
                let text = text.trim();
                let parsed = text.parse().ok().or_else(|| boolean(text).map(i64::from));
                parsed.or_else(|| text.parse().ok().and_then(whole))
            }
        }
    }
}

/// As pandas spells them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "True" | "true" => Some(true),
        "False" | "false" => Some(false),
        _ => None,
    }
}

/// `x` as an integer, if it is one that an `f64` holds exactly.
fn whole(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() <= 2f64.powi(53)).then_some(x as i64)
}

impl Cells {
    /// Takes one cell, or says what was expected instead.
    fn push(&mut self, cell: Cell<'_>) -> Result<(), &'static str> {
        match self {
            Cells::F32(v) => v.push(cell.number().ok_or("a number")? as f32),
            Cells::F64(v) => v.push(cell.number().ok_or("a number")?),
            Cells::I64(v) => v.push(cell.integer().ok_or("an integer")?),
            Cells::Str(v) => v.push(match cell {
                Cell::Missing => String::new(),
                Cell::Text(text) => text.to_string(),
                number => number.spelled(),
            }),
        }
        Ok(())
    }
}

/// A label that is not there.
struct Missing;

impl LabelCells {
    fn push(&mut self, cell: Cell<'_>) -> Result<(), Missing> {
        let text = match cell {
            Cell::Text(text) if !text.trim().is_empty() => text.trim(),
            Cell::Missing | Cell::Text(_) => return Err(Missing),
            _ => "",
        };
        let integer = match cell {
            Cell::Integer(x) => Some(x),
            Cell::Text(_) => text.parse().ok().or_else(|| boolean(text).map(i64::from)),
            _ => None,
        };
        let number = cell.number();
        match (&mut *self, integer, number) {
            (_, None, Some(number)) if number.is_nan() => return Err(Missing),
            (LabelCells::Class(v), Some(integer), _) => v.push(integer),
            (LabelCells::Class(v), None, Some(number)) => {
                let widened = v.iter().map(|&x| x as f64).chain([number]).collect();
                *self = LabelCells::Number(widened);
            }
            (LabelCells::Number(v), _, Some(number)) => v.push(number),
            (LabelCells::Text(v), ..) => v.push(text.to_string()),
            (LabelCells::Class(v), None, None) => {
                *self = LabelCells::Text(
                    v.iter().map(i64::to_string).chain([text.to_string()]).collect(),
                );
            }
            (LabelCells::Number(v), _, None) => {
                *self = LabelCells::Text(
                    v.iter().map(f64::to_string).chain([text.to_string()]).collect(),
                );
            }
        }
        Ok(())
    }
}
