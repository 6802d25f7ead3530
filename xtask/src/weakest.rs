//! The tests that run on the weakest CPU, which is emulated whatever this machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rust::cargo;
use crate::step::{Result, Step};

/// AVX2 without VNNI: there `vpmaddubsw` adds two products of bytes in 16 bits, which saturate.
const CPU: &str = "Haswell";
const LEVELS: &str = "scalar, avx2";
const MARK: &str = "pytest.mark.weakest";
const EMULATORS: [&str; 2] = ["qemu-x86_64", "qemu-x86_64-static"];

/// An emulator of x86-64, which runs programs of this system.
pub struct Emulator {
    program: &'static str,
}

impl Emulator {
    /// The one on the path.
    ///
    /// # Errors
    /// When there is none, or this machine is no Linux on x86-64, whose programs it runs.
    pub fn find() -> std::result::Result<Emulator, String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("Linux on x86-64".into());
        }
        let starts = |program: &&str| {
            let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        let program = EMULATORS.into_iter().find(starts);
        program.map(|program| Emulator { program }).ok_or_else(|| "qemu-x86_64 (qemu-user)".into())
    }

    /// A command that emulates `program`. What that starts in turn runs on this CPU.
    fn step(&self, title: &str, program: &Path) -> Step {
        Step::new(title, self.program).args(["-cpu", CPU]).args([program])
    }

    /// Runs the tests of the kernels.
    pub fn test_kernels(&self, root: &Path) -> Result<()> {
        // An emulator that hangs must not hang the tests, which take seconds.
        let runner = format!("timeout 10m {} -cpu {CPU}", self.program);
        cargo(&format!("Testing the kernels on an emulated {CPU}"), root)
            .args(["test", "--locked", "--package", "fewbits-kernels", "--lib"])
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner)
            .env("FEWBITS_TEST_LEVELS", LEVELS)
            .run()
    }

    /// Python and onnxruntime in it; fewbits, which pytest starts, runs on this CPU.
    pub fn pytest(&self, python: &Path) -> Step {
        self.step(&format!("Running the tests marked weakest on an emulated {CPU}"), python)
            .env("FEWBITS_EMULATED", CPU)
    }
}

/// The files under tests/python that mark a test as `weakest`: to read all others takes minutes there.
pub fn marked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("tests/python");
    let entries = fs::read_dir(&folder)
        .map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(MARK)));
    files.sort();
    if files.is_empty() {
        return Err(format!("no test in {} says {MARK}", folder.display()));
    }
    Ok(files)
}
