//! Hashes of what fewbits writes and answers, kept in the repository: a commit that changes one shows it.

mod cases;
mod measure;
mod random;
mod stored;

use std::path::{Path, PathBuf};

use crate::rust;
use crate::step::Result;
use cases::CASES;
use measure::Measure;
use stored::Stored;

/// Where the hashes are kept.
const FILE: &str = "tests/golden.txt";

/// What to do with the hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Print what differs from those that are kept, and fail if anything does.
    Compare,
    /// Keep them.
    Write,
}

/// Hashes every case that is there.
///
/// # Errors
/// When a hash differs from what is kept, outputs are not the same at every level of this CPU, or the
/// binary cannot be built or run.
pub fn run(root: &Path, mode: Mode) -> Result<()> {
    let binary = match std::env::var_os("FEWBITS_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => rust::build_release(root)?,
    };
    let measure = Measure::new(&binary, root)?;
    println!("==> Hashing files, and outputs at the levels {}", measure.levels().join(", "));
    let mut found = Stored::default();
    let mut missing = Vec::new();
    for case in CASES {
        match case.files(&folders(root)) {
            Ok(files) => measure.case(case, &files, &mut found)?,
            Err(file) => {
                println!("    {}: SKIPPED: there is no {file}", case.name());
                missing.push(case.name());
            }
        }
    }
    let graphs = random::graphs(root, measure.folder())?;
    println!("    {} random graphs", graphs.len());
    for graph in &graphs {
        measure.random_graph(graph, &mut found)?;
    }
    let path = root.join(FILE);
    let kept = Stored::read(&path)?;
    let others = kept.other_graphs(&found);
    for other in &others {
        println!("    {other}: SKIPPED: its seed makes another graph here");
    }
    if mode == Mode::Compare {
        missing.extend(others);
    }
    let differences = kept.differences(&found, &missing);
    for difference in &differences {
        println!("    {difference}");
    }
    match mode {
        Mode::Write => {
            found.add_missing(&kept, &missing);
            found.write(&path)?;
            println!("    {} hashes written to {FILE}, {} differ", found.len(), differences.len());
            Ok(())
        }
        Mode::Compare if differences.is_empty() => {
            println!("    {} hashes are those of {FILE}", found.len());
            Ok(())
        }
        Mode::Compare => Err(format!(
            "{} hashes differ from {FILE}. If that is meant, keep them with `cargo xtask golden --write` \
             and say in the commit what changes them",
            differences.len()
        )),
    }
}

/// The folders that may hold a case: the larger ones lie beside the repository.
fn folders(root: &Path) -> Vec<PathBuf> {
    let cases = std::env::var_os("FEWBITS_CASES").map(PathBuf::from);
    vec![root.join("tests/fixtures"), cases.unwrap_or_else(|| root.join("../shared/cases"))]
}
