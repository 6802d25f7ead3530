//! A graph of modules, and its circles.

use std::collections::{BTreeMap, BTreeSet};

/// Modules that stand beside each other and what they take from each other: for a pair of them the lines
/// that make the edge.
#[derive(Default)]
pub struct Graph {
    edges: BTreeMap<(String, String), Vec<String>>,
}

/// A set of modules of which each reaches each other.
pub struct Circle {
    /// Their names, in order.
    pub modules: Vec<String>,
    /// The edges among them: from, to, and the lines that make it.
    pub edges: Vec<(String, String, Vec<String>)>,
}

impl Graph {
    /// Adds an edge that `line` makes; one from a module to itself is none.
    pub fn add(&mut self, from: &str, to: &str, line: String) {
        if from != to {
            let lines = self.edges.entry((from.to_string(), to.to_string())).or_default();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }

    /// Finds the circles: of each all modules, however many ways lead around.
    pub fn circles(&self) -> Vec<Circle> {
        let names: BTreeSet<&str> =
            self.edges.keys().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
        let behind: BTreeMap<&str, BTreeSet<&str>> =
            names.iter().map(|name| (*name, self.reached(name))).collect();
        let mut left = names;
        let mut found = Vec::new();
        while let Some(first) = left.pop_first() {
            let around =
                |other: &&str| behind[first].contains(other) && behind[other].contains(first);
            let others: Vec<&str> = left.iter().copied().filter(around).collect();
            if !others.is_empty() {
                left.retain(|name| !others.contains(name));
                found.push(self.circle(std::iter::once(first).chain(others).collect()));
            }
        }
        found
    }

    /// Finds what a module reaches along one edge or more.
    fn reached(&self, start: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![start];
        while let Some(name) = open.pop() {
            for (_, to) in self.edges.keys().filter(|(from, _)| from == name) {
                if reached.insert(to.as_str()) {
                    open.push(to);
                }
            }
        }
        reached
    }

    fn circle(&self, modules: BTreeSet<&str>) -> Circle {
        let inside = self.edges.iter().filter(|((from, to), _)| {
            modules.contains(from.as_str()) && modules.contains(to.as_str())
        });
        Circle {
            edges: inside
                .map(|((from, to), lines)| (from.clone(), to.clone(), lines.clone()))
                .collect(),
            modules: modules.into_iter().map(str::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to) in edges {
            graph.add(from, to, format!("{from} takes {to}"));
        }
        graph
    }

    #[test]
    fn circles_are_told_apart_and_hold_their_edges_only() {
        let edges =
            [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a"), ("d", "f"), ("f", "d")];
        let circles = graph(&edges).circles();
        assert_eq!(circles.len(), 2);
        assert_eq!(circles[0].modules, ["a", "b", "c"]);
        let lines: Vec<&str> =
            circles[0].edges.iter().flat_map(|(.., lines)| lines).map(String::as_str).collect();
        assert_eq!(lines, ["a takes b", "b takes c", "c takes a"]);
        assert_eq!(circles[1].modules, ["d", "f"]);
    }

    #[test]
    fn a_module_is_no_circle_with_itself_nor_is_a_diamond() {
        let edges = [("a", "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")];
        assert!(graph(&edges).circles().is_empty());
    }
}
