//! The plain program that a model becomes, and what it means.
//!
//! A model is lowered once ([`Program::new`]): its nodes become [`Step`]s, each an [`Op`] of plain data,
//! over values of which element type, sizes, layout and quantization are known. Many read it: the
//! engine packs its weights for a CPU and runs it, the interpreter says what it means
//! ([`Program::interpret`]), others write it
//! as code. It is written and read with serde.
//!
//! - [`op`]: what steps compute, and the rule of arithmetic.
//! - `rules`: how nodes become steps, one rule a file.
//! - `lower`: the walk through the graph that asks the rules.
//! - [`example`]: the graphs on which rules show what they do, and their builder.
//! - `reference`: the plain interpreter, to the bit.
//! - [`memory`]: where values lie while a program runs.

mod check;
mod choose;
mod compile;
mod error;
pub mod example;
mod f64_prologue;
mod fallback;
mod lower;
pub mod memory;
pub mod op;
pub mod prepare;
mod program;
mod reference;
mod refusal;
mod rows;
mod rules;
mod schedule;
mod shape;
mod spec;
mod stored;
mod tensor;
pub mod trust;
mod view;

pub use compile::own_nodes;
pub use error::{Result, RuntimeError};
pub use f64_prologue::F64Prologue;
pub use op::Op;
pub use program::{Backend, Constant, Fact, Layout, Program, Quantization, Step, Value, ValueId};
pub use rows::{RowsKnown, rows_known};
pub use rules::examples;
pub use shape::{Broadcast, MAX_RANK, Shape, axis_of, places};
pub use spec::{ValueSpec, input_specs, output_specs};
pub use tensor::{Tensor, Values};
