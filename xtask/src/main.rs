//! Development tasks of fewbits, run as `cargo xtask COMMAND`.
//!
//! Everything the tests need beyond Rust and Python 3 is made here, in `.venv` and `target` under
//! the repository's root; nothing is installed elsewhere.

mod aarch64;
mod circles;
mod golden;
mod hash;
mod long;
mod rust;
mod step;
mod toolchain;
mod venv;
mod wasm;
mod weakest;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use step::{Result, Step};
use weakest::Emulator;

const HELP: &str = "\
Development tasks of fewbits.

Usage: cargo xtask COMMAND [OPTION] [-- PYTEST ARGUMENTS]

Commands:
  test            all tests: `rust`, `test-aarch64`, then `python`
  test --weakest  on an emulated CPU with AVX2 and without VNNI, where other runtimes'
                  products of bytes may saturate: the kernels' tests and those that pytest
                  knows as `weakest`; needs qemu-x86_64 (Debian: qemu-user), says so if
                  there is none
  rust            the tests of the Rust workspace
  test-aarch64    the tests of the kernels on an emulated aarch64, where a rustc with
                  that target, its linker and qemu are installed; says so if not
  python          the release binary and the Python package, driven end to end by
                  pytest from tests/python
  long            what takes too long for every change: the property tests with many
                  more inputs, the fact base against what is computed, then the tests that
                  pytest knows as `long`
  golden          compares hashes of written files, and of outputs at every level of
                  kernels that this CPU has, with those of tests/golden.txt
  golden --write  keeps the hashes of now; say in the commit what changes them
  operator-names  fails where an ONNX operator is named outside of what knows of operators;
                  a part of `rust`
  docs            builds the documentation of the Rust code, and fails where a link leads nowhere
  wasm            checks that the libraries compile for WebAssembly, where a rustc with that
                  target is installed; says so if not
  circles         prints where modules take from each other in circles, and fails there
  help            this text

`python` makes .venv at the repository's root with the versions pinned in
tests/python/requirements.txt, and makes it again when that file changes.
What follows `--` is given to pytest: cargo xtask python -- -k widths
`golden` takes the binary that FEWBITS_BIN names instead of building one.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that `arguments` name.
fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (words, pytest_arguments) = match words.iter().position(|word| *word == "--") {
        Some(dashes) => (&words[..dashes], &arguments[dashes + 1..]),
        None => (&words[..], &[][..]),
    };
    let root = repository_root();
    match words {
        ["test"] => {
            rust::test(&root)?;
            aarch64::test(&root)?;
            python_tests(&root, pytest_arguments)
        }
        ["test", "--weakest"] => weakest_tests(&root, pytest_arguments),
        ["rust"] => rust::test(&root),
        ["test-aarch64"] => aarch64::test(&root),
        ["python"] => python_tests(&root, pytest_arguments),
        ["long"] => {
            long::properties(&root)?;
            long::facts(&root, &venv::ensure(&root)?)?;
            long_tests(&root, pytest_arguments)
        }
        ["golden"] => golden::run(&root, golden::Mode::Compare),
        ["golden", "--write"] => golden::run(&root, golden::Mode::Write),
        ["operator-names"] => rust::operator_names(&root),
        ["docs"] => rust::docs(&root),
        ["wasm"] => wasm::check(&root),
        ["circles"] => circles::check(&root),
        [] | ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            Ok(())
        }
        unknown => Err(format!("unknown command `{}`\n\n{HELP}", unknown.join(" "))),
    }
}

/// Builds the release binary and the Python package and gives both to pytest.
fn python_tests(root: &Path, arguments: &[String]) -> Result<()> {
    let python = venv::ensure(root)?;
    let binary = rust::build_release(root)?;
    wheel::install(root, &python)?;
    let step = Step::new("Running the end-to-end tests", &python);
    pytest(step.args(TESTS), "not long", root, &binary, arguments)
}

/// Runs the tests that pytest knows as long.
fn long_tests(root: &Path, arguments: &[String]) -> Result<()> {
    let python = venv::ensure(root)?;
    let binary = rust::build_release(root)?;
    wheel::install(root, &python)?;
    let step = Step::new("Running the tests marked long", &python);
    pytest(step.args(TESTS), "long", root, &binary, arguments)
}

/// Runs the tests for which the CPU matters on the weakest, or says why it does not.
fn weakest_tests(root: &Path, arguments: &[String]) -> Result<()> {
    let emulator = match Emulator::find() {
        Ok(emulator) => emulator,
        Err(missing) => {
            println!("==> SKIPPED the tests on the weakest CPU: this is no machine with {missing}");
            return Ok(());
        }
    };
    emulator.test_kernels(root)?;
    let python = venv::ensure(root)?;
    let binary = rust::build_release(root)?;
    let step = emulator.pytest(&python).args(PYTEST).args(weakest::marked_files(root)?);
    pytest(step, "weakest and not long", root, &binary, arguments)
}

const PYTEST: [&str; 2] = ["-m", "pytest"];
/// All end-to-end tests, a file a process on each of two cores: most of their time goes to starting programs.
const TESTS: [&str; 7] =
    [PYTEST[0], PYTEST[1], "tests/python", "--numprocesses", "2", "--dist", "loadfile"];

/// Runs a step that starts pytest on the tests whose marks `marks` describes.
fn pytest(step: Step, marks: &str, root: &Path, binary: &Path, arguments: &[String]) -> Result<()> {
    let mut pytest =
        step.args(["-m", marks]).args(arguments).current_dir(root).env("FEWBITS_BIN", binary);
    let cases = root.join("../shared/cases");
    if std::env::var_os("FEWBITS_CASES").is_none() && cases.is_dir() {
        pytest = pytest.env("FEWBITS_CASES", &cases);
    }
    pytest.run()
}

/// The folder of the workspace's Cargo.toml, which is the parent of xtask's own.
fn repository_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}
