//! Numbers of 32 bits in files, for `#[serde(with = "exact_f32")]`: what is read is what was written.
//!
//! JSON has neither infinities nor NaN, and most of its readers know numbers of 64 bits only. So a finite
//! number is written as one that has the same bits read by way of 64, and the others are the strings
//! `"inf"`, `"-inf"` and `"nan"`. Every NaN is the same one: no kernel promises its payload.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a number.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    let value = *value;
    if !serializer.is_human_readable() {
        serializer.serialize_f32(value)
    } else if value.is_nan() {
        serializer.serialize_str("nan")
    } else if value.is_infinite() {
        serializer.serialize_str(if value > 0.0 { "inf" } else { "-inf" })
    } else if survives_64_bits(value) {
        serializer.serialize_f32(value)
    } else {
        serializer.serialize_f64(f64::from(value))
    }
}

/// Reads a number.
///
/// # Errors
/// Those of the deserializer, and if there is neither a number within the range of 32 bits nor one of the
/// three strings.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(NumberOrName)
    } else {
        f32::deserialize(deserializer)
    }
}

/// Whether the shortest digits of a finite number, rounded to 64 bits, still round to it. Those of a few
/// numbers, such as 7.038531e-26, do not: they become the middle between two.
fn survives_64_bits(value: f32) -> bool {
    value.to_string().parse::<f64>().is_ok_and(|read| read as f32 == value)
}

/// Takes a number, or the name of one that JSON lacks.
struct NumberOrName;

impl Visitor<'_> for NumberOrName {
    type Value = f32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of 32 bits, \"inf\", \"-inf\" or \"nan\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f32, E> {
        let rounded = value as f32;
        if rounded.is_finite() {
            Ok(rounded)
        } else {
            Err(E::invalid_value(Unexpected::Float(value), &self))
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f32, E> {
        Ok(value as f32)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f32, E> {
        Ok(value as f32)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<f32, E> {
        match name {
            "inf" => Ok(f32::INFINITY),
            "-inf" => Ok(f32::NEG_INFINITY),
            "nan" => Ok(f32::NAN),
            _ => Err(E::invalid_value(Unexpected::Str(name), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::bytes::{AddScales, Averaging, Divisor, ImagePooling, QuantizeTo, Window};
    use crate::float::{Binary, Dims, Function, Pooling};
    use crate::gemm::{Grid, RowStrides};
    use crate::{Halo, ImageLayout, Level};
    use proptest::prelude::*;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    #[derive(Serialize, Deserialize)]
    struct Number(#[serde(with = "super")] f32);

    /// What comes back of `value`, from text and from a value that holds numbers of 64 bits.
    fn read_again(value: f32) -> [f32; 2] {
        let text = serde_json::to_string(&Number(value)).unwrap();
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        let [Number(a), Number(b)] =
            [serde_json::from_str(&text).unwrap(), serde_json::from_value(tree).unwrap()];
        [a, b]
    }

    fn assert_comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    }

    #[test]
    fn numbers_are_written_in_few_digits_and_others_by_name() {
        let text = |value| serde_json::to_string(&Number(value)).unwrap();
        let wanted = ["0.1", "-0.0", "\"inf\"", "\"-inf\"", "\"nan\""];
        assert_eq!([0.1, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN].map(text), wanted);
        for text in ["\"infinity\"", "1e39", "null", "[1]"] {
            assert!(serde_json::from_str::<Number>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Number>("-3").unwrap().0, -3.0);
    }

    #[test]
    fn extremes_come_back() {
        // The shortest digits of the last one are no good by way of 64 bits.
        for value in
            [0.0, f32::MIN, f32::MAX, f32::MIN_POSITIVE, 1e-45, 7.038531e-26, -7.038531e-26]
        {
            for value in [value, -value] {
                assert_eq!(read_again(value).map(f32::to_bits), [value.to_bits(); 2], "{value}");
            }
        }
        assert!(!survives_64_bits(7.038531e-26));
    }

    proptest! {
        #[test]
        fn all_bits_come_back(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            let bits = if value.is_nan() { f32::NAN.to_bits() } else { bits };
            prop_assert_eq!(read_again(value).map(f32::to_bits), [bits; 2]);
        }
    }

    #[test]
    fn descriptions_of_operations_come_back() {
        let (inf, to) = (f32::INFINITY, QuantizeTo { scale: 0.1, zero_point: 3, low: 1, high: 9 });
        assert_comes_back(to);
        assert_comes_back(AddScales {
            a_scale: inf,
            a_zero_point: 1,
            b_scale: -inf,
            b_zero_point: 2,
            to,
        });
        for function in [
            Function::Relu,
            Function::LeakyRelu { slope: 0.01 },
            Function::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Function::Clip { low: -inf, high: inf },
            Function::Elu { alpha: 1e-45 },
        ] {
            assert_comes_back(function);
        }
        assert_comes_back([Binary::Add, Binary::Max]);
        assert_comes_back([Divisor::AllTaps, Divisor::PixelsInside]);
        assert_comes_back(Level::ALL);
        let halo = Halo { top: 1, left: 2, bottom: 3, right: 4 };
        let window = Window {
            kernel: [3, 2],
            stride: [1, 2],
            pads_begin: [0, 1],
            pads_end: [5, 6],
            dilation: [4, 1],
        };
        assert_comes_back(window);
        let layout = ImageLayout { images: 1, height: 2, width: 3, channels: 4, halo };
        assert_comes_back(ImagePooling { window, from: layout, to: layout });
        assert_comes_back(Averaging {
            divisor: Divisor::AllTaps,
            from_scale: 0.1,
            from_zero_point: 5,
            to,
        });
        assert_comes_back(Pooling { window, size: [8, 9], out_size: [4, 5] });
        assert_comes_back(Dims { m: 1, k: 2, n: 3 });
        assert_comes_back(Grid { images: 1, height: 2, width: 3 });
        assert_comes_back(RowStrides { start: 1, image: 2, row: 3, pixel: 4 });
    }
}
