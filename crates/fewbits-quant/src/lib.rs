//! The arithmetic of fewbits: what a quantized tensor is, and how floats become one.
//!
//! - [`Scheme`]: how a tensor is to be represented. An illegal one cannot be built.
//! - [`Layout`]: which elements of a tensor share a scale.
//! - [`Observer`]: what was seen of a tensor over many batches, in bounded memory.
//! - [`range`]: from floats to the range that the integers shall cover, one method a file.
//! - [`FloatFormat`]: floats of 4 and 8 bits.
//! - [`QuantParams`]: scales and zero points; they may be quantized in turn.
//! - [`rounding`]: from floats and parameters to integers, one method a file.
//! - [`Limits`]: what integers must keep to so that no CPU saturates a sum of their products.
//! - [`PackedInts`] and [`QTensor`]: the integers, packed to the bit, with their parameters.
//!
//! Everything here is a pure function over slices: no files, no `unsafe`. Where work is shared, it is
//! among the threads of the rayon pool that the caller runs in, and the result does not depend on them.

pub mod awq;
mod bits;
mod error;
mod float;
mod layout;
mod limits;
mod matrix;
mod observer;
mod packing;
mod pairs;
mod params;
mod qtensor;
mod quantize;
pub mod range;
mod round;
pub mod rounding;
mod scales;
mod scheme;

pub use bits::{Bits, FractionBits};
pub use error::{QuantError, Result};
pub use float::FloatFormat;
pub use layout::{Layout, Span};
pub use limits::{Limits, PairLimit};
pub use matrix::{Importance, Matrix};
pub use observer::{Bin, ChannelObserver, ChannelSeen, Hessian, HessianObserver, Observer};
pub use packing::{Encoding, PackedInts};
pub use pairs::{PAIR_LIMIT, SumOrder, saturating_pairs};
pub use params::{QuantParams, ScaleType, affine_max, is_below_scales, symmetric_max};
pub use qtensor::QTensor;
pub use quantize::{
    check, fixed_point_floats, quantize, quantize_by, quantize_on, quantize_within, sqnr_db,
};
pub use range::{Levels, Percentile, RangeMethod, WeightRange};
pub use round::round_half_even;
pub use rounding::{Inputs, Rounding};
pub use scheme::{Granularity, MX_BLOCK, NV_BLOCK, Scheme};
