//! The file of hashes: a line each, the name and then the hash.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::step::Result;

/// What the hash of a graph itself is called.
pub const GRAPH: &str = "graph";

/// Hashes by name. The first word of a name is its case.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stored(BTreeMap<String, String>);

impl Stored {
    /// Reads the file; without one there are none.
    pub fn read(path: &Path) -> Result<Stored> {
        if !path.exists() {
            return Ok(Stored::default());
        }
        let text = fs::read_to_string(path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        Stored::parse(&text)
            .ok_or_else(|| format!("{} holds a line without a hash", path.display()))
    }

    fn parse(text: &str) -> Option<Stored> {
        let line =
            |line: &str| line.rsplit_once(' ').map(|(name, hash)| (name.into(), hash.into()));
        text.lines().map(line).collect::<Option<_>>().map(Stored)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.text())
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }

    fn text(&self) -> String {
        self.0.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect()
    }

    /// Adds a hash.
    pub fn insert(&mut self, name: String, hash: String) {
        self.0.insert(name, hash);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes over what `kept` holds of the cases that are missing here.
    pub fn add_missing(&mut self, kept: &Stored, missing: &[String]) {
        let of_missing = kept.0.iter().filter(|(name, _)| missing.contains(&case_of(name)));
        self.0.extend(of_missing.map(|(name, hash)| (name.clone(), hash.clone())));
    }

    /// The cases whose graph is another in `found`.
    pub fn other_graphs(&self, found: &Stored) -> Vec<String> {
        let graphs = self.0.iter().filter(|(name, _)| name.ends_with(&format!(" {GRAPH}")));
        let other = |name: &String, hash: &String| found.0.get(name).is_some_and(|now| now != hash);
        graphs.filter(|(name, hash)| other(name, hash)).map(|(name, _)| case_of(name)).collect()
    }

    /// A line for every hash that `found` has otherwise, but for cases that are missing.
    pub fn differences(&self, found: &Stored, missing: &[String]) -> Vec<String> {
        let is_there = |name: &&String| !missing.contains(&case_of(name));
        let gone = self.0.keys().filter(|name| !found.0.contains_key(*name)).filter(is_there);
        let mut lines: Vec<String> = gone.map(|name| format!("gone     {name}")).collect();
        for (name, hash) in found.0.iter().filter(|(name, _)| is_there(name)) {
            match self.0.get(name) {
                Some(kept) if kept == hash => {}
                Some(kept) => lines.push(format!("changed  {name}: {kept} is now {hash}")),
                None => lines.push(format!("new      {name}: {hash}")),
            }
        }
        lines
    }
}

fn case_of(name: &str) -> String {
    name.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str =
        "a/m.onnx static file 01\na/m.onnx static outputs 02\nb/m.onnx float outputs 03\n";

    #[test]
    fn what_is_written_is_read_back() {
        let kept = Stored::parse(KEPT).unwrap();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept.text(), KEPT);
        assert_eq!(Stored::parse("line-without-a-hash"), None);
    }

    #[test]
    fn what_changed_came_or_went_is_told() {
        let kept = Stored::parse(KEPT).unwrap();
        let found = Stored::parse("a/m.onnx static file 05\na/m.onnx dynamic file 06\n").unwrap();
        let lines = kept.differences(&found, &["b/m.onnx".into()]);
        let expected = [
            "gone     a/m.onnx static outputs",
            "new      a/m.onnx dynamic file: 06",
            "changed  a/m.onnx static file: 01 is now 05",
        ];
        assert_eq!(lines, expected);
        assert!(kept.differences(&kept, &[]).is_empty());
    }

    #[test]
    fn another_graph_is_no_difference() {
        let kept = Stored::parse("r/1 graph 01\nr/1 static file 02\nr/2 graph 03\n").unwrap();
        let found = Stored::parse("r/1 graph 04\nr/1 static file 05\nr/2 graph 03\n").unwrap();
        let others = kept.other_graphs(&found);
        assert_eq!(others, ["r/1"]);
        assert!(kept.differences(&found, &others).is_empty());
    }

    #[test]
    fn hashes_of_a_missing_case_are_kept() {
        let mut found = Stored::parse("a/m.onnx static file 05\n").unwrap();
        found.add_missing(&Stored::parse(KEPT).unwrap(), &["b/m.onnx".into()]);
        assert_eq!(found.text(), "a/m.onnx static file 05\nb/m.onnx float outputs 03\n");
    }
}
