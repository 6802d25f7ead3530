//! From floats to a [`QTensor`], rounding to nearest.

mod on_inputs;

pub use on_inputs::quantize_on;

use crate::params::{affine_max, symmetric_max, symmetric_scale};
use crate::rounding::{nearest, nearest_float, sign};
use crate::{
    Encoding, FloatFormat, FractionBits, Importance, Layout, Levels, PackedInts, QTensor,
    QuantError, QuantParams, Result, Scheme, Span, WeightRange, range, round_half_even, scales,
};

/// Quantizes `values`, a row-major tensor of `shape`, over their whole range, rounding to nearest.
///
/// # Errors
/// If a value is not finite, the length is not that of the shape, the scheme names an axis that
/// is not there, or a fixed-point integer needs more than 16 bits.
pub fn quantize(values: &[f32], shape: &[usize], scheme: Scheme) -> Result<QTensor> {
    quantize_by(values, shape, scheme, WeightRange::MinMax, Importance::Equal)
}

/// Quantizes `values` as [`quantize`] does, over ranges found by `range`: by [`WeightRange::Mse`]
/// errors count by their importance. One bit, fixed point and small floats have no range to be found.
///
/// # Errors
/// Those of [`quantize`], and if the importance is not that of a tensor of this shape.
pub fn quantize_by(
    values: &[f32],
    shape: &[usize],
    scheme: Scheme,
    range: WeightRange,
    importance: Importance,
) -> Result<QTensor> {
    let layout = check(values, shape, scheme)?;
    if is_sign(scheme) {
        let (params, codes) = (sign::params(values, &layout), sign::signs(values));
        return Ok(QTensor { layout, params, codes, coded_scales: None });
    }
    if let Some(format) = scheme.float_format() {
        let scales = FloatScales::of(&range::minmax::ranges(values, &layout), &layout, scheme);
        let params = QuantParams { scale: scales.floats(), zero_point: Vec::new() };
        let codes = nearest_float::nearest(values, &layout, &params.scale, format);
        return Ok(QTensor { layout, params, codes, coded_scales: scales.coded() });
    }
    let ranges = match range {
        WeightRange::MinMax => range::minmax::ranges(values, &layout),
        WeightRange::Mse => match levels(scheme) {
            Some(levels) => {
                let importance = importance.of_elements(values.len())?;
                range::weights::ranges(values, &layout, levels, &importance)
            }
            None => Vec::new(),
        },
    };
    rounded(values, layout, scheme, &ranges)
}

/// Quantizes `values` as [`quantize`] does, but over one range that is given: that of an activation.
/// What lies outside is saturated. One bit, fixed point and small floats have no range.
///
/// # Errors
/// Those of [`quantize`].
pub fn quantize_within(
    values: &[f32],
    shape: &[usize],
    scheme: Scheme,
    range: (f32, f32),
) -> Result<QTensor> {
    let layout = check(values, shape, scheme)?;
    if is_sign(scheme) || scheme.float_format().is_some() {
        return quantize(values, shape, scheme);
    }
    let ranges = vec![range; layout.params()];
    rounded(values, layout, scheme, &ranges)
}

fn rounded(
    values: &[f32],
    layout: Layout,
    scheme: Scheme,
    ranges: &[(f32, f32)],
) -> Result<QTensor> {
    let Integers { params, bounds, width, encoding } = Integers::of(values, ranges, scheme)?;
    let mut codes = PackedInts::with_capacity(values.len(), width, encoding);
    nearest::nearest(values, &layout, &params, bounds, &mut codes);
    Ok(QTensor { layout, params, codes, coded_scales: None })
}

/// The scales of small floats.
enum FloatScales {
    Plain(Vec<f32>),
    Coded(QTensor),
}

impl FloatScales {
    fn of(ranges: &[(f32, f32)], layout: &Layout, scheme: Scheme) -> FloatScales {
        match scheme {
            Scheme::Mx { format, .. } => {
                FloatScales::Coded(scales::powers(ranges, &layout.param_shape(), format))
            }
            Scheme::NvFp4 { .. } => {
                FloatScales::Coded(scales::small_floats(ranges, &layout.param_shape()))
            }
            _ => {
                let largest = scheme.float_format().map_or(1.0, FloatFormat::largest);
                let scale = |&range: &(f32, f32)| symmetric_scale(range, largest);
                FloatScales::Plain(ranges.iter().map(scale).collect())
            }
        }
    }

    fn floats(&self) -> Vec<f32> {
        match self {
            FloatScales::Plain(scales) => scales.clone(),
            FloatScales::Coded(coded) => coded.dequantize(),
        }
    }

    fn coded(self) -> Option<Box<QTensor>> {
        match self {
            FloatScales::Plain(_) => None,
            FloatScales::Coded(coded) => Some(Box::new(coded)),
        }
    }
}

/// The signal to quantization noise of what [`quantize`] would make of `values`, in decibels, in
/// little memory; `None` where either is zero.
///
/// # Errors
/// Those of [`quantize`].
pub fn sqnr_db(values: &[f32], shape: &[usize], scheme: Scheme) -> Result<Option<f32>> {
    let layout = check(values, shape, scheme)?;
    let signal: f64 = values.chunks(SUMMED).map(|part| squares(part.iter().copied())).sum();
    let mut noise = 0f64;
    if is_sign(scheme) {
        let params = sign::params(values, &layout);
        layout.for_each_run(|run, span| {
            let rest = values[run].iter().enumerate();
            noise += squares(rest.map(|(i, &x)| x - params.scale[span.param(i)].copysign(x)));
        });
    } else if let Some(format) = scheme.float_format() {
        let ranges = range::minmax::ranges(values, &layout);
        let scale = FloatScales::of(&ranges, &layout, scheme).floats();
        layout.for_each_run(|run, span| {
            let rest = values[run].iter().enumerate();
            noise += squares(rest.map(|(i, &x)| {
                let scale = scale[span.param(i)];
                x - format.decode(format.encode(x / scale)) * scale
            }));
        });
    } else {
        let ranges = range::minmax::ranges(values, &layout);
        let Integers { params, bounds, .. } = Integers::of(values, &ranges, scheme)?;
        nearest::for_each_block(values, &layout, &params, bounds, |start, span, codes| {
            let block = codes.iter().zip(&values[start..]);
            noise += match span {
                Span::One(param) => {
                    let (scale, zero_point) = (params.scale[param], params.zero_point_of(param));
                    squares(block.map(|(&code, &x)| x - f32::from(code - zero_point) * scale))
                }
                Span::Each(first) if params.zero_point.is_empty() => {
                    let block = block.zip(&params.scale[first..]);
                    squares(block.map(|((&code, &x), &scale)| x - f32::from(code) * scale))
                }
                Span::Each(first) => squares(block.zip(first..).map(|((&code, &x), param)| {
                    x - f32::from(code - params.zero_point_of(param)) * params.scale[param]
                })),
            };
        });
    }
    Ok((signal > 0.0 && noise > 0.0).then(|| (10.0 * (signal / noise).log10()) as f32))
}

/// Elements whose squares are summed in f32 before the sum is: enough to be fast, few enough to be
/// exact to six digits.
const SUMMED: usize = 2048;

/// The sum of squares in 16 lanes: a single sum is one long dependency.
fn squares(values: impl Iterator<Item = f32>) -> f64 {
    let mut lanes = [0f32; 16];
    for (i, x) in values.enumerate() {
        lanes[i % 16] += x * x;
    }
    lanes.iter().map(|&sum| f64::from(sum)).sum()
}

fn is_sign(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Symmetric { bits, .. } if bits.get() == 1)
}

/// The integers that a range is to be covered by; `None` where the scheme knows its scale.
fn levels(scheme: Scheme) -> Option<Levels> {
    match scheme {
        Scheme::Symmetric { bits, .. } => Some(Levels::Symmetric(symmetric_max(bits) as u16)),
        Scheme::Affine { bits, .. } => Some(Levels::Affine(affine_max(bits) as u16)),
        Scheme::FixedPoint { .. }
        | Scheme::Float { .. }
        | Scheme::Mx { .. }
        | Scheme::NvFp4 { .. } => None,
    }
}

/// How the values of a tensor become integers by rounding.
struct Integers {
    params: QuantParams,
    bounds: (i16, i16),
    width: u8,
    encoding: Encoding,
}

impl Integers {
    fn of(values: &[f32], ranges: &[(f32, f32)], scheme: Scheme) -> Result<Integers> {
        Ok(match scheme {
            Scheme::Symmetric { bits, .. } => {
                let max = symmetric_max(bits);
                Integers {
                    params: QuantParams::symmetric(ranges, bits),
                    bounds: (-max, max),
                    width: bits.get(),
                    encoding: Encoding::TwosComplement,
                }
            }
            Scheme::Affine { bits, .. } => Integers {
                params: QuantParams::affine(ranges, bits),
                bounds: (0, affine_max(bits)),
                width: bits.get(),
                encoding: Encoding::Unsigned,
            },
            Scheme::FixedPoint { fraction_bits } => Integers {
                params: QuantParams {
                    scale: vec![fixed_point_scale(fraction_bits)],
                    zero_point: Vec::new(),
                },
                bounds: (i16::MIN, i16::MAX),
                width: fixed_point_width(values, fraction_bits)?,
                encoding: Encoding::TwosComplement,
            },
            Scheme::Float { .. } | Scheme::Mx { .. } | Scheme::NvFp4 { .. } => {
                unreachable!("small floats are no integers")
            }
        })
    }
}

/// Whether [`quantize`] would succeed; the layout if so.
///
/// # Errors
/// Those of [`quantize`].
pub fn check(values: &[f32], shape: &[usize], scheme: Scheme) -> Result<Layout> {
    let layout = Layout::new(shape, scheme.granularity())?;
    if layout.elements() != values.len() {
        return Err(QuantError::Length { shape: shape.to_vec(), values: values.len() });
    }
    if let Some(index) = first_not_finite(values) {
        return Err(QuantError::NotFinite { index, value: values[index] });
    }
    if let Scheme::FixedPoint { fraction_bits } = scheme {
        fixed_point_width(values, fraction_bits)?;
    }
    Ok(layout)
}

fn first_not_finite(values: &[f32]) -> Option<usize> {
    // Blocks first: the common case, all finite, needs no early exit inside the vector loop.
    let block = values.chunks(4096).position(|b| b.iter().any(|x| !x.is_finite()))?;
    let start = block * 4096;
    values[start..].iter().position(|x| !x.is_finite()).map(|i| start + i)
}

/// What fixed-point integers of `values` stand for, whatever bits they need: `round(x * 2^f) / 2^f`, half to
/// even.
pub fn fixed_point_floats(values: &[f32], fraction_bits: FractionBits) -> Vec<f32> {
    let scale = fixed_point_scale(fraction_bits);
    let round = |&x: &f32| {
        let scaled = x / scale;
        // What is too large to be scaled has no digits after the point.
        if scaled.is_finite() { scaled.round_ties_even() * scale } else { x }
    };
    values.iter().map(round).collect()
}

fn fixed_point_scale(fraction_bits: FractionBits) -> f32 {
    0.5f32.powi(i32::from(fraction_bits.get()))
}

/// Bits that the fixed-point integers of `values` need, the sign included.
fn fixed_point_width(values: &[f32], fraction_bits: FractionBits) -> Result<u8> {
    let scale = fixed_point_scale(fraction_bits);
    let (low, high) = values.iter().fold((0f32, 0f32), |(l, h), &x| (l.min(x), h.max(x)));
    let (low, high) = (low / scale, high / scale);
    // Rounding may carry: 32767.5 goes to 32768.
    if low < -32768.5 || high >= 32767.5 {
        let value = (if -low > high { low } else { high }) * scale;
        return Err(QuantError::FixedPointOverflow { value, fraction_bits: fraction_bits.get() });
    }
    let (low, high) = (round_half_even(low) as i32, round_half_even(high) as i32);
    // A negative integer n needs as many digits as -(n + 1) = !n.
    let digits = 32 - (!low.min(-1)).max(high).leading_zeros();
    Ok(digits as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bits, Granularity};
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    const TENSOR: Granularity = Granularity::Tensor;

    fn bits(n: u8) -> Bits {
        Bits::new(n).unwrap()
    }

    fn symmetric(n: u8) -> Scheme {
        Scheme::Symmetric { bits: bits(n), granularity: TENSOR }
    }

    fn affine(n: u8) -> Scheme {
        Scheme::Affine { bits: bits(n), granularity: TENSOR }
    }

    #[test]
    fn symmetric_integers_are_as_written_in_the_papers() {
        let q = quantize(&[-1.27, 0.635, 0.0, 1.27], &[4], symmetric(8)).unwrap();
        assert_eq!(q.codes().unpack(), [-127, 64, 0, 127]);
    }

    #[test]
    fn one_bit_is_the_sign_with_the_mean_magnitude() {
        let q = quantize(&[-1.0, 2.0, 0.0, 3.0], &[4], symmetric(1)).unwrap();
        assert_eq!(q.params().scale, [1.5]);
        assert_eq!(q.dequantize(), [-1.5, 1.5, 1.5, 1.5]);
    }

    #[test]
    fn the_notebooks_rule_needs_the_bits_that_its_integers_imply() {
        let fixed = Scheme::FixedPoint { fraction_bits: FractionBits::EIGHT };
        let q = quantize(&[1.601_612_4, -0.758_585_5], &[2], fixed).unwrap();
        assert_eq!(q.codes().unpack(), [410, -194]);
        assert_eq!(q.codes().width(), 10);
        assert_eq!(q.dequantize(), [410.0 / 256.0, -194.0 / 256.0]);
        assert!(matches!(
            quantize(&[128.0], &[1], fixed),
            Err(QuantError::FixedPointOverflow { .. })
        ));
        assert_eq!(quantize(&[-128.0], &[1], fixed).unwrap().codes().width(), 16);
        assert_eq!(quantize(&[0.0, 0.001], &[2], fixed).unwrap().codes().width(), 1);
    }

    #[test]
    fn zero_constant_and_empty_tensors_have_an_answer() {
        for scheme in [
            symmetric(8),
            symmetric(3),
            affine(8),
            affine(1),
            Scheme::FixedPoint { fraction_bits: FractionBits::new(4).unwrap() },
        ] {
            assert_eq!(
                quantize(&[0.0; 5], &[5], scheme).unwrap().dequantize(),
                [0.0; 5],
                "{scheme}"
            );
            assert_eq!(quantize(&[], &[0, 3], scheme).unwrap().dequantize(), [0f32; 0], "{scheme}");
        }
        // One bit cannot say zero; it comes as near as a normal number does.
        let zeros = quantize(&[0.0; 5], &[5], symmetric(1)).unwrap().dequantize();
        assert_eq!(zeros, [f32::MIN_POSITIVE; 5]);
        for scheme in [symmetric(8), symmetric(2), symmetric(1), affine(8), affine(1)] {
            let constant = quantize(&[-0.3; 4], &[4], scheme).unwrap().dequantize();
            assert!(constant.iter().all(|x| (x + 0.3).abs() < 1e-6), "{scheme}: {constant:?}");
        }
    }

    #[test]
    fn what_lies_outside_of_a_given_range_is_saturated() {
        let values = [-3.0, -0.5, 0.0, 0.26, 9.0];
        let within = |scheme| quantize_within(&values, &[5], scheme, (-1.0, 1.0)).unwrap();
        assert_eq!(within(symmetric(3)).codes().unpack(), [-3, -2, 0, 1, 3]);
        assert_eq!(within(affine(2)).codes().unpack(), [0, 1, 2, 2, 3]);
        let whole = quantize(&values, &[5], symmetric(8)).unwrap();
        assert_eq!(quantize_within(&values, &[5], symmetric(8), (-3.0, 9.0)).unwrap(), whole);
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 5000];
            values[4500] = bad;
            for scheme in [symmetric(8), symmetric(1), affine(4)] {
                let error = quantize(&values, &[5000], scheme).unwrap_err();
                assert!(matches!(error, QuantError::NotFinite { index: 4500, .. }), "{error}");
            }
        }
    }

    #[test]
    fn lengths_must_fit() {
        assert!(matches!(quantize(&[1.0], &[2], symmetric(8)), Err(QuantError::Length { .. })));
    }

    fn granularity(kind: usize, axis: usize, size: usize) -> Granularity {
        match kind {
            0 => Granularity::Tensor,
            1 => Granularity::Channel { axis },
            _ => Granularity::Group { axis, size: NonZeroUsize::new(size).unwrap() },
        }
    }

    proptest! {
        #[test]
        fn the_noise_is_that_of_the_integers(
            values in prop::collection::vec(-4f32..4.0, 24), bits in 1u8..=8, affine in any::<bool>(), kind in 0usize..4,
        ) {
            let size = NonZeroUsize::new(3).unwrap();
            let granularity = [
                Granularity::Tensor,
                Granularity::Channel { axis: 0 },
                Granularity::Channel { axis: 1 },
                Granularity::Group { axis: 1, size },
            ][kind];
            let bits = Bits::new(bits).unwrap();
            let scheme = match affine {
                true => Scheme::Affine { bits, granularity },
                false => Scheme::Symmetric { bits, granularity },
            };
            let rounded = quantize(&values, &[4, 6], scheme).unwrap().dequantize();
            let square = |x: f64| x * x;
            let signal: f64 = values.iter().map(|&x| square(f64::from(x))).sum();
            let noise: f64 =
                values.iter().zip(&rounded).map(|(&x, &r)| square(f64::from(x) - f64::from(r))).sum();
            let given = sqnr_db(&values, &[4, 6], scheme).unwrap();
            match given {
                Some(db) => prop_assert!((f64::from(db) - 10.0 * (signal / noise).log10()).abs() < 1e-3),
                None => prop_assert!(noise == 0.0 || signal == 0.0),
            }
        }

        #[test]
        fn the_error_is_at_most_half_a_step(
            values in prop::collection::vec(-100f32..100.0, 24), width in 2u8..=8, kind in 0usize..3,
            axis in 0usize..3, size in 1usize..5, is_affine in any::<bool>(),
        ) {
            let granularity = granularity(kind, axis, size);
            let scheme = if is_affine {
                Scheme::Affine { bits: bits(width), granularity }
            } else {
                Scheme::Symmetric { bits: bits(width), granularity }
            };
            let q = quantize(&values, &[2, 3, 4], scheme).unwrap();
            let restored = q.dequantize();
            for (row, wanted) in restored.chunks(12).enumerate() {
                let mut values = [0.0; 12];
                q.dequantize_row(row, &mut values);
                prop_assert_eq!(wanted, &values);
            }
            q.layout().for_each_run(|run, span| for (i, e) in run.enumerate() {
                let param = match span { Span::One(p) => p, Span::Each(p) => p + i };
                // An affine zero point is rounded too, so its range may miss an end by half a step.
                let allowed = q.params().scale[param] * if is_affine { 1.0001 } else { 0.5001 };
                assert!((restored[e] - values[e]).abs() <= allowed, "{} became {}", values[e], restored[e]);
            });
        }

        #[test]
        fn quantizing_what_was_quantized_changes_nothing(
            values in prop::collection::vec(-100f32..100.0, 1..40), width in 2u8..=8,
        ) {
            let shape = [values.len()];
            let once = quantize(&values, &shape, symmetric(width)).unwrap();
            let twice = quantize(&once.dequantize(), &shape, symmetric(width)).unwrap();
            prop_assert_eq!(once.codes().unpack(), twice.codes().unpack());
        }

        #[test]
        fn fixed_point_is_the_notebooks_formula(values in prop::collection::vec(-1f32..0.999, 1..40), f in 1u8..=15) {
            // As large as 16 bits hold, or 30.
            let values: Vec<f32> = values.iter().map(|x| x * 30f32.min(f32::from(1u16 << (15 - f)))).collect();
            let fixed = Scheme::FixedPoint { fraction_bits: FractionBits::new(f).unwrap() };
            let q = quantize(&values, &[values.len()], fixed).unwrap();
            let power = f64::from(1u32 << f);
            let expected: Vec<f32> =
                values.iter().map(|&x| ((f64::from(x) * power).round_ties_even() / power) as f32).collect();
            prop_assert_eq!(q.dequantize(), expected);
        }

        #[test]
        fn fixed_point_floats_are_the_formula_of_any_magnitude(
            mantissas in prop::collection::vec(-1f32..1.0, 1..40), exponent in -20i32..127, f in 1u8..=15,
        ) {
            let values: Vec<f32> = mantissas.iter().map(|m| m * 2f32.powi(exponent)).collect();
            let power = f64::from(1u32 << f);
            let expected: Vec<f32> =
                values.iter().map(|&x| ((f64::from(x) * power).round_ties_even() / power) as f32).collect();
            prop_assert_eq!(fixed_point_floats(&values, FractionBits::new(f).unwrap()), expected);
        }
    }
}
