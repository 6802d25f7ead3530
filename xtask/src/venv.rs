//! `.venv`: the pinned Python packages that the end-to-end tests compare with.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::hash::fnv1a;
use crate::step::{Result, Step};

/// The oldest Python 3 that the pinned packages run on.
const OLDEST_MINOR: u32 = 11;

/// Makes `.venv` under `root`, or makes it again if the requirements changed; answers its Python.
///
/// # Errors
/// When there is no usable Python, or a package cannot be installed. A `.venv` whose installation
/// failed carries no stamp, so that the next run starts again.
pub fn ensure(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".venv");
    let requirements = root.join("tests/python/requirements.txt");
    let stamp = folder.join("requirements.stamp");
    let python = python_of(&folder);

    let text = fs::read(&requirements)
        .map_err(|error| format!("{} cannot be read: {error}", requirements.display()))?;
    let wanted = format!("{}\n", fnv1a(&text));
    let installed = fs::read_to_string(&stamp).unwrap_or_default();
    if installed == wanted && starts(&python) {
        println!("==> .venv is up to date");
        return Ok(python);
    }

    let system = find_python()?;
    Step::new("Making .venv", &system)
        .args(["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), folder.as_os_str()])
        .run()
        .map_err(|error| {
            format!("{error}\nOn Debian and Ubuntu, the package python3-venv is needed too.")
        })?;
    Step::new("Installing the pinned packages", &python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .args([&requirements])
        .run()?;
    fs::write(&stamp, wanted)
        .map_err(|error| format!("{} cannot be written: {error}", stamp.display()))?;
    Ok(python)
}

/// Where `python -m venv` puts the interpreter.
fn python_of(folder: &Path) -> PathBuf {
    if cfg!(windows) { folder.join("Scripts/python.exe") } else { folder.join("bin/python") }
}

/// The Python to make `.venv` with: `$PYTHON`, else `python3`, else `python`.
fn find_python() -> Result<String> {
    let chosen = std::env::var("PYTHON").ok();
    let candidates: Vec<&str> = match &chosen {
        Some(python) => vec![python],
        None => vec!["python3", "python"],
    };
    match candidates.iter().find(|name| starts(name)) {
        Some(name) => Ok((*name).to_owned()),
        None => Err(format!(
            "no Python 3.{OLDEST_MINOR} or newer found (tried {}). Install one with pip and venv, \
             or name it: PYTHON=python3.12 cargo xtask test. \
             `cargo xtask rust` runs the tests that need no Python.",
            candidates.join(", ")
        )),
    }
}

/// Whether `program` is a Python that is new enough.
fn starts(program: impl AsRef<OsStr>) -> bool {
    let test = format!("import sys; sys.exit(sys.version_info < (3, {OLDEST_MINOR}))");
    Command::new(program)
        .args(["-c", &test])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_python_is_refused() {
        assert!(!starts("no-such-program"));
        assert!(!starts("false"));
    }
}
