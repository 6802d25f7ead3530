//! Plots as inline SVG, each with its content in words.

mod axis;
mod bars;
mod histogram;
mod labels;
mod line;
mod svg;
mod tradeoff;

pub(super) use bars::sensitivity_bars;
pub(super) use histogram::weight_histogram;
pub use line::{LinePlot, Series};
pub(super) use tradeoff::{Cost, tradeoff};

/// Width of every plot in its own units, in which letters are 12 high: a phone shows a plot about
/// as wide, so its letters stay readable.
const WIDTH: f64 = 380.0;
