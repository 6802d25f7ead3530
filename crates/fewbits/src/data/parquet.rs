//! `.parquet` files of plain columns.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Type as Physical;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use super::error::shortened;
use super::table::{Cell, Table};
use super::{DataError, DataOptions, Fitted, Labels, ValueSpec};

/// The inputs and labels of a `.parquet` file, read a row at a time.
pub(super) fn read_parquet(
    path: &Path,
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
    // The library panics on some damaged pages ("Decoder for dict should have been set"), found by
    // the test that flips bytes. Nothing outlives the call that a panic could leave half-made.
    let read = AssertUnwindSafe(|| read_rows(path, inputs, options));
    catch_unwind(read).unwrap_or_else(|_| {
        Err(DataError::Damaged {
            path: path.to_path_buf(),
            what: "the table".to_string(),
            reason: "its pages contradict each other".to_string(),
        })
    })
}

fn read_rows(
    path: &Path,
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
    let damaged = |error: ParquetError| {
        let path = path.to_path_buf();
        let reason = error.to_string().replace(['\n', '\r'], " ");
        if reason.contains("Disabled feature") {
            let reason =
                "is compressed in a way fewbits does not read; save it with snappy, gzip or zstd";
            return DataError::Value {
                path,
                array: "the table".to_string(),
                reason: reason.to_string(),
            };
        }
        DataError::Damaged { path, what: "the table".to_string(), reason }
    };
    let file =
        File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    for column in schema.root_schema().get_fields() {
        if column.is_group() || column.get_physical_type() == Physical::INT96 {
            return Err(DataError::ElementType {
                path: path.to_path_buf(),
                array: shortened(column.name()),
                data_type: if column.is_group() {
                    "nested".to_string()
                } else {
                    "timestamp".to_string()
                },
            });
        }
    }
    let columns: Vec<String> =
        schema.root_schema().get_fields().iter().map(|c| c.name().to_string()).collect();
    let mut table = Table::new(path, columns, inputs, options)?;
    for row in reader.get_row_iter(None).map_err(damaged)? {
        if table.is_full() {
            break;
        }
        let row = row.map_err(damaged)?;
        let cells = cells(path, &row)?;
        table.push(|column| cells.get(column).copied().unwrap_or(Cell::Missing))?;
    }
    table.finish()
}

fn cells<'r>(path: &Path, row: &'r Row) -> Result<Vec<Cell<'r>>, DataError> {
    row.get_column_iter()
        .map(|(name, field)| {
            Ok(match field {
                Field::Null => Cell::Missing,
                Field::Bool(x) => Cell::Integer(i64::from(*x)),
                Field::Byte(x) => Cell::Integer(i64::from(*x)),
                Field::Short(x) => Cell::Integer(i64::from(*x)),
                Field::Int(x) => Cell::Integer(i64::from(*x)),
                Field::Long(x) => Cell::Integer(*x),
                Field::UByte(x) => Cell::Integer(i64::from(*x)),
                Field::UShort(x) => Cell::Integer(i64::from(*x)),
                Field::UInt(x) => Cell::Integer(i64::from(*x)),
                Field::ULong(x) => i64::try_from(*x).map_or(Cell::Number(*x as f64), Cell::Integer),
                Field::Float16(x) => Cell::Number(f64::from(f32::from(*x))),
                Field::Float(x) => Cell::Number(f64::from(*x)),
                Field::Double(x) => Cell::Number(*x),
                Field::Str(text) => Cell::Text(text),
                _ => {
                    return Err(DataError::ElementType {
                        path: path.to_path_buf(),
                        array: shortened(name),
                        data_type: "a date, a decimal or bytes".to_string(),
                    });
                }
            })
        })
        .collect()
}
