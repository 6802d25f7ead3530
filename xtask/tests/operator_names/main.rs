//! Whether the names of ONNX's operators stand where they belong: `cargo xtask operator-names`.
//!
//! What an operator does is known in few places, and asked for by all others: the rest of the code names no
//! operator, as a string or by a constant that holds names, so that a new one is a row of a table and not
//! a search through the crates.

use std::collections::HashSet;
use std::path::Path;

use fewbits_onnx::facts::operator_names;
use xtask::source::{self, Source, bracketed, crate_roots, files};
use xtask::tokens::{self, Kind, Token};

/// Where operators are named: what is known of them, what rewrites and spells them, the rules that lower
/// them to steps and the graphs on which rules show that, and the table of what rten is trusted with.
const HOMES: [&str; 8] = [
    "crates/fewbits-onnx/src/facts",
    "crates/fewbits-onnx/src/passes",
    "crates/fewbits-onnx/src/qweight",
    "crates/fewbits-ir/src/choose.rs",
    "crates/fewbits-ir/src/example.rs",
    "crates/fewbits-ir/src/lower",
    "crates/fewbits-ir/src/rules",
    "crates/fewbits-ir/src/trust.rs",
];

#[test]
fn operators_are_named_where_they_belong() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let names: HashSet<&str> = operator_names().collect();
    let sources = crate_roots(root).into_iter().flat_map(|crate_root| files(&crate_root));
    let (named, asking): (Vec<Source>, Vec<Source>) = sources
        .partition(|source| HOMES.iter().any(|home| source.path.starts_with(root.join(home))));
    let constants = named.iter().flat_map(|source| constants(&source.tokens, &names)).collect();
    let mut lines = Vec::new();
    for source in &asking {
        let path = source.path.strip_prefix(root).unwrap().display();
        let found = find(&source.tokens, &names, &constants);
        lines.extend(found.iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    assert!(!named.is_empty() && !asking.is_empty());
    assert!(
        lines.is_empty(),
        "{} places name an ONNX operator; ask a function of {} instead, or add one there:\n{}",
        lines.len(),
        HOMES[0],
        lines.join("\n")
    );
}

/// The strings that are an operator's name and nothing else, and the uses of `constants` that hold some; each
/// with its line.
fn find<'a>(
    tokens: &'a [Token],
    names: &HashSet<&str>,
    constants: &HashSet<&str>,
) -> Vec<(usize, &'a str)> {
    let named = tokens.iter().filter_map(|token| match &token.kind {
        Kind::Text(text) if names.contains(text.as_str()) => Some((token.line, text.as_str())),
        Kind::Word(word) if constants.contains(word.as_str()) => Some((token.line, word.as_str())),
        _ => None,
    });
    named.collect()
}

/// The constants that hold names and are seen outside of the module that has them.
fn constants<'a>(tokens: &'a [Token], names: &HashSet<&str>) -> Vec<&'a str> {
    let of_item = |at: usize| {
        tokens[at].is_word("pub").then_some(())?;
        let behind = &tokens[at + 1..];
        let scope = bracketed(behind);
        let [kind, name, value @ ..] = &behind[scope..] else { return None };
        let Kind::Word(name) = &name.kind else { return None };
        // `const fn` makes a function.
        let is_constant = (kind.is_word("const") || kind.is_word("static")) && name != "fn";
        let is_seen = !behind[..scope].iter().any(|token| token.is_word("super"));
        let mut end = 0;
        while value.get(end).is_some_and(|token| !token.is_mark(';')) {
            end += bracketed(&value[end..]).max(1);
        }
        let holds = !find(&value[..end.min(value.len())], names, &HashSet::new()).is_empty();
        (is_constant && is_seen && holds).then_some(name.as_str())
    };
    (0..tokens.len()).filter_map(of_item).collect()
}

fn names() -> HashSet<&'static str> {
    HashSet::from(["Add", "Conv"])
}

fn found(text: &str, constants: &[&str]) -> Vec<(usize, String)> {
    let tokens = source::without_tests(&tokens::tokens(text));
    let constants = constants.iter().copied().collect();
    let found = find(&tokens, &names(), &constants);
    found.into_iter().map(|(line, what)| (line, what.to_string())).collect()
}

#[test]
fn strings_that_are_names_are_found_in_macros_too() {
    let text =
        "fn f(op: &str) -> bool {\n matches!(op, \"Conv\" | \"Other\") ||\n op == r#\"Add\"#\n}";
    assert_eq!(found(text, &[]), [(2, "Conv".to_string()), (3, "Add".to_string())]);
    assert_eq!(found("const OP: &[u8] = b\"Conv\";", &[]).len(), 1);
}

#[test]
fn words_among_others_comments_and_tests_are_no_names() {
    for text in [
        "// \"Conv\"\nfn f() { g(\"Conv of bytes\", \"conv\", Add, 'c') }",
        "/// \"Conv\"\n#[serde(rename = \"Add\")] struct Conv { add: Add }",
        "#[cfg(test)] mod tests { fn f() { g(\"Conv\") } }",
    ] {
        assert_eq!(found(text, &[]), [], "{text}");
    }
}

#[test]
fn constants_that_hold_names_are_found_where_they_are_used() {
    let tables = tokens::tokens(
        "pub const OF_PAIRS: [&str; 1] = [\"Add\"];
        mod inner { pub(crate) static ROWS: &[(&str, u8)] = &[(\"Conv\", 1)]; }
        const OWN: &str = \"Conv\";
        pub(super) const OF_A_PARENT: &str = \"Conv\";
        pub const NO_NAMES: [&str; 1] = [\"other\"];
        pub fn is_conv(op: &str) -> bool { op == OWN }
        pub const fn name() -> &str { \"Conv\"; OWN }",
    );
    assert_eq!(constants(&tables, &names()), ["OF_PAIRS", "ROWS"]);
    let uses = "use facts::{OF_PAIRS, is_conv};\nfn f(op: &str) { facts::ROWS; is_conv(op); }";
    let expected = [(1, "OF_PAIRS".to_string()), (2, "ROWS".to_string())];
    assert_eq!(found(uses, &["OF_PAIRS", "ROWS"]), expected);
}
