//! The tests of the kernels for aarch64, where this machine can build and emulate them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rust::cargo;
use crate::step::Result;

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATORS: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];

/// CPUs that are emulated, and the levels that each must offer: with dot products and without.
const CPUS: [(&str, &str); 2] = [("max", "scalar, neon"), ("cortex-a53", "scalar")];

/// Runs the tests of the kernels on each of [`CPUS`], or says why it does not.
pub fn test(root: &Path) -> Result<()> {
    match Tools::find() {
        Ok(tools) => CPUS.iter().try_for_each(|(cpu, levels)| tools.test(root, cpu, levels)),
        Err(missing) => {
            println!("==> SKIPPED the tests on aarch64: there is no {missing}");
            Ok(())
        }
    }
}

/// What builds and runs programs for aarch64.
struct Tools {
    rustc: PathBuf,
    emulator: PathBuf,
}

impl Tools {
    /// What was found on the path, or what was not.
    fn find() -> std::result::Result<Tools, String> {
        let rustc = programs("rustc")
            .find(|rustc| is_recent(rustc) && has_std(rustc))
            .ok_or_else(|| format!("recent rustc with the standard library of {TARGET}"))?;
        programs(LINKER).next().ok_or(LINKER)?;
        let emulator = EMULATORS.into_iter().find_map(|name| programs(name).next());
        Ok(Tools { rustc, emulator: emulator.ok_or(EMULATORS[0])? })
    }

    fn test(&self, root: &Path, cpu: &str, levels: &str) -> Result<()> {
        // An emulator that hangs must not hang the tests, which take seconds.
        let runner = format!("timeout 10m {} -cpu {cpu}", self.emulator.display());
        cargo(&format!("Testing the kernels on an emulated aarch64 ({cpu})"), root)
            .args(["test", "--release", "--locked", "--package", "fewbits-kernels", "--lib"])
            .args(["--target", TARGET])
            .env("RUSTC", &self.rustc)
            // Static programs need none of the target's libraries in the emulator.
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner)
            .env("FEWBITS_TEST_LEVELS", levels)
            .run()
    }
}

/// Every program of this name on the path: the compiler of the system may lie behind rustup's.
fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter().map(move |folder| folder.join(name)).filter(|program| program.is_file())
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

/// Whether a compiler has the standard library of [`TARGET`].
fn has_std(rustc: &Path) -> bool {
    output(rustc, &["--print", "target-libdir", "--target", TARGET])
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
