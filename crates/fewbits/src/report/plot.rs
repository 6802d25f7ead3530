//! A line plot as inline SVG, with a text alternative.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 44.0;
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
        let (x_low, x_high) = bounds(points().map(|p| p.0));
        let (y_low, y_high) = bounds(points().map(|p| p.1).chain(self.reference.map(|r| r.0)));
        let step = nice_step((y_high - y_low) / MARKS);
        let (y_low, y_high) = ((y_low / step).floor() * step, (y_high / step).ceil() * step);
        let x = |v: f64| LEFT + (v - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| HEIGHT - BOTTOM - (v - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);

        let mut svg = String::new();
        let mut add = |text: String| svg.push_str(&text);
        add(format!(
            "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-label=\"{}\">\
             <title>{}</title><desc>{}</desc>",
            escape(self.title),
            escape(self.title),
            escape(self.description)
        ));
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let marks = ((y_high - y_low) / step).round() as usize;
        for i in 0..=marks {
            let value = y_low + i as f64 * step;
            let at = y(value);
            add(format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"mark end\" x=\"{:.1}\" y=\"{:.1}\">{value:.decimals$}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            ));
        }
        if let Some((level, name)) = self.reference {
            let at = y(level);
            add(format!(
                "<line class=\"reference\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"mark end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                WIDTH - RIGHT,
                at - 5.0,
                escape(name)
            ));
        }
        let mut xs: Vec<f64> = points().map(|p| p.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        for value in xs {
            let baseline = HEIGHT - BOTTOM + 16.0;
            add(format!(
                "<text class=\"mark middle\" x=\"{:.1}\" y=\"{baseline:.1}\">{value}</text>",
                x(value)
            ));
        }
        for (i, series) in self.series.iter().enumerate() {
            let class = i.min(1);
            let mut path = String::new();
            for (px, py) in series.points {
                let _ = write!(path, "{:.1},{:.1} ", x(*px), y(*py));
            }
            add(format!("<polyline class=\"line s{class}\" points=\"{}\"/>", path.trim_end()));
            for (px, py) in series.points {
                add(format!(
                    "<circle class=\"dot s{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\">\
                     <title>{}: {px}, {py}</title></circle>",
                    x(*px),
                    y(*py),
                    escape(series.name)
                ));
            }
        }
        add(format!(
            "<text class=\"mark middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"mark\" x=\"4\" y=\"12\">{}</text></svg>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(self.x_label),
            escape(self.y_label)
        ));
        svg
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match low.partial_cmp(&high) {
        Some(std::cmp::Ordering::Less) => (low, high),
        Some(std::cmp::Ordering::Equal) => (low - 0.5, high + 0.5),
        _ => (0.0, 1.0),
    }
}

/// The next of 1, 2 or 5 times a power of ten.
fn nice_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= raw).unwrap_or(10.0 * power)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert!((nice_step(0.013) - 0.02).abs() < 1e-12);
        assert!((nice_step(31.0) - 50.0).abs() < 1e-12);
    }

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
