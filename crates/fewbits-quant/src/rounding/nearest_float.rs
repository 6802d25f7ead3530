//! Round to nearest among small floats: what ONNX's `QuantizeLinear` does with `saturate = 1`.

use crate::{Encoding, FloatFormat, Layout, PackedInts};

/// Elements rounded at a time: a multiple of 8, small enough for the first-level cache.
const BLOCK: usize = 2048;

/// The bits of the number nearest to `x / scale`, for every value.
pub fn nearest(values: &[f32], layout: &Layout, scales: &[f32], format: FloatFormat) -> PackedInts {
    let encoding = Encoding::Float(format);
    let mut packed = PackedInts::with_capacity(values.len(), format.bits().get(), encoding);
    let mut codes = [0i16; BLOCK];
    layout.for_each_run(|run, span| {
        for (block, values) in values[run].chunks(BLOCK).enumerate() {
            for (i, (code, x)) in codes.iter_mut().zip(values).enumerate() {
                let scale = scales[span.param(block * BLOCK + i)];
                *code = i16::from(format.encode(x / scale));
            }
            packed.extend(&codes[..values.len()]);
        }
    });
    packed
}
