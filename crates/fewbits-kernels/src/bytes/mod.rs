//! Kernels on activations of one byte: all but the matrix products.
//!
//! A byte `q` stands for the real number `(q - zero_point) * scale`. One rule of arithmetic holds
//! throughout: add up exactly in integers, convert to `f32`, multiply once by a scale, round half
//! to even, add the zero point, saturate. Where a graph of DequantizeLinear, a float operator and
//! QuantizeLinear is replaced element by element, the float operations of that graph are done in
//! its order instead, so that the bytes are those of the unfused graph in onnxruntime. What a
//! kernel computes does not depend on the [`Cpu`](crate::Cpu).
//!
//! Images are channels-last with a halo ([`ImageLayout`](crate::ImageLayout)); functions named
//! `_image` take one image of the batch: [`image_pitch`](crate::ImageLayout::image_pitch) bytes.

mod add;
mod depthwise;
mod dynamic;
mod lut;
mod planes;
mod pool;
mod pool_rules;
mod quantize;
mod window;

pub use add::{AddScales, add, mul, requantize};
pub use depthwise::{Depthwise, DepthwiseWeights, depthwise_rows};
pub use dynamic::{dynamic_parameters, min_max};
pub use lut::look_up;
pub use planes::{
    dequantize_image, image_from_bytes, image_to_bytes, image_to_floats, quantize_image,
};
pub use pool::{ImagePooling, average_pool_image, global_average_pool_image, max_pool_image};
pub use pool_rules::{Averaging, Divisor};
pub use quantize::{QuantizeTo, Requantize, dequantize, quantize};
pub(crate) use quantize::{Rounding, real};
pub use window::Window;
