use std::fmt;
use std::io;
use std::path::PathBuf;

use fewbits_onnx::proto::DataType;

use crate::hint::Setting;

/// What can be wrong with a data file, or between it and a model. Every message is one line that
/// names the file and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be opened or read.
    #[error("{}: cannot read: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An extension that fewbits does not know.
    #[error(
        "{}: not a kind of data file that fewbits reads; give a .npz, .npy, .csv or .parquet file",
        path.display()
    )]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// The file's bytes contradict themselves or end too early.
    #[error("{}: {what}: {reason}; the file is damaged or incomplete, save it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The array, row or part at fault.
        what: String,
        /// What was found.
        reason: String,
    },
    /// An array of Python objects, which only Python's pickle could open.
    #[error(
        "{}: array '{array}' holds Python objects (a pickle), which fewbits does not open; save \
         it with a fixed type: {array}.astype('int64'), astype('float32') or astype('U')",
        path.display()
    )]
    Objects {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
    },
    /// Elements of a type that no model takes.
    #[error(
        "{}: '{array}' has the type {data_type}, which fewbits does not read; save it as \
         integers, floats, booleans or strings",
        path.display()
    )]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The array or column.
        array: String,
        /// The type as the file spells it.
        data_type: String,
    },
    /// An array or column that would overflow what fewbits holds.
    #[error("{}: '{array}': {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The array or column.
        array: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// No array or column for an input of the model.
    #[error(
        "{}: nothing for the model's input '{input}'; the file has {available}: rename one to '{input}'{way_out}",
        path.display()
    )]
    MissingInput {
        /// The file.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// The arrays or columns that are there.
        available: Listed,
        /// Another way out, or nothing.
        way_out: &'static str,
    },
    /// The label that was asked for is not there.
    #[error("{}: no label '{label}'; the file has {available}: choose one with {}", path.display(), Setting::Label)]
    MissingLabel {
        /// The file.
        path: PathBuf,
        /// The name given.
        label: String,
        /// The arrays or columns that are there.
        available: Listed,
    },
    /// An array whose shape is not what the model takes.
    #[error(
        "{}: array '{array}' of shape {} does not fit input '{input}' of shape {}; {way_out}",
        path.display(), Shape(shape), Dims(dims)
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// Its shape.
        shape: Box<[usize]>,
        /// The model's input.
        input: String,
        /// The input's dimensions.
        dims: Box<[Option<usize>]>,
        /// What to do.
        way_out: Box<str>,
    },
    /// A table whose number of columns is not what the model takes.
    #[error(
        "{}: {columns} feature columns do not fit input '{input}' of shape {}; the file has \
         {available}: keep the features and one label column, named by {} (and save without \
         an index column)",
        path.display(), Dims(dims), Setting::Label
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// The columns that are not the label.
        columns: usize,
        /// The model's input.
        input: String,
        /// The input's dimensions.
        dims: Box<[Option<usize>]>,
        /// The columns that are there.
        available: Listed,
    },
    /// Arrays of different lengths.
    #[error(
        "{}: '{first}' has {first_rows} rows but '{other}' has {other_rows}; save arrays of equal length, or run \
         them as they are, in one call, with {}",
        path.display(), Setting::Batch.to("whole")
    )]
    Rows {
        /// The file.
        path: PathBuf,
        /// One array.
        first: String,
        /// Its rows.
        first_rows: usize,
        /// The other.
        other: String,
        /// Its rows.
        other_rows: usize,
    },
    /// So many numbers are missing that the data cannot be meant.
    #[error(
        "{}: {what}; the model is not known to take them: fill them in or drop those rows",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// How many, and where the first is.
        what: String,
    },
    /// No rows at all.
    #[error("{}: '{array}' holds no data; give at least one row", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The array, or the table.
        array: String,
    },
    /// A missing label.
    #[error(
        "{}: label '{label}' is missing or not a number at row {row}; drop the rows without a label",
        path.display()
    )]
    LabelMissing {
        /// The file.
        path: PathBuf,
        /// The label array or column.
        label: String,
        /// The row, from 1.
        row: usize,
    },
    /// A cell that is not what its column must hold.
    #[error("{}: row {row}, column '{column}': '{cell}' is not {expected}; correct the cell or the column", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The row, from 1, the header not counted.
        row: usize,
        /// The column.
        column: String,
        /// What stands there, shortened.
        cell: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A table whose first row is data.
    #[error("{}: the first row holds only numbers; a header row with the columns' names is needed", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
    },
    /// Elements that cannot become what the model takes.
    #[error(
        "{}: '{array}' holds {from:?} data but input '{input}' takes {to:?}; convert the data, or export \
         the model with another input type",
        path.display()
    )]
    InputType {
        /// The file.
        path: PathBuf,
        /// The array or column.
        array: String,
        /// Its type.
        from: DataType,
        /// The model's input.
        input: String,
        /// The input's type.
        to: DataType,
    },
    /// An input given as a constant that the model cannot take.
    #[error("{}: {reason}", Setting::Input.to(input))]
    Constant {
        /// The name given.
        input: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A normalization that was asked for and cannot be made.
    #[error("{}: {reason}", Setting::Normalize)]
    Normalize {
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Names listed in a message, the first few of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// `array` or `column`.
    pub kind: &'static str,
    /// All the names.
    pub names: Vec<String>,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        let kind = self.kind;
        match self.names.as_slice() {
            [] => return write!(f, "no {kind}s"),
            [name] => return write!(f, "the {kind} '{}'", shortened(name)),
            _ => write!(f, "the {kind}s ")?,
        }
        for (i, name) in self.names.iter().take(SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}'{}'", shortened(name))?;
        }
        match self.names.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// `text` on one line and short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    let line: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{line}…") } else { line }
}

struct Shape<'a>(&'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Dimensions with `?` for the sizes that are not fixed.
struct Dims<'a>(&'a [Option<usize>]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (i, dim) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match dim {
                Some(size) => write!(f, "{comma}{size}")?,
                None => write!(f, "{comma}?")?,
            }
        }
        write!(f, "]")
    }
}
