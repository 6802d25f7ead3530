//! Writing files: whole or not at all, and never over something that is still wanted.

mod csv;
mod npz;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use fewbits_onnx::Replace;
use fewbits_runtime::Tensor;

use crate::{Error, Result};

/// Refuses an output that is the input itself, that exists and may not be replaced, or whose
/// folder is not there: before the work, not after.
pub fn check_output(output: &Path, input: &Path, replace: Replace) -> Result<()> {
    let refuse = |reason: &str| {
        Err(Error::Output { path: output.to_path_buf(), reason: reason.to_string() })
    };
    if let (Ok(a), Ok(b)) = (output.canonicalize(), input.canonicalize())
        && a == b
    {
        return refuse("it is the input; choose another output");
    }
    if output.is_dir() {
        return refuse("it is a folder; give a file name in it");
    }
    if replace == Replace::Never && output.exists() {
        return refuse("exists already; add --force to replace it");
    }
    match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            refuse("its folder does not exist; make it first")
        }
        _ => Ok(()),
    }
}

/// Writes a file beside its place and renames it when it is complete.
pub fn write_file(path: &Path, content: &[u8], replace: Replace) -> Result<()> {
    write_with(path, replace, |file| file.write_all(content))
}

fn write_with(
    path: &Path,
    replace: Replace,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<()> {
    if replace == Replace::Never && path.exists() {
        let reason = "exists already; add --force to replace it".to_string();
        return Err(Error::Output { path: path.to_path_buf(), reason });
    }
    fewbits_onnx::write_whole(path, write)
        .map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

/// A format for outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One array an output.
    Npz,
    /// One column a label or score, with a header.
    Csv,
}

impl Format {
    /// The format that a file name asks for.
    pub fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(OsStr::to_str) {
            Some("npz") => Ok(Format::Npz),
            Some("csv") => Ok(Format::Csv),
            _ => {
                let reason = "outputs are written as .npz or .csv; choose one of these".to_string();
                Err(Error::Output { path: path.to_path_buf(), reason })
            }
        }
    }
}

/// The outputs of a model, collected batch by batch.
#[derive(Default)]
pub struct Outputs {
    columns: Vec<(String, Vec<Tensor>)>,
}

impl Outputs {
    /// Takes the outputs of further rows.
    pub fn push(&mut self, outputs: Vec<(String, Tensor)>) {
        for (i, (name, tensor)) in outputs.into_iter().enumerate() {
            if self.columns.len() == i {
                self.columns.push((name, Vec::new()));
            }
            self.columns[i].1.push(tensor);
        }
    }

    /// The outputs' names.
    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Writes everything to `path`.
    pub fn write(&self, path: &Path, format: Format, replace: Replace) -> Result<()> {
        let arrays = self
            .columns
            .iter()
            .map(|(name, parts)| Ok((name.as_str(), Tensor::concat_rows(parts.clone())?)))
            .collect::<Result<Vec<_>>>()?;
        match format {
            Format::Npz => write_with(path, replace, |file| npz::write(file, &arrays)),
            Format::Csv => {
                let columns = csv::columns(&arrays)
                    .map_err(|reason| Error::Output { path: path.to_path_buf(), reason })?;
                write_with(path, replace, |file| csv::write(file, &columns))
            }
        }
    }
}

/// A folder that disappears when it is dropped.
pub fn scratch_folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })
}
