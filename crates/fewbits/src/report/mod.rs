//! Pages: one HTML file each, which needs no network and no script to be read.

mod format;
mod histogram;
mod how;
mod page;
mod plot;
mod render;
mod table;

pub use format::bytes;
pub use histogram::worst_weights;
pub use how::how_files;
pub use page::{Choice, Point, Report, Sensitivity, WeightHistogram};
pub use plot::{LinePlot, Series};

/// The style that all pages share: light and dark, readable on a phone.
pub const STYLE: &str = include_str!("../../templates/style.css");
