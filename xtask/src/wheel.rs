//! The Python package: built as its users get it, and installed into `.venv`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::step::{Result, Step};

/// Builds the wheel with `python`'s maturin and installs it there.
///
/// # Errors
/// When it cannot be built or installed.
pub fn install(root: &Path, python: &Path) -> Result<()> {
    let folder = root.join("target/wheels");
    // What an older version left would be installed as well.
    let _ = fs::remove_dir_all(&folder);
    Step::new("Building the wheel", python)
        .args(["-m", "maturin", "build", "--release", "--locked", "--quiet"])
        .args(["--manifest-path", "bindings/python/Cargo.toml", "--out", "target/wheels"])
        .args(["--interpreter".as_ref(), python.as_os_str()])
        .current_dir(root)
        .run()?;
    let wheel = built(&folder)?;
    Step::new("Installing the wheel", python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--no-deps", "--force-reinstall"])
        .args([&wheel])
        .run()
}

/// The only wheel in `folder`.
fn built(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| format!("{} holds no wheel: did maturin write elsewhere?", folder.display()))
}
