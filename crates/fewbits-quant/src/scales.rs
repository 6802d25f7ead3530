//! Scales that are themselves quantized.
//!
//! What a tensor then holds beside its numbers are codes of its scales and the scales of those: a
//! [`QTensor`] in turn.

use crate::float::{exponent_of, power_of_code};
use crate::params::halve;
use crate::{
    Encoding, FloatFormat, Granularity, Layout, PackedInts, QTensor, QuantParams, ScaleType,
    round_half_even,
};

/// Scales that share one of their own, at most: the block size of Dettmers et al. 2023.
const SHARING: usize = 256;
/// The fewest that are worth it where the number of scales has no larger divisor.
const LEAST_SHARING: usize = 64;

impl QTensor {
    /// Stores the scales in this type; those that are quantized already stay. What rounding a scale moves is
    /// far below what rounding the values did: by 16 bits at most a sixteenth of a step for 8-bit integers,
    /// by 8 bits at most a 34th of a step of the widest group for 4-bit ones.
    pub fn with_scales(mut self, scale_type: ScaleType) -> QTensor {
        match scale_type {
            _ if self.coded_scales.is_some() => {}
            ScaleType::F32 => {}
            ScaleType::F16 => halve(&mut self.params.scale),
            ScaleType::U8 => {
                let coded = double(&self.params.scale);
                self.params.scale = coded.dequantize();
                self.coded_scales = Some(Box::new(coded));
            }
        }
        self
    }
}

/// Double quantization: scales as integers of 8 bits with a scale of their own for each block.
///
/// Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3: the scales of a
/// first quantization are the input of a second one of 8 bits in blocks of 256. What differs here: the
/// integers go from 1 to 255 without a mean taken off, so that one product widens them; blocks are
/// equal, of the largest divisor of the number of scales up to 256, so that it broadcasts.
pub(crate) fn double(scales: &[f32]) -> QTensor {
    let sharing = match scales.len() {
        count @ 0..=SHARING => count.max(1),
        count => {
            (LEAST_SHARING..=SHARING).rev().find(|d| count.is_multiple_of(*d)).unwrap_or(count)
        }
    };
    let mut codes = Vec::with_capacity(scales.len());
    let mut steps = Vec::new();
    for block in scales.chunks(sharing) {
        let largest = block.iter().fold(0f32, |largest, &s| largest.max(s));
        let step = (largest / 255.0).max(f32::MIN_POSITIVE);
        // A scale is never zero.
        codes.extend(block.iter().map(|s| round_half_even((s / step).clamp(1.0, 255.0)) as i16));
        steps.push(step);
    }
    let shape = [steps.len(), sharing];
    let layout = Layout::new(&shape, Granularity::Channel { axis: 0 }).expect("it has an axis 0");
    let params = QuantParams { scale: steps, zero_point: Vec::new() };
    of(layout, params, PackedInts::pack(&codes, 8, Encoding::Unsigned))
}

/// Powers of two for blocks of these ranges: `X = 2^(floor(log2(max |V|)) - emax)` of the OCP
/// Microscaling specification v1.0, section 6.3; 1 where everything is zero.
pub(crate) fn powers(ranges: &[(f32, f32)], shape: &[usize], format: FloatFormat) -> QTensor {
    let code = |&range: &(f32, f32)| match magnitude(range) {
        0.0 => 127,
        most => {
            // No subnormal scale: dividing by one overflows.
            let exponent = (exponent_of(most) - format.largest_exponent()).max(-126);
            (exponent + 127) as i16
        }
    };
    let codes: Vec<i16> = ranges.iter().map(code).collect();
    shared(shape, PackedInts::pack(&codes, 8, Encoding::Exponent), 1.0)
}

/// E4M3 scales for blocks of these ranges, with one scale of their own.
///
/// NVIDIA 2025, "Pretraining Large Language Models with NVFP4", the appendix on its quantization
/// procedure: the scale of the tensor maps its largest magnitude to `6 * 448`, that of a block its own to
/// 6, in E4M3.
pub(crate) fn small_floats(ranges: &[(f32, f32)], shape: &[usize]) -> QTensor {
    let (element, scale) = (FloatFormat::E2m1.largest(), FloatFormat::E4m3);
    let most = ranges.iter().fold(0f32, |most, &range| most.max(magnitude(range)));
    let of_tensor = match most {
        0.0 => 1.0,
        // The smallest product of both is a normal number, too.
        most => (most / (element * scale.largest())).max(f32::MIN_POSITIVE / scale.smallest()),
    };
    let code = |&range: &(f32, f32)| {
        let of_block = magnitude(range) / element / of_tensor;
        i16::from(scale.encode(of_block.max(scale.smallest())))
    };
    let codes: Vec<i16> = ranges.iter().map(code).collect();
    shared(shape, PackedInts::pack(&codes, 8, Encoding::Float(scale)), of_tensor)
}

fn magnitude((low, high): (f32, f32)) -> f32 {
    low.abs().max(high.abs())
}

/// Codes with one scale.
fn shared(shape: &[usize], codes: PackedInts, scale: f32) -> QTensor {
    let layout = Layout::new(shape, Granularity::Tensor).expect("it names no axis");
    of(layout, QuantParams { scale: vec![scale], zero_point: Vec::new() }, codes)
}

fn of(layout: Layout, params: QuantParams, codes: PackedInts) -> QTensor {
    QTensor::new(layout, params, codes).expect("as many codes as scales")
}

impl Encoding {
    /// What every code of so many bits stands for, where codes are floats.
    pub fn floats(self) -> Option<Vec<f32>> {
        match self {
            Encoding::Float(format) => {
                let codes = 0..1u16 << format.bits().get();
                Some(codes.map(|code| format.decode(code as u8)).collect())
            }
            Encoding::Exponent => Some((0..=255).map(power_of_code).collect()),
            Encoding::Unsigned | Encoding::TwosComplement | Encoding::Sign => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::power_of_two;
    use proptest::prelude::*;

    #[test]
    fn blocks_of_scales_are_equal() {
        for (count, blocks) in [(1, 1), (100, 1), (256, 1), (300, 2), (512, 2), (600, 3), (257, 1)]
        {
            let coded = double(&vec![0.5; count]);
            assert_eq!(coded.layout().shape(), [blocks, count / blocks]);
            assert_eq!(coded.layout().params(), blocks);
        }
    }

    #[test]
    fn scales_of_zeros_are_usable() {
        for scales in [
            double(&[f32::MIN_POSITIVE; 3]),
            powers(&[(0.0, 0.0)], &[1, 1], FloatFormat::E4m3),
            powers(&[(0.0, 1e-44)], &[1, 1], FloatFormat::E5m2),
            small_floats(&[(0.0, 0.0)], &[1, 1]),
            small_floats(&[(0.0, 0.0), (-1e-36, 0.0)], &[2, 1]),
        ] {
            assert!(scales.dequantize().iter().all(|s| s.is_normal() && *s > 0.0), "{scales:?}");
        }
    }

    #[test]
    fn powers_are_those_of_the_specification() {
        let scales =
            |format: FloatFormat, most: f32| powers(&[(-most, 0.0)], &[1], format).dequantize()[0];
        assert_eq!(scales(FloatFormat::E4m3, 1.0), 2f32.powi(-8));
        assert_eq!(scales(FloatFormat::E4m3, 1.99), 2f32.powi(-8));
        assert_eq!(scales(FloatFormat::E5m2, 2.0), 2f32.powi(-14));
        assert_eq!(scales(FloatFormat::E2m1, 0.3), 2f32.powi(-4));
        assert_eq!(power_of_two(-4), 2f32.powi(-4));
    }

    proptest! {
        #[test]
        fn double_quantization_errs_by_half_a_step(scales in prop::collection::vec(1e-4f32..2.0, 1..700)) {
            let coded = double(&scales);
            let (most, read) = (scales.iter().fold(0f32, |m, &s| m.max(s)), coded.dequantize());
            for (s, r) in scales.iter().zip(read) {
                // The smallest code is 1.
                prop_assert!(r > 0.0 && (s - r).abs() <= most / 255.0 * 1.0001, "{s} became {r}");
                prop_assert!(*s < most / 255.0 || (s - r).abs() <= most / 510.0 * 1.0001, "{s} became {r}");
            }
        }

        #[test]
        fn block_scales_of_nvfp4_cover_their_block(ranges in prop::collection::vec(1e-3f32..3.0, 1..40)) {
            let scales = small_floats(&ranges.iter().map(|&r| (-r, r)).collect::<Vec<_>>(), &[ranges.len()]);
            let most = ranges.iter().fold(0f32, |m, &r| m.max(r));
            for (r, s) in ranges.iter().zip(scales.dequantize()) {
                // A 16th is half a step of a mantissa of 3 bits; below 2^-6 steps are absolute.
                prop_assert!((6.0 * s - r).abs() <= (r / 16.0).max(most / 448.0 / 1024.0) * 1.001, "{r}: {s}");
            }
        }
    }
}
