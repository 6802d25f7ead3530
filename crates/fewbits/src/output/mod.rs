//! Writing files: whole or not at all, and never over something that is still wanted.

mod csv;
mod npz;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use fewbits_engine::Tensor;
use fewbits_onnx::{Replace, remove_left_over};

use crate::data::Cut;
use crate::error::exists;
use crate::{Error, Result};

/// Refuses an output that is one of the inputs, that exists and is no file or may not be replaced, or
/// whose folder is not there: before the work, not after. What a killed run left beside it is removed.
///
/// # Errors
/// With the path, what is wrong with it, and what to do.
pub fn check_output(output: &Path, inputs: &[&Path], replace: Replace) -> Result<()> {
    let refuse = |reason: &str| {
        Err(Error::Output { path: output.to_path_buf(), reason: reason.to_string() })
    };
    if inputs.iter().any(|input| are_one(output, input)) {
        return refuse("it is the input; choose another output");
    }
    if output.is_dir() {
        return refuse("it is a folder; give a file name in it");
    }
    if output.exists() && !output.is_file() {
        return refuse("it is no file, which could not be replaced; choose another output");
    }
    if replace == Replace::Never && output.exists() {
        return refuse(&exists());
    }
    match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            refuse("its folder does not exist; make it first")
        }
        _ => {
            remove_left_over(output);
            Ok(())
        }
    }
}

/// Refuses outputs of which two are the same file: the second would replace the first.
///
/// # Errors
/// If there are two such.
pub fn check_apart(outputs: &[&Path]) -> Result<()> {
    for (i, output) in outputs.iter().enumerate() {
        if outputs[..i].iter().any(|other| are_one(output, other)) {
            let reason = "two outputs have this name; choose another for one".to_string();
            return Err(Error::Output { path: output.to_path_buf(), reason });
        }
    }
    Ok(())
}

/// Whether two paths lead to one file, be it there or not.
fn are_one(a: &Path, b: &Path) -> bool {
    let resolved = |path: &Path| {
        path.canonicalize().ok().or_else(|| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
            Some(folder.join(path.file_name()?))
        })
    };
    resolved(a).is_some_and(|a| resolved(b) == Some(a))
}

/// Writes a file beside its place and renames it when it is complete.
///
/// # Errors
/// If it cannot be written, or stands there and may not be replaced.
pub fn write_file(path: &Path, content: &[u8], replace: Replace) -> Result<()> {
    write_with(path, replace, |file| file.write_all(content))
}

fn write_with(
    path: &Path,
    replace: Replace,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<()> {
    if replace == Replace::Never && path.exists() {
        let reason = exists();
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
    ///
    /// # Errors
    /// If it asks for another.
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
    /// The axis of each along which batches are joined; the first where there is none.
    axes: Vec<usize>,
}

impl Outputs {
    /// For outputs of rows that are cut so.
    pub fn cut(cut: &Cut) -> Outputs {
        let axes = match cut {
            Cut::Along(axes) => axes.clone(),
            Cut::Anywhere | Cut::Nowhere => Vec::new(),
        };
        Outputs { axes, ..Outputs::default() }
    }

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
    ///
    /// # Errors
    /// If batches of an output do not join, the format cannot hold an output, the file cannot be written, or stands
    /// there and may not be replaced.
    pub fn write(&self, path: &Path, format: Format, replace: Replace) -> Result<()> {
        let arrays = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (name, parts))| {
                let axis = self.axes.get(i).copied().unwrap_or(0);
                Ok((name.as_str(), Tensor::concat_axis(axis, parts.clone())?))
            })
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
///
/// # Errors
/// If it cannot be made.
pub fn scratch_folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_file_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("there"), b"x").unwrap();
        assert!(are_one(&path("there"), &path("./there")));
        assert!(are_one(&path("new"), &path("../").join(folder.path()).join("./new")));
        assert!(!are_one(&path("new"), &path("there")));
        assert!(!are_one(&path("missing/new"), &path("missing/new")));
        assert!(check_apart(&[&path("a"), &path("b")]).is_ok());
        assert!(check_apart(&[&path("a"), &path("b"), &path("./a")]).is_err());
    }
}
