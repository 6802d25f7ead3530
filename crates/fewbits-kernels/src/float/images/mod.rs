//! Windows that move over images of floats, which lie as ONNX has them: channels first.
//!
//! Sums go over channels, rows and columns of the window in this order, with zeros for padding: no
//! cutting into blocks changes their bits.

mod conv;
mod convolution;
mod padded;
mod pool;
mod slide;
mod windows;
mod winograd;

pub use conv::{Weights, convolve};
pub use convolution::Convolution;
pub use pool::{Pooling, average_pool, max_pool};
