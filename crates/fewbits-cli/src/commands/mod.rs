//! One command a file.

pub mod bench;
pub mod compare;
pub mod demo;
pub mod inspect;
pub mod peak_memory;
pub mod quantize;
pub mod run;
pub mod sweep;
pub mod tune;
