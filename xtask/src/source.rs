//! The Rust files of a crate, without what only tests compile.

use std::path::{Path, PathBuf};

use crate::tokens::{Kind, Token, tokens};

/// A file that is no test.
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// The module that it holds: its name and those of the modules around it, from the outermost.
    pub module: Vec<String>,
    /// What is compiled of it.
    pub tokens: Vec<Token>,
}

/// Finds the root files of the crates under `crates`, and of the Python package.
///
/// # Panics
/// Where the folder cannot be listed.
pub fn crate_roots(root: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root.join("crates")).expect("the folder of the crates");
    let mut folders: Vec<PathBuf> =
        folders.map(|entry| entry.expect("a crate's folder").path()).collect();
    folders.sort();
    folders.push(root.join("bindings/python"));
    folders.iter().flat_map(|folder| roots_in(folder)).collect()
}

/// Finds the root files of a crate: of its library, of its program.
pub fn roots_in(folder: &Path) -> Vec<PathBuf> {
    let roots = ["lib.rs", "main.rs"].map(|name| folder.join("src").join(name));
    roots.into_iter().filter(|path| path.is_file()).collect()
}

/// Reads the files that make the crate whose root is `root`, found by its `mod` items: those of modules that
/// only tests have are not among them.
///
/// # Panics
/// Where a file cannot be read.
pub fn files(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    read(root, root.parent().expect("a folder of the root file"), &[], &mut found);
    found
}

/// Adds a file that holds `module`, and those of its modules, which lie in `folder`.
fn read(path: &Path, folder: &Path, module: &[String], found: &mut Vec<Source>) {
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tokens = without_tests(&tokens(&text));
    let modules = modules(&tokens);
    found.push(Source { path: path.to_path_buf(), module: module.to_vec(), tokens });
    for child in modules {
        let inside = folder.join(&child);
        let own = inside.with_extension("rs");
        let file = if own.is_file() { own } else { inside.join("mod.rs") };
        let names = child.iter().map(|name| name.to_string_lossy().into_owned());
        let module: Vec<String> = module.iter().cloned().chain(names).collect();
        read(&file, &inside, &module, found);
    }
}

/// The paths of the modules that have files of their own.
fn modules(tokens: &[Token]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = 0;
    while let [keyword, name, rest @ ..] = &tokens[at..] {
        at += 1;
        let Kind::Word(name) = &name.kind else { continue };
        if !keyword.is_word("mod") {
            continue;
        }
        let name = PathBuf::from(name);
        match rest {
            [end, ..] if end.is_mark(';') => found.push(name),
            [end, ..] if end.is_mark('{') => {
                let inner = &rest[..bracketed(rest)];
                found.extend(modules(&inner[1..]).into_iter().map(|module| name.join(module)));
                at += 1 + inner.len();
            }
            _ => {}
        }
    }
    found
}

/// Leaves out items that only tests have, and attributes.
pub fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        if !token.is_mark('#') {
            kept.push(token.clone());
            continue;
        }
        // That of a file or a module itself has a mark of its own.
        at += usize::from(tokens.get(at).is_some_and(|mark| mark.is_mark('!')));
        let attribute = &tokens[at..at + bracketed(&tokens[at..])];
        at += attribute.len();
        if is_of_tests(attribute) {
            at += item(&tokens[at..]);
        }
    }
    kept
}

/// Whether an attribute is `[test]` or `[cfg(test)]`.
fn is_of_tests(attribute: &[Token]) -> bool {
    match attribute {
        [_, test, _] => test.is_word("test"),
        [_, cfg, _, test, _, _] => cfg.is_word("cfg") && test.is_word("test"),
        _ => false,
    }
}

/// How many tokens the item takes that they begin with, its further attributes included.
fn item(tokens: &[Token]) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += bracketed(&tokens[at..]).max(1);
        if token.is_mark(';') || token.is_mark('{') {
            break;
        }
    }
    at
}

/// Counts the tokens from a bracket to the one that closes it; 0 where they begin with none.
pub fn bracketed(tokens: &[Token]) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Mark('(' | '[' | '{') => depth += 1,
            Kind::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if at == 0 { 0 } else { at + 1 };
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_documentation_are_left_out() {
        let text = r#"
        //! Of a file: "Conv".
        #![allow(missing_docs)]
        /// Of an item.
        fn kept() { f("a") }
        #[cfg(test)]
        #[rustfmt::skip]
        const NAMES: [&str; 1] = ["Conv"];
        impl Kept { #[cfg(test)] fn only() { f("Conv") } fn too(&self) {} }
        #[cfg(test)]
        mod tests { #[test] fn one() { f("Conv") } }
        #[cfg(not(test))] fn last() {}
    "#;
        let kinds = |tokens: Vec<Token>| -> Vec<Kind> {
            tokens.into_iter().map(|token| token.kind).collect()
        };
        let kept = r#"fn kept() { f("a") } impl Kept { fn too(&self) {} } fn last() {}"#;
        assert_eq!(kinds(without_tests(&tokens(text))), kinds(tokens(kept)));
    }

    #[test]
    fn files_are_those_of_modules_that_are_compiled() {
        let text = "mod a; pub mod b; mod c { fn f() {} mod d; } #[cfg(test)] mod tests; mod e; fn model() {}";
        let found = modules(&without_tests(&tokens(text)));
        assert_eq!(found, ["a", "b", "c/d", "e"].map(PathBuf::from));
    }
}
