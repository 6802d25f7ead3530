//! What the modules of the Python package import from each other.

use std::collections::HashMap;
use std::path::Path;

use super::graph::Graph;
use crate::step::Result;

/// A module that a file imports, or a name in one.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    /// The module, within the package; none for the package itself.
    module: Option<String>,
    /// What is taken of it.
    name: Option<String>,
    line: usize,
}

/// Builds the graph of the modules in `folder`, which is the package `package`. Imports in functions count,
/// those for type checkers do not. Paths are told relative to `root`.
///
/// # Errors
/// Where a file cannot be read.
pub fn graph(root: &Path, folder: &Path, package: &str) -> Result<Graph> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "py") {
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            files.insert(name, (path, imports(&text, package)));
        }
    }
    // What the package hands on of its modules.
    let handed_on: HashMap<&str, &str> =
        files.get("__init__").map_or_else(HashMap::new, |(_, own)| {
            let pairs =
                own.iter().filter_map(|one| Some((one.name.as_deref()?, one.module.as_deref()?)));
            pairs.collect()
        });
    let mut graph = Graph::default();
    for (own, (path, imports)) in files.iter().filter(|(own, _)| *own != "__init__") {
        let path = path.strip_prefix(root).unwrap_or(path).display();
        for import in imports {
            let name = import.name.as_deref();
            let of_package = name.map(|name| *handed_on.get(name).unwrap_or(&name));
            let Some(to) = import.module.as_deref().or(of_package) else { continue };
            if files.contains_key(to) {
                graph.add(own, to, format!("{path}:{}: {to}", import.line));
            }
        }
    }
    Ok(graph)
}

/// Finds the imports of `package` in a file.
fn imports(text: &str, package: &str) -> Vec<Import> {
    let mut found = Vec::new();
    // The indentation of the `if` whose lines are for type checkers.
    let mut for_checkers: Option<usize> = None;
    for (line, statement) in statements(text) {
        let indentation = statement.len() - statement.trim_start().len();
        if for_checkers.is_some_and(|outside| indentation > outside) {
            continue;
        }
        let words = statement.replace(['(', ')'], " ").replace(',', " , ");
        let words: Vec<&str> = words.split_whitespace().collect();
        for_checkers = match words[..] {
            ["if", condition] if condition.trim_end_matches(':').ends_with("TYPE_CHECKING") => {
                Some(indentation)
            }
            _ => None,
        };
        let names = |words: &[&str]| -> Vec<String> {
            let each = words.split(|word| *word == ",").filter_map(|one| one.first());
            each.map(|name| name.to_string()).collect()
        };
        match &words[..] {
            ["import", rest @ ..] => found.extend(names(rest).into_iter().filter_map(|name| {
                let module = inside(&name, package)?;
                Some(Import { module, name: None, line })
            })),
            ["from", module, "import", rest @ ..] => {
                let Some(module) = inside(module, package) else { continue };
                let each = names(rest).into_iter();
                found.extend(each.map(|name| Import {
                    module: module.clone(),
                    name: Some(name),
                    line,
                }));
            }
            _ => {}
        }
    }
    found
}

/// Tells which module of the package a dotted name means: none where it is another's, and nothing inside
/// where it is the package itself.
fn inside(name: &str, package: &str) -> Option<Option<String>> {
    let rest = match name.strip_prefix('.') {
        Some(rest) => rest,
        None => name.strip_prefix(package)?,
    };
    match rest.strip_prefix('.').unwrap_or(rest) {
        "" => Some(None),
        _ if !name.starts_with('.') && !rest.starts_with('.') => None,
        rest => Some(rest.split('.').next().map(str::to_string)),
    }
}

/// Cuts a file into statements, each with the line that it begins in: strings and comments left out, lines
/// joined that brackets hold together.
fn statements(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut statement) = (Vec::new(), String::new());
    let (mut at, mut line, mut begun, mut depth) = (0, 1, 1, 0usize);
    while let Some(&next) = chars.get(at) {
        at += 1;
        match next {
            '#' => at += chars[at..].iter().take_while(|next| **next != '\n').count(),
            '"' | '\'' => {
                let end = behind_string(&chars, at - 1);
                line += chars[at..end].iter().filter(|next| **next == '\n').count();
                at = end;
            }
            '\n' => {
                line += 1;
                if depth > 0 || statement.ends_with('\\') {
                    statement = statement.trim_end_matches('\\').to_string() + " ";
                } else {
                    found.push((begun, std::mem::take(&mut statement)));
                    begun = line;
                }
            }
            _ => {
                match next {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                statement.push(next);
            }
        }
    }
    found.push((begun, statement));
    found.retain(|(_, statement)| !statement.trim().is_empty());
    found
}

/// Finds the place behind the string that begins at `at`.
fn behind_string(chars: &[char], at: usize) -> usize {
    let quote = chars[at];
    let quotes = match chars[at..] {
        [_, second, third, ..] if second == quote && third == quote => 3,
        _ => 1,
    };
    let mut at = at + quotes;
    while at < chars.len() {
        let ends = chars[at..].iter().take(quotes).all(|next| *next == quote);
        if ends || (quotes == 1 && chars[at] == '\n') {
            return (at + quotes).min(chars.len());
        }
        at += 1 + usize::from(chars[at] == '\\');
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_told_from_what_looks_like_them() {
        let text = r#"
"""Says how:

from pack import wrong
"""
import os, pack.one as first  # from pack import wrong
from pack import (
    two,  # comment
    three as other,
)
if TYPE_CHECKING:
    from pack.types import wrong
else:
    from .four import Four
from package import wrong
from pack import five

def f(text="it's\"", other='"'):
    from . import six
"#;
        let found = imports(text, "pack");
        let told: Vec<(usize, Option<&str>, Option<&str>)> = found
            .iter()
            .map(|one| (one.line, one.module.as_deref(), one.name.as_deref()))
            .collect();
        let expected = [
            (6, Some("one"), None),
            (7, None, Some("two")),
            (7, None, Some("three")),
            (14, Some("four"), Some("Four")),
            (16, None, Some("five")),
            (19, None, Some("six")),
        ];
        assert_eq!(told, expected);
    }

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let graph = graph(folder.path(), folder.path(), "pack").unwrap();
        graph.circles().into_iter().map(|circle| circle.modules).collect()
    }

    #[test]
    fn lazy_imports_and_names_of_the_package_make_circles() {
        let init = ("__init__.py", "from pack.a import A\nfrom pack.b import B\n");
        let one_way = ("b.py", "import pack\nfrom pack.c import C\n");
        let end = ("c.py", "import json\nif TYPE_CHECKING:\n    from pack import A\n");
        let lazy = ("c.py", "def f():\n    from pack import A\n");
        let start = ("a.py", "from pack import b\n");
        assert_eq!(circles(&[init, start, one_way, end]), Vec::<Vec<String>>::new());
        assert_eq!(circles(&[init, start, one_way, lazy]), [["a", "b", "c"]]);
    }
}
