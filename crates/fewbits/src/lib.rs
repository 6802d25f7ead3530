//! fewbits makes a trained model smaller and faster with fewer bits, and measures what that cost.
//!
//! Data flows one way:
//!
//! ```text
//! Model ──prepare──▶ Model ──calibrate──▶ Calibration ──plan──▶ Plan ──apply──▶ Model ──compare──▶ Comparison
//! ```
//!
//! - [`prepare`](prepare::prepare): a model as the quantizer wants it, with classical operators
//!   lowered.
//! - [`calibrate`](calibrate::calibrate): what activations hold on data.
//! - [`plan`]: for every weight and activation what it becomes, or why it stays float.
//! - [`methods`] and [`recipe`]: what makes a plan lose less, and who chooses.
//! - [`apply`](apply::apply): the one function that carries out a plan.
//! - [`evaluate`]: the float model on data, and others measured against it.
//! - [`guard`](mod@guard): what costs too much accuracy in integers stays float.
//! - [`compare`](compare::compare): two saved models on the same data.
//! - [`sweep`](sweep::sweep): one model at several widths.
//! - [`bench`](bench::bench): how fast one or two models are.
//! - [`data`] and [`metric`]: what is fed, and what is measured.

mod adjust;
pub mod apply;
pub mod bench;
pub mod calibrate;
pub mod compare;
pub mod cut;
pub mod data;
pub mod demo;
mod digest;
pub mod energy;
pub mod environment;
mod error;
pub mod evaluate;
pub mod growth;
pub mod guard;
pub mod hint;
mod inputs;
pub mod inspect;
pub mod interval;
pub mod layers;
mod layerwise;
mod limits;
pub mod measure;
pub mod methods;
pub mod metric;
mod nearest;
pub mod never_slower;
mod not_finite;
pub mod output;
mod padding;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod run;
pub mod sensitivity;
pub mod sweep;
pub mod tune;

pub use error::{Error, Result};
pub use fewbits_engine::{Engine, Runner, RuntimeError, Tensor, ValueSpec, Values};
pub use fewbits_kernels::keep_freed_blocks;
pub use fewbits_onnx::proto::DataType;
pub use fewbits_onnx::{Model, OnnxError, Replace, SaveOptions, Saved};
pub use fewbits_quant::{Bits, FloatFormat, Granularity, RangeMethod, ScaleType, Scheme};
pub use limits::WeightLimits;
