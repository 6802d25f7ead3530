//! What the modules of a crate take from each other, by the paths that its files name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use xtask::source::{Source, bracketed, files};
use xtask::tokens::{Kind, Token};

use super::graph::Graph;

/// The names of a module and of those around it, from the outermost; then, where it is a path, of an item.
type Names = Vec<String>;

/// A path that a file names.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    /// Where it leads, from the root of the crate.
    path: Names,
    /// The name by which it is known behind a `use`.
    alias: Option<String>,
    /// The module that names it.
    module: Names,
    line: usize,
}

/// Builds a graph for every folder of modules of the crate whose root file is `crate_root`, its `src` first;
/// nodes are the modules of the folder, each with all that is below it. Paths are told relative to `root`.
///
/// What a module takes from the one around it or from one below is no edge, but where that has it from a
/// module beside (`pub use`), this is where it leads.
pub fn graphs(root: &Path, crate_root: &Path) -> Vec<(String, Graph)> {
    let sources = files(crate_root);
    let named: Vec<(&Source, Vec<Named>)> =
        sources.iter().map(|source| (source, named(&source.tokens, &source.module))).collect();
    let modules = modules(&sources);
    let mut aliases: HashMap<(Names, String), Names> = HashMap::new();
    for one in named.iter().flat_map(|(_, named)| named) {
        if let Some(alias) = &one.alias {
            aliases.insert((one.module.clone(), alias.clone()), one.path.clone());
        }
    }
    let mut graphs: BTreeMap<Names, Graph> = BTreeMap::new();
    for (source, named) in &named {
        let path = source.path.strip_prefix(root).unwrap_or(&source.path).display();
        for one in named {
            let to = resolved(&one.path, &modules, &aliases);
            let shared = one.module.iter().zip(&to).take_while(|(own, other)| own == other).count();
            if let (Some(own), Some(other)) = (one.module.get(shared), to.get(shared)) {
                let line = format!("{path}:{}: {}", one.line, one.path.join("::"));
                graphs.entry(to[..shared].to_vec()).or_default().add(own, other, line);
            }
        }
    }
    graphs.into_iter().map(|(folder, graph)| (folder.join("::"), graph)).collect()
}

/// Lists the modules of a crate, those inside of files among them.
fn modules(sources: &[Source]) -> HashSet<Names> {
    let around =
        |module: &Names| (1..=module.len()).map(|n| module[..n].to_vec()).collect::<Vec<_>>();
    sources.iter().flat_map(|source| around(&source.module)).collect()
}

/// Follows a path to the module that has what it names, through what modules take from others.
fn resolved(
    path: &[String],
    modules: &HashSet<Names>,
    aliases: &HashMap<(Names, String), Names>,
) -> Names {
    let mut path = path.to_vec();
    let mut at = 0;
    // As many steps as no path needs that is not one of names that stand for each other.
    for _ in 0..100 {
        let Some(name) = path.get(at) else { break };
        if modules.contains(&path[..=at]) {
            at += 1;
        } else if let Some(target) = aliases.get(&(path[..at].to_vec(), name.clone())) {
            path = target.iter().chain(&path[at + 1..]).cloned().collect();
            at = 0;
        } else {
            break;
        }
    }
    path.truncate(at);
    path
}

/// Finds the paths in a file that lead to modules of its crate, by what it uses and by what it names in full.
fn named(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let children = children(tokens);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.is_word("mod") && tokens.get(at + 2).is_some_and(|mark| mark.is_mark('{')) {
            let inner = bracketed(&tokens[at + 2..]);
            let mut inside = module.to_vec();
            inside.extend(word(&tokens[at + 1]).map(str::to_string));
            found.extend(named(&tokens[at + 3..at + 2 + inner], &inside));
            at += 2 + inner;
        } else if token.is_word("use") {
            let mut reader = Use { tokens, at: at + 1, found: Vec::new() };
            reader.tree(&mut Vec::new());
            at = reader.at;
            let trees = reader.found.into_iter().filter_map(|(path, alias, line)| {
                let path = absolute(&path, module, &children)?;
                Some(Named { path, alias, module: module.to_vec(), line })
            });
            found.extend(trees);
        } else {
            let written = written(&tokens[at..]);
            let inside = at > 0 && tokens[at - 1].is_mark(':');
            let first = written.first().map(String::as_str);
            let leads = matches!(first, Some("crate" | "super" | "self")) && written.len() > 1;
            if let Some(path) =
                absolute(&written, module, &HashSet::new()).filter(|_| leads && !inside)
            {
                found.push(Named { path, alias: None, module: module.to_vec(), line: token.line });
            }
            at += 1;
        }
    }
    found
}

/// Finds the names of the modules that a file has in it or declares.
fn children(tokens: &[Token]) -> HashSet<String> {
    let pairs = tokens.windows(2).filter(|pair| pair[0].is_word("mod"));
    pairs.filter_map(|pair| word(&pair[1])).map(str::to_string).collect()
}

/// Turns a path as it is written in `module` into one from the root of the crate; one that leads to
/// another crate is none.
fn absolute(written: &[String], module: &[String], children: &HashSet<String>) -> Option<Names> {
    let mut base = match written.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.to_vec(),
        child if children.contains(child) => return Some([module, written].concat()),
        _ => return None,
    };
    let mut rest = &written[usize::from(written[0] != "super")..];
    while let [first, behind @ ..] = rest
        && first == "super"
    {
        base.pop();
        rest = behind;
    }
    base.extend(rest.iter().filter(|name| *name != "self").cloned());
    Some(base)
}

/// Reads the names that `::` joins, from the first token on.
fn written(tokens: &[Token]) -> Names {
    let mut names = Names::new();
    let mut at = 0;
    while let Some(name) = tokens.get(at).and_then(word) {
        names.push(name.to_string());
        if !is_joined(tokens, at + 1) {
            break;
        }
        at += 3;
    }
    names
}

fn is_joined(tokens: &[Token], at: usize) -> bool {
    tokens.get(at..at + 2).is_some_and(|marks| marks.iter().all(|mark| mark.is_mark(':')))
}

fn word(token: &Token) -> Option<&str> {
    match &token.kind {
        Kind::Word(word) => Some(word),
        _ => None,
    }
}

/// A reader of what stands behind `use`.
struct Use<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Paths, the names that they get, and their lines.
    found: Vec<(Names, Option<String>, usize)>,
}

impl Use<'_> {
    /// Reads one tree, whose names begin with `before`.
    fn tree(&mut self, before: &mut Names) {
        let depth = before.len();
        while let Some(token) = self.tokens.get(self.at) {
            let line = token.line;
            if let Some(name) = word(token) {
                self.at += 1;
                before.push(name.to_string());
                if !is_joined(self.tokens, self.at) {
                    let alias = self.alias(before);
                    self.found.push((before.clone(), alias, line));
                    break;
                }
                self.at += 2;
            } else if token.is_mark('{') {
                self.at += 1;
                while self.tokens.get(self.at).is_some_and(|token| !token.is_mark('}')) {
                    self.tree(before);
                    let comma = self.tokens.get(self.at).is_some_and(|token| token.is_mark(','));
                    self.at += usize::from(comma);
                }
                self.at += 1;
                break;
            } else {
                // All that a module has.
                self.at += 1;
                if token.is_mark('*') {
                    self.found.push((before.clone(), None, line));
                    break;
                }
            }
        }
        before.truncate(depth);
    }

    /// Reads the name that the path gets.
    fn alias(&mut self, path: &[String]) -> Option<String> {
        if self.tokens.get(self.at).is_some_and(|token| token.is_word("as")) {
            self.at += 2;
            return self.tokens.get(self.at - 1).and_then(word).map(str::to_string);
        }
        path.iter().rev().find(|name| *name != "self").cloned()
    }
}

#[cfg(test)]
mod tests {
    use xtask::source::without_tests;
    use xtask::tokens::tokens;

    use super::*;

    fn paths(text: &str, module: &str) -> Vec<String> {
        let module: Names = module.split("::").map(str::to_string).collect();
        let found = named(&without_tests(&tokens(text)), &module);
        found.into_iter().map(|one| one.path.join("::")).collect()
    }

    #[test]
    fn paths_are_found_in_uses_and_in_code() {
        let text = "
            use std::fmt;
            use crate::{Error, data::{self, Dataset as Data}, plan::*};
            use super::{super::run, target};
            pub use self::child::Item;
            use child::Other;
            mod child;
            pub(super) fn f(a: &crate::walk::Walk<crate::run::Run>) -> super::Answer { self::g(a.crate_) }
            mod inline { use super::super::beside; }
            #[cfg(test)] mod tests { use crate::bench; }";
        let expected = [
            "Error",
            "data",
            "data::Dataset",
            "plan",
            "run",
            "a::target",
            "a::b::child::Item",
            "a::b::child::Other",
            "walk::Walk",
            "run::Run",
            "a::Answer",
            "a::b::g",
            "a::beside",
        ];
        assert_eq!(paths(text, "a::b"), expected);
    }

    /// Writes a crate of `files` and finds the circles of its graphs, each as its folder and its modules.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let graphs = graphs(folder.path(), &folder.path().join("lib.rs"));
        let of = |(folder, graph): (String, Graph)| {
            let circles = graph.circles();
            let told =
                circles.iter().map(|circle| format!("{folder}: {}", circle.modules.join(" ")));
            told.collect::<Vec<_>>()
        };
        graphs.into_iter().flat_map(of).collect()
    }

    #[test]
    fn a_tree_without_circles_has_none() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use b::B; use a::A;"),
            ("a/mod.rs", "mod one; mod two; use crate::b; use one::One; pub struct Own;"),
            ("a/one.rs", "use super::{Own, two::Two}; use crate::B;"),
            ("a/two.rs", "use super::Own; #[cfg(test)] mod tests { use crate::a::one; }"),
            ("b.rs", "use std::fmt; #[cfg(test)] use crate::a::A;"),
        ];
        assert_eq!(circles(&files), Vec::<String>::new());
    }

    #[test]
    fn circles_are_found_at_the_root_in_folders_and_through_what_is_handed_on() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use c::C;"),
            ("a/mod.rs", "mod one; mod two; pub use two::Two;"),
            ("a/one.rs", "use super::Two; fn f() { crate::b::g() }"),
            ("a/two.rs", "use crate::a::one::One;"),
            ("b.rs", "use crate::C;"),
            ("c.rs", "use crate::a;"),
        ];
        assert_eq!(circles(&files), [": a b c", "a: one two"]);
    }
}
