//! `.npz` archives: a zip of `.npy` entries, stored or deflated; and single `.npy` files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use fewbits_engine::Tensor;
use zip::ZipArchive;

use super::error::shortened;
use super::npy::{self, NpyError};
use super::{Arrays, DataError, DataOptions, Fitted, LABEL_NAMES, Labels, Listed, ValueSpec};

/// Deflate makes at most 1,032 bytes of one; an entry that claims more is lying.
const DEFLATE_LIMIT: u64 = 1032;

/// The arrays of a `.npz` file that one model needs.
pub(super) fn read_npz(
    path: &Path,
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
    let mut archive = Archive::open(path)?;
    let names = archive.names.clone();
    let label = label_name(path, &names, inputs, options)?;
    let mut rows = RowCount::new(path);
    let mut fitted = Vec::with_capacity(inputs.len());
    for spec in inputs {
        let name = input_array(path, &names, spec, inputs, label.as_deref())?;
        let wanted = Wanted::of(spec, options);
        let (array, array_rows) = archive.read(&name, wanted)?;
        let name = shortened(&name);
        let input = Fitted::new(path, &name, array, spec, options)?;
        let limited = matches!(wanted, Wanted::RowCount(_));
        if let Some(found) = input.rows() {
            rows.check(&name, if limited { array_rows } else { found })?;
        }
        fitted.push(input.limited(options.limit));
    }
    let labels = match label {
        Some(name) => {
            let (array, array_rows) = archive.read(&name, Wanted::RowCount(options.limit))?;
            let name = shortened(&name);
            rows.check(&name, array_rows)?;
            Some(Labels::from_tensor(path, &name, array)?)
        }
        None => None,
    };
    Ok((fitted, labels))
}

/// The one array of a `.npy` file, for a model of one input.
pub(super) fn read_npy(
    path: &Path,
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<(Vec<Fitted>, Option<Labels>), DataError> {
    let available = || Listed { kind: "array", names: vec![String::new()] };
    if let Some(label) = &options.label {
        return Err(DataError::MissingLabel {
            path: path.to_path_buf(),
            label: label.clone(),
            available: Listed {
                kind: "array",
                names: vec!["(the only one of a .npy file)".into()],
            },
        });
    }
    let [spec] = inputs else {
        let input = inputs.get(1).or(inputs.first()).map_or("", |s| &s.name).to_string();
        let way_out = " and save all inputs in one .npz file";
        return Err(DataError::MissingInput {
            path: path.to_path_buf(),
            input,
            available: available(),
            way_out,
        });
    };
    let file =
        File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let bytes = file
        .metadata()
        .map_err(|source| DataError::Read { path: path.to_path_buf(), source })?
        .len();
    let name = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let wanted = Wanted::of(spec, options);
    let (array, _) = read_array(path, &name, BufReader::new(file), bytes, wanted)?;
    let fitted = Fitted::new(path, &name, array, spec, options)?;
    Ok((vec![fitted.limited(options.limit)], None))
}

/// The label array: the one asked for, else one with a label's name that is no input.
fn label_name(
    path: &Path,
    names: &[String],
    inputs: &[ValueSpec],
    options: &DataOptions,
) -> Result<Option<String>, DataError> {
    if options.arrays == Arrays::OneCall {
        return Ok(None);
    }
    if let Some(label) = &options.label {
        if !names.contains(label) {
            return Err(DataError::MissingLabel {
                path: path.to_path_buf(),
                label: label.clone(),
                available: Listed { kind: "array", names: names.to_vec() },
            });
        }
        return Ok(Some(label.clone()));
    }
    let is_input = |name: &str| inputs.iter().any(|i| i.name == name);
    let found = LABEL_NAMES.iter().find(|&&l| names.iter().any(|n| n == l) && !is_input(l));
    Ok(found.map(|l| l.to_string()))
}

/// The array for an input: of its name; for an only input also `X`, or the only array that is
/// not the label.
fn input_array(
    path: &Path,
    names: &[String],
    spec: &ValueSpec,
    inputs: &[ValueSpec],
    label: Option<&str>,
) -> Result<String, DataError> {
    if names.contains(&spec.name) {
        return Ok(spec.name.clone());
    }
    if inputs.len() == 1 {
        let mut others = names.iter().filter(|n| Some(n.as_str()) != label);
        match (names.iter().find(|n| *n == "X"), others.next(), others.next()) {
            (Some(x), _, _) => return Ok(x.clone()),
            (None, Some(only), None) => return Ok(only.clone()),
            _ => {}
        }
    }
    let available = Listed { kind: "array", names: names.to_vec() };
    let way_out = if inputs.len() == 1 { " or to 'X'" } else { "" };
    Err(DataError::MissingInput {
        path: path.to_path_buf(),
        input: spec.name.clone(),
        available,
        way_out,
    })
}

/// What is read of an array.
#[derive(Clone, Copy)]
enum Wanted {
    /// So many rows of its first axis, or all; at least one element.
    RowCount(Option<usize>),
    /// Everything, be it a number, or nothing.
    All,
}

impl Wanted {
    fn of(spec: &ValueSpec, options: &DataOptions) -> Wanted {
        match options.arrays {
            Arrays::Examples if spec.row_axis == Some(0) => Wanted::RowCount(options.limit),
            _ => Wanted::All,
        }
    }
}

/// Compares the lengths of arrays as they come.
struct RowCount<'a> {
    path: &'a Path,
    first: Option<(String, usize)>,
}

impl<'a> RowCount<'a> {
    fn new(path: &'a Path) -> RowCount<'a> {
        RowCount { path, first: None }
    }

    fn check(&mut self, name: &str, rows: usize) -> Result<(), DataError> {
        match &self.first {
            Some((first, first_rows)) if *first_rows != rows => Err(DataError::Rows {
                path: self.path.to_path_buf(),
                first: first.clone(),
                first_rows: *first_rows,
                other: name.to_string(),
                other_rows: rows,
            }),
            Some(_) => Ok(()),
            None => {
                self.first = Some((name.to_string(), rows));
                Ok(())
            }
        }
    }
}

struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<File>>,
    /// The arrays, without `.npy`.
    names: Vec<String>,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Archive<'a>, DataError> {
        let file = File::open(path)
            .map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
        let zip =
            ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(path, "the archive", e))?;
        let names =
            zip.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_string()));
        let names = names.collect();
        Ok(Archive { path, zip, names })
    }

    /// What is wanted of an array, and the number of rows it has in the file.
    fn read(&mut self, name: &str, wanted: Wanted) -> Result<(Tensor, usize), DataError> {
        let what = format!("array '{}'", shortened(name));
        let entry = self.zip.by_name(&format!("{name}.npy"));
        let entry = entry.map_err(|e| damaged(self.path, &what, e))?;
        let (bytes, compressed) = (entry.size(), entry.compressed_size());
        if bytes > compressed.saturating_mul(DEFLATE_LIMIT).saturating_add(CHECK_SLACK_BYTES) {
            let reason = format!("{compressed} bytes cannot unpack to the {bytes} claimed");
            return Err(damaged(self.path, &what, reason));
        }
        read_array(self.path, name, entry, bytes, wanted)
    }
}

/// Room for the few bytes by which an empty deflate stream differs.
const CHECK_SLACK_BYTES: u64 = 64;

/// Reads the array in `reader`, which claims to hold `bytes` bytes.
fn read_array(
    path: &Path,
    name: &str,
    mut reader: impl Read,
    bytes: u64,
    wanted: Wanted,
) -> Result<(Tensor, usize), DataError> {
    let explain = |error| {
        let path = path.to_path_buf();
        let array = shortened(name);
        match error {
            NpyError::Damaged(reason) => {
                DataError::Damaged { path, what: format!("array '{array}'"), reason }
            }
            NpyError::Objects => DataError::Objects { path, array },
            NpyError::ElementType(data_type) => DataError::ElementType { path, array, data_type },
            NpyError::Value(reason) => DataError::Value { path, array, reason },
        }
    };
    let header = npy::read_header(&mut reader).map_err(explain)?;
    let shape = header.shape.clone();
    match header.payload_bytes() {
        Some(0) if matches!(wanted, Wanted::RowCount(_)) => {
            return Err(DataError::Empty { path: path.to_path_buf(), array: shortened(name) });
        }
        Some(payload) if payload <= bytes => {}
        _ => {
            let reason =
                format!("its shape {shape:?} needs more than the {bytes} bytes that are there");
            return Err(explain(NpyError::Damaged(reason)));
        }
    }
    let limit = match wanted {
        Wanted::RowCount(_) if shape.is_empty() => {
            let reason = "is a single number; save an array with one row per example";
            return Err(explain(NpyError::Value(reason.into())));
        }
        Wanted::RowCount(limit) => limit,
        Wanted::All => None,
    };
    let array = header.read_rows(&mut reader, limit).map_err(explain)?;
    let rows = shape.first().copied().unwrap_or(1);
    if array.rows() == rows {
        // The checksum of a zip entry is compared when its end is reached.
        let mut end = [0u8; 1];
        match reader.read(&mut end) {
            Ok(0) => {}
            Ok(_) => {
                return Err(explain(NpyError::Damaged("it is longer than its shape says".into())));
            }
            Err(e) => return Err(explain(e.into())),
        }
    }
    if array.is_empty() && matches!(wanted, Wanted::RowCount(_)) {
        return Err(DataError::Empty { path: path.to_path_buf(), array: shortened(name) });
    }
    Ok((array, rows))
}

fn damaged(path: &Path, what: &str, reason: impl ToString) -> DataError {
    let reason = reason.to_string().replace(['\n', '\r'], " ");
    DataError::Damaged { path: path.to_path_buf(), what: what.to_string(), reason }
}
