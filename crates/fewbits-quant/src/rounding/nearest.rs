//! Round to nearest, half to even: what ONNX's `QuantizeLinear` does.

use crate::{Layout, PackedInts, QuantParams, Span, round_half_even};

/// Elements rounded at a time: a multiple of 8, small enough for the first-level cache.
const BLOCK: usize = 2048;

/// Appends `round(x / scale) + zero_point`, saturated to `low ..= high`, for every value.
pub fn nearest(
    values: &[f32],
    layout: &Layout,
    params: &QuantParams,
    bounds: (i16, i16),
    packed: &mut PackedInts,
) {
    for_each_block(values, layout, params, bounds, |_, _, codes| packed.extend(codes));
}

/// Calls `visit` with the integers that [`nearest`] appends, block by block: where the block
/// begins, its parameters, and the integers.
pub(crate) fn for_each_block(
    values: &[f32],
    layout: &Layout,
    params: &QuantParams,
    (low, high): (i16, i16),
    mut visit: impl FnMut(usize, Span, &[i16]),
) {
    let mut codes = [0i16; BLOCK];
    layout.for_each_run(|run, span| {
        for start in run.clone().step_by(BLOCK) {
            let end = (start + BLOCK).min(run.end);
            let codes = &mut codes[..end - start];
            let block = codes.iter_mut().zip(&values[start..end]);
            match span {
                Span::One(param) => {
                    let (scale, zero_point) =
                        (params.scale[param], f32::from(params.zero_point_of(param)));
                    for (code, &x) in block {
                        *code = code_of(x, scale, zero_point, low, high);
                    }
                }
                Span::Each(first) => {
                    let first = first + (start - run.start);
                    let scales = &params.scale[first..first + (end - start)];
                    if params.zero_point.is_empty() {
                        for ((code, &x), &scale) in block.zip(scales) {
                            *code = code_of(x, scale, 0.0, low, high);
                        }
                    } else {
                        let zero_points = &params.zero_point[first..first + (end - start)];
                        for (((code, &x), &scale), &zero_point) in
                            block.zip(scales).zip(zero_points)
                        {
                            *code = code_of(x, scale, f32::from(zero_point), low, high);
                        }
                    }
                }
            }
            let span = match span {
                Span::One(param) => Span::One(param),
                Span::Each(first) => Span::Each(first + (start - run.start)),
            };
            visit(start, span, codes);
        }
    });
}

/// One element. Saturating before rounding gives the same as after, and keeps the argument in
/// the domain of [`round_half_even`]; the zero point is added after rounding, as ONNX says.
#[inline]
fn code_of(x: f32, scale: f32, zero_point: f32, low: i16, high: i16) -> i16 {
    let scaled = (x / scale).clamp(f32::from(low) - zero_point, f32::from(high) - zero_point);
    (round_half_even(scaled) + zero_point) as i32 as i16
}
