//! The tests that take longer than a change can wait for.

use std::path::Path;

use crate::rust::cargo;
use crate::step::{Result, Step};

/// How often the property tests run, every time with new random inputs.
const ROUNDS: usize = 10;
/// Inputs of a property test that does not say how many it takes.
const CASES: &str = "4096";
/// The crates whose property tests these are.
const CRATES: [&str; 4] = ["fewbits-kernels", "fewbits-quant", "fewbits-onnx", "fewbits-engine"];

/// Runs the tests of the lower crates again and again: optimized, as users get them.
pub fn properties(root: &Path) -> Result<()> {
    for round in 1..=ROUNDS {
        let title = format!("Testing properties, round {round} of {ROUNDS}");
        let packages = CRATES.iter().flat_map(|name| ["--package", name]);
        cargo(&title, root)
            .args(["test", "--release", "--locked", "--lib", "--quiet"])
            .args(packages)
            .env("PROPTEST_CASES", CASES)
            .run()?;
    }
    Ok(())
}

/// Holds what the fact base says of sizes against what is computed, for ONNX's own sets and random graphs.
pub fn facts(root: &Path, python: &Path) -> Result<()> {
    cargo("Building the program that prints facts", root)
        .args(["build", "--release", "--locked", "--workspace", "--example", "facts"])
        .run()?;
    Step::new("Holding facts against what is computed", python)
        .args(["-m", "facts_hold", "--seeds", "0..400"])
        .current_dir(&root.join("tests/python"))
        .env("FACTS_BIN", root.join("target/release/examples/facts"))
        .run()
}
