//! Whether modules take from each other in circles: `cargo xtask circles`.
//!
//! In a circle no module can be read, tested or moved without all others. A module and those inside of it may
//! take from each other; those that stand side by side, in a crate's `src` or in a folder, may not. What only
//! tests take does not count.

mod graph;
mod python;
mod rust;

use std::path::Path;

use graph::{Circle, Graph};
use xtask::source::{crate_roots, roots_in};

use crate::step::Result;

/// The Python package, and its name.
const PACKAGE: [&str; 2] = ["bindings/python/python/fewbits", "fewbits"];

/// Prints every circle of modules of the workspace.
///
/// # Errors
/// When there is one.
pub fn check(root: &Path) -> Result<()> {
    let mut crates = crate_roots(root);
    crates.extend(roots_in(&root.join("xtask")));
    let mut failed = 0;
    for crate_root in crates {
        let relative = crate_root.strip_prefix(root).unwrap_or(&crate_root);
        let graphs = rust::graphs(root, &crate_root);
        failed += graphs
            .iter()
            .map(|(folder, graph)| print(&place(relative, folder), graph))
            .sum::<usize>();
    }
    let [package, name] = PACKAGE;
    failed += print(package, &python::graph(root, &root.join(package), name)?);
    if failed > 0 {
        return Err(format!("modules take from each other in {failed} circles"));
    }
    Ok(())
}

/// Names a folder of modules.
fn place(crate_root: &Path, folder: &str) -> String {
    match folder {
        "" => crate_root.display().to_string(),
        _ => format!("{}, {folder}", crate_root.display()),
    }
}

/// Prints the circles of a graph with the lines that make them, and counts them.
fn print(place: &str, graph: &Graph) -> usize {
    let circles = graph.circles();
    for circle in &circles {
        print!("{}", told(place, circle));
    }
    circles.len()
}

fn told(place: &str, circle: &Circle) -> String {
    let mut text = format!("{place}: a circle of {}\n", circle.modules.join(", "));
    for (from, to, lines) in &circle.edges {
        text += &format!("  {from} -> {to}\n");
        text.extend(lines.iter().map(|line| format!("    {line}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_told_with_the_lines_that_make_it() {
        let mut graph = Graph::default();
        graph.add("a", "b", "a.rs:1: b::B".to_string());
        graph.add("b", "a", "b.rs:2: a".to_string());
        let expected =
            "src, x: a circle of a, b\n  a -> b\n    a.rs:1: b::B\n  b -> a\n    b.rs:2: a\n";
        assert_eq!(told("src, x", &graph.circles()[0]), expected);
    }
}
