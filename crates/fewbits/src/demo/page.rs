//! The demo's page.

use askama::Template;

use super::{Story, WidthTried};
use crate::compare::Comparison;
use crate::report::{LinePlot, STYLE, Series};

#[derive(Template)]
#[template(path = "demo.html")]
struct Page<'a> {
    story: &'a Story,
    style: &'a str,
    accuracy_plot: String,
    bytes_plot: String,
    /// What one row more or less moves the accuracy by.
    one_row: f64,
    version: &'a str,
}

pub(super) fn render(story: &Story) -> String {
    let page = Page {
        story,
        style: STYLE,
        accuracy_plot: plot(
            story,
            "Accuracy at each width",
            "accuracy",
            |w| (w.fixed_point_accuracy, w.symmetric_accuracy),
            |c| c.a.metric,
        ),
        bytes_plot: plot(
            story,
            "Bytes of the file at each width",
            "bytes",
            |w| (w.fixed_point_bytes as f64, w.symmetric_bytes as f64),
            |c| c.a.file_bytes as f64,
        ),
        one_row: 1.0 / story.test_rows as f64,
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render().expect("the template reads only what the story has")
}

fn plot(
    story: &Story,
    title: &str,
    y_label: &str,
    values: fn(&WidthTried) -> (f64, f64),
    of_float: fn(&Comparison) -> f64,
) -> String {
    let points = |pick: fn((f64, f64)) -> f64| -> Vec<(f64, f64)> {
        story.widths.iter().map(|w| (f64::from(w.bits), pick(values(w)))).collect()
    };
    let (fixed, symmetric) = (points(|v| v.0), points(|v| v.1));
    let words: Vec<String> = story
        .widths
        .iter()
        .map(|w| format!("{} bits: {} and {}", w.bits, values(w).0, values(w).1))
        .collect();
    LinePlot {
        title,
        description: &format!("Fixed-point and symmetric, {}", words.join("; ")),
        x_label: "bits",
        y_label,
        series: &[
            Series { name: "fixed-point", points: &fixed },
            Series { name: "symmetric", points: &symmetric },
        ],
        reference: Some((of_float(&story.symmetric), "float")),
    }
    .to_svg()
}
