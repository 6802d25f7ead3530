//! The libraries as a browser or another host of WebAssembly would build them.

use std::path::Path;

use crate::rust::cargo;
use crate::step::Result;
use crate::toolchain::rustc_for;

const TARGET: &str = "wasm32-unknown-unknown";

/// Checks that every library compiles for WebAssembly, the engine without rten too, or says why it does
/// not try.
pub fn check(root: &Path) -> Result<()> {
    let rustc = match rustc_for(TARGET) {
        Ok(rustc) => rustc,
        Err(missing) => {
            println!("==> SKIPPED the check for WebAssembly: there is no {missing}");
            return Ok(());
        }
    };
    // The first depends on all other libraries.
    let builds = [vec!["fewbits"], vec!["fewbits-engine", "--no-default-features"]];
    builds.into_iter().try_for_each(|build| {
        cargo(&format!("Checking {} for WebAssembly", build.join(" ")), root)
            .args(["check", "--locked", "--lib", "--target", TARGET, "--package"])
            .args(build)
            .env("RUSTC", &rustc)
            .run()
    })
}
