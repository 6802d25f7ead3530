//! wip

pub mod data;
pub mod metric;
