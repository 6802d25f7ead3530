//! How figures that every page has were measured.

use crate::metric::Metric;

/// Of models that were saved and measured on so many rows.
pub fn how_files(metric: Metric, rows: usize) -> Vec<(String, String)> {
    [
        ("metric", format!("{metric} of each saved file, opened again and run on all {rows} rows")),
        ("agreement", "rows on which a file predicts what the float model predicts".to_string()),
        ("file bytes", "the whole file, external data included".to_string()),
        (
            "weight bytes",
            "the constant tensors in the file, scales and zero points too".to_string(),
        ),
    ]
    .map(|(figure, how)| (figure.to_string(), how))
    .to_vec()
}
