//! A drawing as text.

use std::fmt::Write;

/// A point in the drawing: x to the right, y down.
pub(super) type At = (f64, f64);

/// An `svg` element under construction. All text given to it is escaped.
pub(super) struct Svg(String);

impl Svg {
    /// An empty drawing with an accessible name and its content in words.
    pub(super) fn new(width: f64, height: f64, title: &str, description: &str) -> Svg {
        let (title, description) = (escape(title), escape(description));
        Svg(format!(
            "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {width} {height}\" \
             aria-label=\"{title}\"><title>{title}</title><desc>{description}</desc>"
        ))
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): At, (x2, y2): At) {
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    pub(super) fn polyline(&mut self, class: &str, points: impl IntoIterator<Item = At>) {
        let points: Vec<String> =
            points.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!("<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")));
    }

    pub(super) fn rect(&mut self, class: &str, (x, y): At, width: f64, height: f64) {
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\"/>"
        ));
    }

    /// A dot that says what it is when pointed at.
    pub(super) fn dot(&mut self, class: &str, (x, y): At, radius: f64, title: &str) {
        self.add(format_args!(
            "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">\
             <title>{}</title></circle>",
            escape(title)
        ));
    }

    pub(super) fn text(&mut self, class: &str, (x, y): At, words: &str) {
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            escape(words)
        ));
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }

    fn add(&mut self, element: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(element);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
