//! The steps that cargo does.

use std::path::{Path, PathBuf};

use crate::step::{Result, Step};

/// The cargo that started us, or the one on the path.
pub fn cargo(title: &str, root: &Path) -> Step {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Step::new(title, program).current_dir(root)
}

/// Runs the tests of every crate.
pub fn test(root: &Path) -> Result<()> {
    cargo("Running the Rust tests", root).args(["test", "--workspace", "--locked"]).run()
}

/// Builds the documentation, for who builds fewbits: links to what is private are followed too.
pub fn docs(root: &Path) -> Result<()> {
    cargo("Building the documentation", root)
        .args(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// Looks for operators that are named where they should not be.
pub fn operator_names(root: &Path) -> Result<()> {
    // Of the whole workspace, so that what is built for it is what the other tests are built on.
    cargo("Looking for the names of operators", root)
        .args(["test", "--workspace", "--locked", "--test", "operator_names"])
        .run()
}

/// Builds the `fewbits` binary as users get it; answers its path.
pub fn build_release(root: &Path) -> Result<PathBuf> {
    cargo("Building the binary", root)
        .args(["build", "--release", "--locked", "--package", "fewbits-cli"])
        .run()?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        // Cargo takes a relative folder from where it runs, which is the root.
        Some(folder) => root.join(folder),
        None => root.join("target"),
    };
    let binary = target.join("release").join(format!("fewbits{}", std::env::consts::EXE_SUFFIX));
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(format!(
            "{} was not built: is the binary of fewbits-cli named fewbits?",
            binary.display()
        ))
    }
}
