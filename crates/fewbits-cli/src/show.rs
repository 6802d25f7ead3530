//! Tables that fit the terminal, and numbers as people read them.

use std::path::Path;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table};
pub use fewbits::report::bytes;
use serde::Serialize;

/// The width of a table where there is no terminal to fit.
const WIDTH_WITHOUT_TERMINAL: u16 = 100;

/// A table with a header; columns from `numbers_from` on are aligned to the right.
pub fn table(header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH_WITHOUT_TERMINAL);
    }
    table.set_header(header);
    for (i, column) in table.column_iter_mut().enumerate() {
        if i >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints one JSON object on standard output.
pub fn json(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("reports hold nothing that JSON lacks"));
}

/// Prints what must be known, if there is something.
pub fn warn(warning: Option<String>) {
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
}

/// Prints what is worth knowing beside the result on standard error, a line each.
pub fn notes(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

/// The ends of a range, to four digits: `-4.531 .. 4.236`.
pub fn range((low, high): (f32, f32)) -> String {
    let short = |x: f32| match x.abs() {
        0.0 => "0".to_string(),
        1e-3..1e5 => {
            let whole_digits = (x.abs().log10().floor() as i32 + 1).max(1);
            format!("{x:.*}", (4 - whole_digits).max(0) as usize)
        }
        _ => format!("{x:.2e}"),
    };
    format!("{} .. {}", short(low), short(high))
}

/// Megabytes with one decimal, or a dash where it was not measured.
pub fn megabytes(n: Option<u64>) -> String {
    n.map_or("–".to_string(), |n| format!("{:.1} MB", n as f64 / 1e6))
}

/// A shape: `64×128`.
pub fn shape(dims: &[usize]) -> String {
    match dims {
        [] => "scalar".to_string(),
        dims => dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×"),
    }
}

/// The name of a file without its folder.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// A time in the unit that suits it.
pub fn milliseconds(ms: f64) -> String {
    if ms < 0.1 { format!("{:.1} µs", ms * 1e3) } else { format!("{ms:.3} ms") }
}

/// Energy in the unit that suits it, or a dash where it was not measured.
pub fn joules(j: Option<f64>) -> String {
    match j {
        None => "–".to_string(),
        Some(j) if j < 1e-3 => format!("{:.1} µJ", j * 1e6),
        Some(j) if j < 1.0 => format!("{:.2} mJ", j * 1e3),
        Some(j) => format!("{j:.2} J"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(shape(&[64, 128]), "64×128");
        assert_eq!(milliseconds(0.0123), "12.3 µs");
        assert_eq!([None, Some(2.5e-5), Some(0.0123)].map(joules), ["–", "25.0 µJ", "12.30 mJ"]);
    }
}
