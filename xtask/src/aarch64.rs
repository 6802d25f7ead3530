//! The tests of the kernels for aarch64, where this machine can build and emulate them.

use std::path::{Path, PathBuf};

use crate::rust::cargo;
use crate::step::Result;
use crate::toolchain::{programs, rustc_for};

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
        let rustc = rustc_for(TARGET)?;
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
