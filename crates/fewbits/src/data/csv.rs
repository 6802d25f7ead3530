//! `.csv` files with a header row.

use std::fs::File;
use std::io;
use std::path::Path;

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::error::shortened;
use super::table::{Cell, Table};
use super::{DataError, DataOptions, Fitted, Labels, ValueSpec};

/// The inputs and labels of a `.csv` file, read a row at a time.
pub(super) fn read_csv(
    path: &Path,
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
    let file =
        File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    read_records(path, file, inputs, options)
}

fn read_records(
    path: &Path,
    source: impl io::Read,
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
    let mut reader = ReaderBuilder::new().from_reader(source);
    let header = reader.headers().map_err(|e| explain(path, e))?;
    if header.iter().all(|name| name.trim().parse::<f64>().is_ok()) && !header.is_empty() {
        return Err(DataError::NoHeader { path: path.to_path_buf() });
    }
    if header.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), array: "the table".to_string() });
    }
    let columns = header.iter().map(|name| name.trim().to_string()).collect();
    let mut table = Table::new(path, columns, inputs, options)?;
    let mut record = StringRecord::new();
    while !table.is_full() && reader.read_record(&mut record).map_err(|e| explain(path, e))? {
        table.push(|column| record.get(column).map_or(Cell::Missing, Cell::Text))?;
    }
    table.finish()
}

fn explain(path: &Path, error: csv::Error) -> DataError {
    let path = path.to_path_buf();
    let row = |position: &Option<csv::Position>| {
        // The header is record 0.
        let row = position.as_ref().map_or(0, csv::Position::record);
        if row == 0 { "the header".to_string() } else { format!("row {row}") }
    };
    match error.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => DataError::Damaged {
            path,
            what: row(pos),
            reason: format!("it has {len} fields where the header has {expected_len}"),
        },
        ErrorKind::Utf8 { pos, .. } => {
            DataError::Damaged { path, what: row(pos), reason: "it is not UTF-8 text".to_string() }
        }
        _ => match error.into_kind() {
            ErrorKind::Io(source) => DataError::Read { path, source },
            other => DataError::Damaged {
                path,
                what: "the table".to_string(),
                reason: shortened(&format!("{other:?}")),
            },
        },
    }
}
