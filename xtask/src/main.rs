//! Development tasks of fewbits, run as `cargo xtask COMMAND`.
//!
//! Everything the tests need beyond Rust and Python 3 is made here, in `.venv` and `target` under
//! the repository's root; nothing is installed elsewhere.

mod aarch64;
mod rust;
mod step;
mod venv;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use step::{Result, Step};

const HELP: &str = "\
Development tasks of fewbits.

Usage: cargo xtask COMMAND [-- PYTEST ARGUMENTS]

Commands:
  test           all tests: `rust`, `test-aarch64`, then `python`
  rust           the tests of the Rust workspace
  test-aarch64   the tests of the kernels on an emulated aarch64, where a rustc with
                 that target, its linker and qemu are installed; says so if not
  python         the release binary and the Python package, driven end to end by
                 pytest from tests/python
  help           this text

`python` makes .venv at the repository's root with the versions pinned in
tests/python/requirements.txt, and makes it again when that file changes.
What follows `--` is given to pytest: cargo xtask python -- -k widths
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
    let (command, pytest_arguments) = match arguments {
        [] => ("help", &[][..]),
        [command] => (command.as_str(), &[][..]),
        [command, dashes, rest @ ..] if dashes == "--" => (command.as_str(), rest),
        [_, unknown, ..] => return Err(format!("unknown argument `{unknown}`\n\n{HELP}")),
    };
    let root = repository_root();
    match command {
        "test" => {
            rust::test(&root)?;
            aarch64::test(&root)?;
            python_tests(&root, pytest_arguments)
        }
        "rust" => rust::test(&root),
        "test-aarch64" => aarch64::test(&root),
        "python" => python_tests(&root, pytest_arguments),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        unknown => Err(format!("unknown command `{unknown}`\n\n{HELP}")),
    }
}

/// Builds the release binary and the Python package and gives both to pytest.
fn python_tests(root: &Path, pytest_arguments: &[String]) -> Result<()> {
    let python = venv::ensure(root)?;
    let binary = rust::build_release(root)?;
    wheel::install(root, &python)?;
    let mut pytest = Step::new("Running the end-to-end tests", &python)
        .args(["-m", "pytest", "tests/python"])
        .args(pytest_arguments)
        .current_dir(root)
        .env("FEWBITS_BIN", &binary);
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
