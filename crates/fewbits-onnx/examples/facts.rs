//! Prints what is known of sizes in models, for `tests/python/facts_hold.py` to hold against what is computed.
//!
//! A line is `extents` or `elements`, what they are (`Symbol` and a number, `?` for what is not known), and
//! the name of the value, with tabs between; before those of a model stands its path.

use std::path::Path;

use fewbits_onnx::Model;
use fewbits_onnx::facts::{Element, Extent, Facts};

fn main() -> fewbits_onnx::Result<()> {
    for path in std::env::args().skip(1) {
        let mut model = Model::open(Path::new(&path))?;
        model.graph_mut().sort_topologically();
        println!("model\t\t{path}");
        let facts = Facts::of(model.graph());
        for name in facts.sizes().keys() {
            let extents = facts.extents(name).unwrap_or_default().iter();
            println!("extents\t{}\t{name}", joined(extents.map(|extent| of_extent(*extent))));
            if let Some(elements) = facts.elements(name) {
                let elements = elements.iter().map(|element| of_element(*element));
                println!("elements\t{}\t{name}", joined(elements));
            }
        }
    }
    Ok(())
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

fn of_extent(extent: Extent) -> String {
    match extent {
        Extent::Is(size) => size.to_string(),
        Extent::Like(symbol) => format!("{symbol:?}"),
        Extent::Unknown => "?".to_string(),
    }
}

fn of_element(element: Element) -> String {
    match element {
        Element::Is(int) => int.to_string(),
        Element::Like(symbol) => format!("{symbol:?}"),
        Element::Unknown => "?".to_string(),
    }
}
