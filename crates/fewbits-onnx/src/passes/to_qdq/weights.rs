//! Weights that a file holds as floats, with a `QuantizeLinear` behind them: how quantizers write
//! them whose weights are still trained, and those for TensorRT.

use super::emit::{Emit, Params};
use crate::facts::place;
use crate::proto::{DataType, NodeProto, TensorProto};

/// What the `QuantizeLinear` `node` makes of a constant; `None` if it reads none or makes other
/// integers than those of 8 bits.
pub(super) fn quantized(
    node: &NodeProto,
    params: &Params,
    result: &str,
    emit: &Emit,
) -> Option<TensorProto> {
    let x = emit.constant(node.input.first()?)?;
    let (scale, zero_point) = (emit.constant(&params.scale)?, emit.constant(&params.zero_point)?);
    let data_type = zero_point.element_type().ok()?;
    let (low, high) = match data_type {
        DataType::Uint8 => (0.0, 255.0),
        DataType::Int8 => (-128.0, 127.0),
        _ => return None,
    };
    let (shape, floats) = (x.shape().ok()?, x.floats().ok()?);
    let (scales, zero_points) = (scale.floats().ok()?, zero_point.ints().ok()?);
    let inner = match scales.len() {
        0 => return None,
        1 => 1,
        channels => {
            let axis = place(node.int("axis", 1), shape.len())?;
            if shape.get(axis) != Some(&channels) {
                return None;
            }
            shape[axis + 1..].iter().product()
        }
    };
    if zero_points.len() != scales.len() {
        return None;
    }
    let code = |(i, x): (usize, &f32)| {
        let channel = i / inner % scales.len();
        let q = (x / scales[channel]).round_ties_even() + zero_points[channel] as f32;
        q.clamp(low, high) as i32 as u8
    };
    let codes = floats.iter().enumerate().map(code).collect();
    Some(TensorProto::from_raw(result, &shape, data_type, codes))
}
