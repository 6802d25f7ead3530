//! Operators on elements: sums, products, and a change of scale.

use serde::{Deserialize, Serialize};

use super::quantize::{QuantizeTo, real};
use crate::cpu::per_cpu;
use crate::exact_f32;

/// What the bytes of two operands and of their sum or product stand for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddScales {
    /// The scale of the first operand.
    #[serde(with = "exact_f32")]
    pub a_scale: f32,
    /// Its zero point.
    pub a_zero_point: u8,
    /// The scale of the second operand.
    #[serde(with = "exact_f32")]
    pub b_scale: f32,
    /// Its zero point.
    pub b_zero_point: u8,
    /// How the result becomes bytes.
    pub to: QuantizeTo,
}

macro_rules! binary {
    ($(#[$meta:meta])* $name:ident, $operator:tt) => {
        per_cpu! {
            $(#[$meta])*
            ///
            /// The float operations are those of DequantizeLinear, this operator and
            /// QuantizeLinear, one rounding each, so the bytes are those of onnxruntime when it runs
            /// that graph as it stands. Its fused operator rounds otherwise and may be one step off.
            ///
            /// # Panics
            /// If the lengths differ.
            pub fn $name(a: &[u8], b: &[u8], scales: AddScales, out: &mut [u8]) {
                assert_eq!((a.len(), b.len()), (out.len(), out.len()));
                let rounding = scales.to.rounding();
                for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    let a = real(a, scales.a_scale, scales.a_zero_point);
                    let b = real(b, scales.b_scale, scales.b_zero_point);
                    *out = rounding.byte((a $operator b) / scales.to.scale);
                }
            }
        }
    };
}

binary! {
    /// Computes the sums of the elements of `a` and `b`, all of one length.
    add, +
}

binary! {
    /// Computes the products of the elements of `a` and `b`, all of one length.
    mul, *
}

per_cpu! {
    /// Makes bytes of one scale and zero point bytes of another, as DequantizeLinear and
    /// QuantizeLinear make them: what a Concat needs whose operands differ.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn requantize(
        input: &[u8], from_scale: f32, from_zero_point: u8, to: QuantizeTo, out: &mut [u8],
    ) {
        // Not a table: vectors that compute are faster than bytes looked up one at a time.
        assert_eq!(input.len(), out.len());
        let rounding = to.rounding();
        for (out, &q) in out.iter_mut().zip(input) {
            *out = rounding.byte(real(q, from_scale, from_zero_point) / to.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use crate::bytes::{dequantize, quantize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_those_of_the_float_graph(
            pairs in prop::collection::vec(any::<(u8, u8)>(), 0..150),
            (a_scale, b_scale, scale) in (1e-3f32..1.0, 1e-3f32..1.0, 1e-3f32..1.0),
            (a_zero_point, b_zero_point, zero_point, low) in any::<(u8, u8, u8, u8)>(),
        ) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let to = QuantizeTo { scale, zero_point, low, high: low.saturating_add(99) };
            let scales = AddScales { a_scale, a_zero_point, b_scale, b_zero_point, to };
            let floats = |bytes: &[u8], scale, zero_point| {
                let mut floats = vec![0.0; bytes.len()];
                dequantize(Cpu::SCALAR, bytes, scale, zero_point, &mut floats);
                floats
            };
            let (x, y) = (floats(&a, a_scale, a_zero_point), floats(&b, b_scale, b_zero_point));
            let wanted = |f: fn(f32, f32) -> f32| {
                let floats: Vec<f32> = x.iter().zip(&y).map(|(&x, &y)| f(x, y)).collect();
                let mut bytes = vec![0; floats.len()];
                quantize(Cpu::SCALAR, &floats, to, &mut bytes);
                bytes
            };
            for cpu in Cpu::available() {
                let mut out = vec![0; a.len()];
                add(cpu, &a, &b, scales, &mut out);
                prop_assert_eq!(&out, &wanted(|x, y| x + y));
                mul(cpu, &a, &b, scales, &mut out);
                prop_assert_eq!(&out, &wanted(|x, y| x * y));
                requantize(cpu, &a, a_scale, a_zero_point, to, &mut out);
                prop_assert_eq!(&out, &wanted(|x, _| x));
            }
        }
    }
}
