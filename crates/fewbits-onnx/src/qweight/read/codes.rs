//! The numbers of a weight without their scales: integers or small floats.

use fewbits_quant::{Encoding, FloatFormat, PackedInts};

use super::WeightReader;
use crate::proto::{DataType, NodeProto, TensorProto};
use crate::qweight::bit_values;

/// A constant tensor of integers, or of small floats.
pub(super) struct Codes {
    pub shape: Vec<usize>,
    pub ints: PackedInts,
}

impl<'a> WeightReader<'a> {
    /// Codes that were widened to floats: by a cast, by a table, or by what unpacks them.
    pub(super) fn numbers(&self, name: &str) -> Option<Codes> {
        let producer = self.producer(name)?;
        match producer.op_type() {
            "Cast" => self.codes(producer.input.first()?),
            "Gather" => self.of_table(producer),
            _ => self.unpacked(name),
        }
    }

    /// Codes that look their numbers up in a table of all that a format has.
    fn of_table(&self, gather: &NodeProto) -> Option<Codes> {
        let table = self.index.initializer(gather.input.first()?)?.floats().ok()?;
        let formats = FloatFormat::ALL.map(Encoding::Float);
        let encoding = formats.into_iter().chain([Encoding::Exponent]).find(|encoding| {
            let floats = encoding.floats().unwrap_or_default();
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            floats.len() == table.len() && floats.iter().zip(&table).all(same)
        })?;
        let index = gather.input.get(1)?;
        let codes = match self.producer(index)? {
            cast if cast.is("Cast") => self.codes(cast.input.first()?)?,
            _ => self.unpacked(index)?,
        };
        if codes.ints.encoding() != Encoding::Unsigned {
            return None;
        }
        let (ints, width) = (&codes.ints, table.len().ilog2() as u8);
        let ints = match ints.width() == width {
            true => codes.ints.with_encoding(encoding),
            // Whole bytes of codes of 4 bits.
            false if ints.bits_needed() <= width => {
                PackedInts::pack(&ints.unpack(), width, encoding)
            }
            false => return None,
        };
        Some(Codes { ints, ..codes })
    }

    /// A constant integer tensor: an initializer, or the end of an unpacking chain.
    pub(super) fn codes(&self, name: &str) -> Option<Codes> {
        let Some(tensor) = self.index.initializer(name) else { return self.unpacked(name) };
        let float = |format| (Encoding::Float(format), DataType::Uint8);
        let (encoding, bits) = match tensor.element_type().ok()? {
            DataType::Float8e4m3fn => float(FloatFormat::E4m3),
            DataType::Float8e5m2 => float(FloatFormat::E5m2),
            DataType::Float4e2m1 => (Encoding::Float(FloatFormat::E2m1), DataType::Uint4),
            DataType::Float8e8m0 => (Encoding::Exponent, DataType::Uint8),
            _ => return self.integers(tensor),
        };
        // Read as the integers of as many bits.
        let codes = TensorProto { data_type: Some(bits as i32), ..tensor.clone() };
        let codes = self.integers(&codes)?;
        Some(Codes { ints: codes.ints.with_encoding(encoding), ..codes })
    }

    fn integers(&self, tensor: &TensorProto) -> Option<Codes> {
        let (width, encoding) = match tensor.element_type().ok()? {
            DataType::Int8 => (8, Encoding::TwosComplement),
            DataType::Uint8 => (8, Encoding::Unsigned),
            DataType::Int16 => (16, Encoding::TwosComplement),
            DataType::Int4 => (4, Encoding::TwosComplement),
            DataType::Uint4 => (4, Encoding::Unsigned),
            DataType::Int2 => (2, Encoding::TwosComplement),
            DataType::Uint2 => (2, Encoding::Unsigned),
            _ => return None,
        };
        let ints = PackedInts::pack(&tensor.shorts().ok()?, width, encoding);
        Some(Codes { shape: tensor.shape().ok()?, ints })
    }

    /// The chain that the writer emits, followed backwards from its last `Reshape`.
    fn unpacked(&self, name: &str) -> Option<Codes> {
        let (mut node, shape) = self.reshape(name)?;
        let shape: Vec<usize> =
            shape.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        let len: usize = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if node.is("Slice") {
            node = self.reshape(node.input.first()?)?.0;
        }
        if node.is("Cast") {
            node = self.producer(node.input.first()?)?;
        }
        let minus_one = node.is("Sub");
        if minus_one {
            node = self.producer(node.input.first()?)?;
        }
        if !(node.is("MatMulInteger") || node.is("MatMul")) {
            return None;
        }
        let values = self.index.initializer(node.input.get(1)?)?;
        let values: Vec<i32> = match values.element_type().ok()? {
            DataType::Float => values.floats().ok()?.into_iter().map(|v| v as i32).collect(),
            _ => values.ints().ok()?.into_iter().map(|v| v as i32).collect(),
        };
        let width =
            u8::try_from(values.len()).ok().filter(|w| (1..=PackedInts::MAX_WIDTH).contains(w))?;
        let encoding = [Encoding::Sign, Encoding::TwosComplement, Encoding::Unsigned]
            .into_iter()
            .filter(|&e| (e == Encoding::Sign) == minus_one && (e != Encoding::Sign || width == 1))
            .find(|&e| bit_values(e, width) == values)?;
        node = self.producer(node.input.first()?)?;
        if node.is("Cast") {
            node = self.producer(node.input.first()?)?;
        }
        let two = self.index.initializer(node.input.get(1)?)?.ints().ok()?;
        let shift = self.producer(node.input.first()?).filter(|n| n.is("BitShift"))?;
        let shifts = self.index.initializer(shift.input.get(1)?)?.ints().ok()?;
        if !node.is("Mod") || two != [2] || shifts != [0, 1, 2, 3, 4, 5, 6, 7] {
            return None;
        }
        let packed = self.index.initializer(shift.input.first()?)?;
        let ints = PackedInts::from_bytes(packed.raw_data().to_vec(), len, width, encoding)?;
        Some(Codes { shape, ints })
    }

    /// The producer of a `Reshape`'s input, and the target shape.
    fn reshape(&self, name: &str) -> Option<(&'a NodeProto, Vec<i64>)> {
        let node = self.producer(name).filter(|n| n.is("Reshape"))?;
        let shape = self.index.initializer(node.input.get(1)?)?.ints().ok()?;
        Some((self.producer(node.input.first()?)?, shape))
    }
}
