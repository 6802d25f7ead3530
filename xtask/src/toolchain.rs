//! The compilers of this machine: the system's may lie behind rustup's and know other targets.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Every program of this name on the path: the compiler of the system may lie behind rustup's.
pub fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter().map(move |folder| folder.join(name)).filter(|program| program.is_file())
}

/// The first compiler on the path that builds the workspace for a target, or what is missing.
pub fn rustc_for(target: &str) -> std::result::Result<PathBuf, String> {
    programs("rustc")
        .find(|rustc| is_recent(rustc) && has_std(rustc, target))
        .ok_or_else(|| format!("recent rustc with the standard library of {target}"))
}

/// What a program prints, if it succeeds.
fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a compiler is as new as the workspace demands.
fn is_recent(rustc: &Path) -> bool {
    let printed = output(rustc, &["--version"]).unwrap_or_default();
    version(printed.trim_start_matches("rustc ")) >= version(env!("CARGO_PKG_RUST_VERSION"))
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Whether a compiler has the standard library of a target.
fn has_std(rustc: &Path, target: &str) -> bool {
    output(rustc, &["--print", "target-libdir", "--target", target])
        .and_then(|folder| std::fs::read_dir(folder.trim_end()).ok())
        .is_some_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert!(version("1.100.0") > version("1.94"));
        assert_eq!(version(""), None);
    }
}
