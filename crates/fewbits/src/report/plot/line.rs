//! Lines over a common axis.

use super::WIDTH;
use super::axis::Axis;
use super::svg::Svg;

const HEIGHT: f64 = 250.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 42.0;
/// About so many marks on the vertical axis.
const MARKS: f64 = 5.0;

/// Points joined by a line.
pub struct Series<'a> {
    /// What the line shows.
    pub name: &'a str,
    /// `(x, y)`, by rising x.
    pub points: &'a [(f64, f64)],
}

/// A plot of one or two series over the same axes.
pub struct LinePlot<'a> {
    /// The accessible name.
    pub title: &'a str,
    /// The whole content in words, for those who cannot see it.
    pub description: &'a str,
    /// Under the horizontal axis.
    pub x_label: &'a str,
    /// Beside the vertical axis.
    pub y_label: &'a str,
    /// The lines; more than two share a style.
    pub series: &'a [Series<'a>],
    /// A level to compare with, and its name.
    pub reference: Option<(f64, &'a str)>,
}

impl LinePlot<'_> {
    /// The plot as an `svg` element.
    pub fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|s| s.points);
        let x_axis = Axis::of_each(points().map(|p| p.0));
        let levels = points().map(|p| p.1).chain(self.reference.map(|r| r.0));
        let y_axis = Axis::round(levels, MARKS);
        let x = |v: f64| LEFT + x_axis.at(v) * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| HEIGHT - BOTTOM - y_axis.at(v) * (HEIGHT - TOP - BOTTOM);

        let mut svg = Svg::new(WIDTH, HEIGHT, self.title, self.description);
        for mark in &y_axis.marks {
            svg.line("grid", (LEFT, y(*mark)), (WIDTH - RIGHT, y(*mark)));
            svg.text("mark end", (LEFT - 6.0, y(*mark) + 4.0), &y_axis.written(*mark, 1.0));
        }
        if let Some((level, name)) = self.reference {
            svg.line("reference", (LEFT, y(level)), (WIDTH - RIGHT, y(level)));
            svg.text("mark end", (WIDTH - RIGHT, y(level) - 5.0), name);
        }
        for mark in &x_axis.marks {
            svg.text("mark middle", (x(*mark), HEIGHT - BOTTOM + 16.0), &mark.to_string());
        }
        for (i, series) in self.series.iter().enumerate() {
            let class = format!("s{}", i.min(1));
            let line = series.points.iter().map(|p| (x(p.0), y(p.1)));
            svg.polyline(&format!("line {class}"), line);
            for (px, py) in series.points {
                let title = format!("{}: {px}, {py}", series.name);
                svg.dot(&class, (x(*px), y(*py)), 4.0, &title);
            }
        }
        svg.text("mark middle", ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0), self.x_label);
        svg.text("mark", (4.0, 12.0), self.y_label);
        svg.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_itself_and_escapes_text() {
        let points = [(1.0, 0.5), (2.0, 0.5)];
        let plot = LinePlot {
            title: "a < b",
            description: "flat",
            x_label: "x",
            y_label: "y",
            series: &[Series { name: "s", points: &points }],
            reference: None,
        };
        let svg = plot.to_svg();
        assert!(svg.contains("aria-label=\"a &lt; b\""));
        assert!(svg.contains("<desc>flat</desc>"));
        assert!(!svg.contains("NaN"));
    }
}
